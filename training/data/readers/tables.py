"""From rows of cells to a dataset: the target, the task, the division and the columns."""

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

# Options of the data that tables have.
OPTIONS = (*OF_SPLITS, "target", "columns", "task")
# More whole numbers than this in the target are a scale, and more different texts no classes.
FEW, MOST = 20, 1000


def table_dataset(name: str, names: list[str], rows: list[list[str]], config: DataConfig, task: str = "") -> Dataset:
    """Return rows of a table as a dataset.

    Args:
        name: what it is called.
        names: headings.
        rows: cells as text, in the order of the headings.
        config: the target, the columns and how to divide.
        task: "classify" or "regress" where the recipe does not say; "" infers it: texts and a few whole numbers are
            classes, other numbers are a scale.

    Raises:
        DataError: a column is missing, the target cannot be, or there are too few rows.
    """
    wanted = _beside(names, config)
    cells = select_columns(names, rows, wanted, "data.columns")
    task, labels, truth = _target(names, rows, config, task)
    parts = split_indices(len(rows), config, truth if task == "classify" else None)
    splits = {split: _split([cells[i] for i in part], truth[part]) for split, part in parts.items()}
    table = fit_columns(wanted, [cells[i] for i in parts["train"]])
    return Dataset(name, labels, (), splits, table=table, task=task, options=OPTIONS)


def text_dataset(name: str, names: list[str], rows: list[list[str]], config: DataConfig) -> Dataset:
    """Return rows with a column of texts as a dataset; see `table_dataset`.

    Raises:
        DataError: it is not clear which column that is, one is missing, or a text is empty.
    """
    wanted = _beside(names, config)
    if len(wanted) != 1:
        raise DataError(
            f"Expected one column of texts. Received: {', '.join(wanted)}. Name it by: --set data.columns='[\"NAME\"]'"
        )
    texts = [row[0] for row in select_columns(names, rows, wanted, "data.columns")]
    for number, text in enumerate(texts, start=1):
        if not text.strip():
            raise DataError(f"Expected a text in every row of the column {wanted[0]!r}. Received: none in row {number}")
    task, labels, truth = _target(names, rows, config, "")
    parts = split_indices(len(rows), config, truth if task == "classify" else None)
    splits = {split: _split([texts[i] for i in part], truth[part]) for split, part in parts.items()}
    return Dataset(name, labels, (), splits, text=TextConfig(), task=task, options=OPTIONS)


def _beside(names: list[str], config: DataConfig) -> list[str]:
    """Return the columns that are not the target."""
    target = config.target or names[-1]
    wanted = list(config.columns) or [column for column in names if column != target]
    if target in wanted or not wanted:
        raise DataError(
            f"Expected columns beside the target {target!r}. Received: data.columns={wanted}, columns={names[:20]}"
        )
    return wanted


def _target(names: list[str], rows: list[list[str]], config: DataConfig, task: str) -> tuple[str, tuple[str, ...], Any]:
    """Return the task, the names of the classes or the target, and the truth."""
    target = config.target or names[-1]
    answers = [row[0] for row in select_columns(names, rows, [target], "data.target")]
    task = config.task or task or _infer(answers)
    labels, truth = _READ[task](target, answers)
    if task == "classify":
        check_classes(labels, truth, target)
    return task, labels, truth


def _split(cells: Sequence[Any], targets: Any) -> Split:
    def read(numbers: Any) -> Any:
        chosen = [cells[i] for i in numbers]
        return tf.data.Dataset.from_tensor_slices((tf.constant(chosen, tf.string), targets[numbers]))

    return Split(read(np.arange(len(cells))), len(cells), select=read)


def _infer(answers: Sequence[str]) -> str:
    """Return the task that a target asks for."""
    numbers = [parse_number(answer) for answer in answers]
    if None in numbers:
        return "classify"
    whole = all(answer.strip().lstrip("+-").isdigit() for answer in answers)
    return "classify" if whole and len(set(answers)) <= FEW else "regress"


def _classes(target: str, answers: Sequence[str]) -> tuple[tuple[str, ...], Any]:
    """Return the names of the classes, numbers in their order and texts in the alphabet's, and int64 (n,)."""
    names = {answer.strip() for answer in answers}
    if "" in names:
        row = next(i for i, answer in enumerate(answers, start=1) if not answer.strip())
        raise DataError(f"Expected a class in every row of the target {target!r}. Received: none in row {row}")
    if not 2 <= len(names) <= min(MOST, len(answers) - 1):
        raise DataError(
            f"Expected 2 to {MOST} classes, with more than one row each, in the target {target!r}. "
            f"Received: {len(names)} different values in {len(answers)} rows. Name another data.target, or for numbers "
            "set data.task=regress."
        )
    labels = sorted(names, key=lambda name: (_order(name), name))
    number = {label: i for i, label in enumerate(labels)}
    return tuple(labels), np.array([number[answer.strip()] for answer in answers], "int64")


def _order(name: str) -> float:
    number = parse_number(name)
    return math.inf if number is None or math.isnan(number) else number


def _values(target: str, answers: Sequence[str]) -> tuple[tuple[str, ...], Any]:
    """Return the name of the target, and float32 (n, 1)."""
    numbers = [parse_number(answer) for answer in answers]
    for row, (answer, number) in enumerate(zip(answers, numbers, strict=True), start=1):
        if number is None or not math.isfinite(number):
            raise DataError(
                f"Expected a number in every row of the target {target!r}. Received: {answer!r} in row {row}"
            )
    return (target,), np.array(numbers, "float32")[:, None]


_READ = {"classify": _classes, "regress": _values}
