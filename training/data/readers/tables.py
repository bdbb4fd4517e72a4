"""From rows of cells to a dataset: target, task, splits and columns."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from training.data.columns import fit_columns, parse_number
from training.data.dataset import Dataset, Split
from training.data.readers.table_files import select_columns
from training.data.splits import OPTIONS as OF_SPLITS
from training.data.splits import check_classes, split_indices
from training.recipe.config import DataConfig
from zoo.common.errors import DataError
from zoo.common.lazy import np, tf
from zoo.specs.text import TextConfig

# Fields of DataConfig that apply to tables.
OPTIONS = (*OF_SPLITS, "target", "columns", "task")
# A target of at most this many different whole numbers is a class, and the maximum number of classes.
FEW, MOST = 20, 1000


def table_dataset(name: str, names: list[str], rows: list[list[str]], config: DataConfig, task: str = "") -> Dataset:
    """Return rows of a table as a dataset.

    Args:
        name: the name of the dataset.
        names: column names.
        rows: cells as text, in the order of the columns.
        config: the target, the columns and the split.
        task: "classify" or "regress" if the recipe does not set it; "" infers it: texts and a few whole numbers are
            classes, other numbers are regression targets.

    Raises:
        DataError: a column is missing, the target is invalid, or there are too few rows.
    """
    wanted = _feature_columns(names, config)
    cells = select_columns(names, rows, wanted, "data.columns")
    task, labels, targets = _target(names, rows, config, task)
    parts = split_indices(len(rows), config, targets if task == "classify" else None)
    splits = {split: _split([cells[i] for i in part], targets[part]) for split, part in parts.items()}
    table = fit_columns(wanted, [cells[i] for i in parts["train"]])
    return Dataset(name, labels, (), splits, table=table, task=task, options=OPTIONS)


def text_dataset(name: str, names: list[str], rows: list[list[str]], config: DataConfig) -> Dataset:
    """Return rows with a column of texts as a dataset; see `table_dataset`.

    Raises:
        DataError: not exactly one text column, a missing column, or an empty text.
    """
    wanted = _feature_columns(names, config)
    if len(wanted) != 1:
        raise DataError(
            f"Expected one column of texts. Received: {', '.join(wanted)}. Name it by: --set data.columns='[\"NAME\"]'"
        )
    texts = [row[0] for row in select_columns(names, rows, wanted, "data.columns")]
    for number, text in enumerate(texts, start=1):
        if not text.strip():
            raise DataError(f"Expected a text in every row of the column {wanted[0]!r}. Received: none in row {number}")
    task, labels, targets = _target(names, rows, config, "")
    parts = split_indices(len(rows), config, targets if task == "classify" else None)
    splits = {split: _split([texts[i] for i in part], targets[part]) for split, part in parts.items()}
    return Dataset(name, labels, (), splits, text=TextConfig(), task=task, options=OPTIONS)


def _feature_columns(names: list[str], config: DataConfig) -> list[str]:
    """Return the columns that are not the target."""
    target = config.target or names[-1]
    wanted = list(config.columns) or [column for column in names if column != target]
    if target in wanted or not wanted:
        raise DataError(
            f"Expected feature columns other than the target {target!r}. Received: data.columns={wanted}, "
            f"columns={names[:20]}"
        )
    return wanted


def _target(names: list[str], rows: list[list[str]], config: DataConfig, task: str) -> tuple[str, tuple[str, ...], Any]:
    """Return the task, the names of the classes or the target, and the target values."""
    target = config.target or names[-1]
    cells = [row[0] for row in select_columns(names, rows, [target], "data.target")]
    task = config.task or task or _infer(cells)
    labels, targets = _READ[task](target, cells)
    if task == "classify":
        check_classes(labels, targets, target)
    return task, labels, targets


def _split(cells: Sequence[Any], targets: Any) -> Split:
    def read(numbers: Any) -> Any:
        chosen = [cells[i] for i in numbers]
        return tf.data.Dataset.from_tensor_slices((tf.constant(chosen, tf.string), targets[numbers]))

    return Split(read(np.arange(len(cells))), len(cells), select=read)


def _infer(cells: Sequence[str]) -> str:
    """Return the task of a target column."""
    numbers = [parse_number(cell) for cell in cells]
    if None in numbers:
        return "classify"
    whole = all(cell.strip().lstrip("+-").isdigit() for cell in cells)
    return "classify" if whole and len(set(cells)) <= FEW else "regress"


def _classes(target: str, cells: Sequence[str]) -> tuple[tuple[str, ...], Any]:
    """Return the names of the classes, numbers in numeric and texts in alphabetical order, and int64 (n,)."""
    names = {cell.strip() for cell in cells}
    if "" in names:
        row = next(i for i, cell in enumerate(cells, start=1) if not cell.strip())
        raise DataError(f"Expected a class in every row of the target {target!r}. Received: none in row {row}")
    if not 2 <= len(names) <= min(MOST, len(cells) - 1):
        raise DataError(
            f"Expected 2 to {MOST} classes, with more than one row each, in the target {target!r}. "
            f"Received: {len(names)} different values in {len(cells)} rows. Name another data.target, or for numbers "
            "set data.task=regress."
        )
    labels = sorted(names, key=lambda name: (_order(name), name))
    number = {label: i for i, label in enumerate(labels)}
    return tuple(labels), np.array([number[cell.strip()] for cell in cells], "int64")


def _order(name: str) -> float:
    number = parse_number(name)
    return math.inf if number is None or math.isnan(number) else number


def _values(target: str, cells: Sequence[str]) -> tuple[tuple[str, ...], Any]:
    """Return the name of the target, and float32 (n, 1)."""
    numbers = [parse_number(cell) for cell in cells]
    for row, (cell, number) in enumerate(zip(cells, numbers, strict=True), start=1):
        if number is None or not math.isfinite(number):
            raise DataError(f"Expected a number in every row of the target {target!r}. Received: {cell!r} in row {row}")
    return (target,), np.array(numbers, "float32")[:, None]


_READ = {"classify": _classes, "regress": _values}
