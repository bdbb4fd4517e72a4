"""From the cells of a table to a dataset: target, task, splits and columns."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from training.data.columns.cells import Cells, Rows, masked
from training.data.columns.fitting import Hints, fit_cells
from training.data.columns.missing import spellings
from training.data.dataset import Dataset, Split
from training.data.readers.table_files import Reading, select_columns
from training.data.readers.target_sets import read_targets
from training.data.readers.targets import Asked, Target
from training.data.splits import OPTIONS as OF_SPLITS
from training.data.splits import split_indices
from training.data.tokenization import without_tokens
from training.recipe.config import DataConfig
from zoo.common.errors import DataError
from zoo.common.lazy import np, tf
from zoo.specs.text import TextConfig

# Fields of DataConfig that apply to tables, and to files with tables.
OPTIONS = (*OF_SPLITS, "target", "columns", "task", "tasks", "decimal", "date_order", "missing", "encoding", "header")


def reading_of(config: DataConfig, *, texts: bool = False) -> Reading:
    """Return how a table is read.

    Args:
        config: the options of the data.
        texts: whether every column has texts; then only an empty cell is missing.
    """

    def as_texts(name: str, names: Sequence[str]) -> bool:
        return texts or name in targets_of(config, names)

    missing = ("",) if texts else spellings(config.missing)
    return Reading(config.encoding, config.header, missing, config.skip_bad, as_texts)


def targets_of(config: DataConfig, names: Sequence[str]) -> list[str]:
    """Return the target columns: those that `data.target` names, else the last one."""
    if not config.target:
        return [names[-1]]
    return [config.target] if isinstance(config.target, str) else list(config.target)


def asked_of(config: DataConfig, rows: Rows, *, few: bool = True) -> Asked:
    """Return how the targets of a table are read; see `Asked`."""
    return Asked(decimal=config.decimal or rows.decimal, few=few)


def table_dataset(name: str, rows: Rows, config: DataConfig, task: str = "") -> Dataset:
    """Return rows of a table as a dataset.

    Args:
        name: the name of the dataset.
        rows: the cells of the columns.
        config: the target, the columns and the split.
        task: "classify" or "regress" if the recipe does not set it; "" infers it: texts and a few whole numbers are
            classes, other numbers are regression targets.

    Raises:
        DataError: a column is missing, the target is invalid, or there are too few rows.
    """
    cells = select_columns(rows, _feature_columns(rows, config), "data.columns")
    target = _target(rows, config, task)
    parts = _parts(target, config)
    hints = Hints(
        config.decimal,
        rows.decimal,
        config.date_order,
        missing=spellings(config.missing),
        chosen=bool(config.columns),
        nameless=rows.nameless,
    )
    fitted = fit_cells(_Chosen(cells, target.rows[parts["train"]]), hints)
    used = {column: cells[column] for column in fitted.schema.names}
    return Dataset(
        name,
        target.labels,
        (),
        {split: _rows_split(target, part) for split, part in parts.items()},
        table=fitted.schema,
        cells=dataclasses.replace(rows, columns=used),
        task=target.task,
        outputs=target.outputs,
        options=OPTIONS,
        notes=(*rows.notes, *target.notes, *fitted.notes),
    )


class _Chosen(Mapping[str, Cells]):
    """The cells of some rows, one column in memory at a time."""

    def __init__(self, cells: Mapping[str, Cells], rows: Any) -> None:
        self._cells, self._rows = cells, rows

    def __getitem__(self, name: str) -> Cells:
        return self._cells[name].take(self._rows)

    def __iter__(self) -> Iterator[str]:
        return iter(self._cells)

    def __len__(self) -> int:
        return len(self._cells)


def text_dataset(name: str, rows: Rows, config: DataConfig) -> Dataset:
    """Return rows with a column of texts as a dataset; see `table_dataset`.

    A text without a word becomes the unknown token, or is left out if `data.skip_bad`.

    Raises:
        DataError: not exactly one text column, a missing column, or no text.
    """
    wanted = _feature_columns(rows, config)
    if len(wanted) != 1:
        raise DataError(
            f"Expected one column of texts. Received: {', '.join(wanted)}. Name it by: --set data.columns='[\"NAME\"]'"
        )
    # TensorFlow's constants end at a zero byte.
    cells = select_columns(rows, wanted, "data.columns")[wanted[0]]
    texts = np.array([text.replace("\0", " ") for text in cells.texts()], object)
    if not any(texts):
        raise DataError(f"Expected texts in the column {wanted[0]!r}. Received: {rows.source} with empty cells only.")
    target, notes = _with_words(_target(rows, config, ""), texts, config, rows)
    splits = {split: _text_split(texts, target, part) for split, part in _parts(target, config).items()}
    notes = (*rows.notes, *target.notes, *notes)
    return Dataset(
        name,
        target.labels,
        (),
        splits,
        text=TextConfig(),
        task=target.task,
        outputs=target.outputs,
        options=OPTIONS,
        notes=notes,
    )


def _with_words(target: Target, texts: Any, config: DataConfig, rows: Rows) -> tuple[Target, list[str]]:
    """Return the target of the rows to use, and what to say about texts without a word."""
    bad = without_tokens(TextConfig(), texts[target.rows].tolist())
    if not bad.any():
        return target, []
    shown = ", ".join(f"row {row + 1} {texts[row][:20]!r}" for row in target.rows[bad][:3])
    said = f"{int(bad.sum()):,} texts of {rows.source} without a word ({shown})"
    if config.skip_bad:
        return target.take(np.flatnonzero(~bad)), [f"Left out: {said}"]
    return target, [f"{said} are learned as unknown; data.skip_bad=true leaves them out"]


def _feature_columns(rows: Rows, config: DataConfig) -> list[str]:
    """Return the columns that are not the target."""
    targets = targets_of(config, rows.names)
    wanted = list(config.columns) or [column for column in rows.names if column not in targets]
    if set(targets) & set(wanted) or not wanted:
        raise DataError(
            f"Expected feature columns other than the target {', '.join(map(repr, targets))}. Received: "
            f"data.columns={wanted}, columns={rows.names[:20]}"
        )
    return wanted


def _target(rows: Rows, config: DataConfig, task: str) -> Target:
    """Return the targets of all rows that have one."""
    config = dataclasses.replace(config, task=config.task or task)
    missing, wanted = spellings(config.missing), targets_of(config, rows.names)
    cells = {name: masked(found, missing) for name, found in select_columns(rows, wanted, "data.target").items()}
    return read_targets(cells, config, asked_of(config, rows))


def _parts(target: Target, config: DataConfig) -> dict[str, Any]:
    parts = split_indices(len(target.rows), config, target.classes)
    return {split: np.array(part, "int64") for split, part in parts.items()}


def _rows_split(target: Target, part: Any) -> Split:
    """Return a split of the numbers of rows; the encoder finds their cells."""
    numbers = target.rows[part]
    return _split(lambda chosen: numbers[chosen], target.values[part])


def _text_split(texts: Any, target: Target, part: Any) -> Split:
    numbers = target.rows[part]
    return _split(lambda chosen: tf.constant(texts[numbers[chosen]].tolist(), tf.string), target.values[part])


def _split(find: Callable[[Any], Any], values: Any) -> Split:
    def read(chosen: Any) -> Any:
        return tf.data.Dataset.from_tensor_slices((find(chosen), values[chosen]))

    def read_labels() -> Any:
        return tf.data.Dataset.from_tensor_slices(values)

    return Split(read(np.arange(len(values))), len(values), select=read, read_labels=read_labels)
