"""One or several columns to predict, of a table or of a label file."""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from training.data.columns.cells import Cells
from training.data.outputs import Output, identifiers, label_slices, labels_side_by_side
from training.data.readers.targets import Asked, Target, left_out, read_target
from training.recipe.config import DataConfig
from zoo.common.errors import DataError
from zoo.common.lazy import np
from zoo.specs.tasks import MULTILABEL, MULTITASK, REGRESS, task_of

# What is between the labels of a cell.
SEPARATOR = re.compile(r"[|;,]|\s+")
# Numbers of a column that says whether a label applies, the last one where that is unknown.
YES, NO, UNKNOWN = 1.0, 0.0, -1.0


def read_targets(columns: Mapping[str, Cells], config: DataConfig, asked: Asked) -> Target:
    """Return what the target columns hold, in the rows that have a target.

    Args:
        columns: the cells of each target column by its name; missing ones have no text.
        config: the task.
        asked: how a column is read.

    Raises:
        DataError: see `read_target`; a label is neither 0 nor 1; one target where there should be several.
    """
    asked = dataclasses.replace(asked, task=config.task)
    flags = len(columns) > 1 and not (config.task or config.tasks) and all(map(is_flags, columns.values()))
    kind = task_of(config.task)
    if kind.marks or flags:
        return _lists(*next(iter(columns.items()))) if len(columns) == 1 else _marks(columns)
    if len(columns) == 1:
        ((name, cells),) = columns.items()
        if kind.several:
            raise DataError(
                f"data.task={config.task} needs several targets. Received: data.target={name!r}. Name them by: --set "
                'data.target=\'["COLUMN","COLUMN"]\''
            )
        found = read_target(name, cells, asked)
        return _with_left_out(found, columns)
    return _numbers(columns, asked) if kind.numbers and not config.tasks else _several(columns, config, asked)


def is_flags(cells: Cells) -> bool:
    """Return whether a column has 0 and 1 only, next to missing cells."""
    found = {_number(text) for text in cells.as_texts().texts()}
    return found - {None} <= {YES, NO} and bool(found - {None})


def _number(text: str) -> float | None:
    """Return the number of a text, None if it is empty, NaN if it is none."""
    try:
        return float(text) if text else None
    except ValueError:
        return float("nan")


def _with_left_out(found: Target, columns: Mapping[str, Cells]) -> Target:
    """Return a target whose notes state the rows without one."""
    total = len(next(iter(columns.values())))
    said = left_out(total - len(found.rows), list(columns.values()))
    return dataclasses.replace(found, notes=(*found.notes, *said))


def _lists(name: str, cells: Cells) -> Target:
    """Return several labels from lists in a column; an empty cell has none."""
    parts = [{part for part in SEPARATOR.split(text) if part} for text in cells.texts()]
    labels = tuple(sorted(set().union(*parts)))
    if not labels:
        raise DataError(f"Expected lists of labels in the target {name!r}. Received: none in {len(cells):,} rows.")
    values = np.array([[label in row for label in labels] for row in parts], "int64")
    empty = sum(not row for row in parts)
    none = f"; none of them in {empty:,} rows" if empty else ""
    note = f"target {name!r}: several labels at once, {len(labels)} labels{none}"
    return Target(MULTILABEL, labels, values, np.arange(len(values)), (note,))


def _marks(columns: Mapping[str, Cells]) -> Target:
    """Return several labels from columns of 0 and 1, where -1 or a missing cell is unknown."""
    values = np.array([_flags(name, cells) for name, cells in columns.items()], "int64").T
    kept = np.flatnonzero((values >= 0).any(1))
    found = Target(MULTILABEL, tuple(columns), values[kept], kept, tuple(_marks_notes(columns, values[kept])))
    return _with_left_out(found, columns)


def _flags(name: str, cells: Cells) -> list[int]:
    found = list(map(_number, cells.as_texts().texts()))
    for row, number in enumerate(found, start=1):
        if number not in (None, YES, NO, UNKNOWN):
            raise DataError(
                f"Expected 0 or 1 in every row of the label column {name!r}. Received: {cells.texts()[row - 1]!r} in "
                f"row {row}"
            )
    return [int(UNKNOWN if number is None else number) for number in found]


def _marks_notes(columns: Mapping[str, Cells], values: Any) -> Iterator[str]:
    yield f"targets {', '.join(map(repr, columns))}: several labels at once, 0 or 1 each; data.task changes that"
    unknown = int((values < 0).sum())
    if unknown:
        yield f"{unknown:,} labels are unknown, and neither learned nor measured"


def _numbers(columns: Mapping[str, Cells], asked: Asked) -> Target:
    """Return numbers of the rows that have all of them."""
    asked = dataclasses.replace(asked, task=REGRESS)
    parts = [read_target(name, cells, asked) for name, cells in columns.items()]
    kept = functools.reduce(np.intersect1d, [part.rows for part in parts])
    if not len(kept):
        raise DataError(f"Expected rows with all of the targets {', '.join(columns)}. Received: none.")
    values = np.concatenate([part.values[np.searchsorted(part.rows, kept)] for part in parts], axis=1)
    found = Target(REGRESS, tuple(columns), values, kept, _joined_notes(parts))
    return _with_left_out(found, columns)


def _joined_notes(parts: Sequence[Target]) -> tuple[str, ...]:
    return tuple(note for part in parts for note in part.notes)


def _several(columns: Mapping[str, Cells], config: DataConfig, asked: Asked) -> Target:
    """Return several targets, each with an output of its own; a row needs one of them."""
    names, parts = identifiers(list(columns)), []
    for name, cells in columns.items():
        task = config.tasks.get(name, config.task if task_of(config.task).single else "")
        one = dataclasses.replace(asked, task=task, option=f"data.tasks.{name}")
        parts.append(_lists(name, cells) if task_of(task).marks else read_target(name, cells, one))
    outputs = tuple(
        Output(name, target, part.task, part.labels) for name, target, part in zip(names, columns, parts, strict=True)
    )
    total = len(next(iter(columns.values())))
    values = np.full((total, sum(output.columns for output in outputs)), np.nan, "float32")
    for (_, place), part in zip(label_slices(outputs), parts, strict=True):
        values[part.rows, place] = part.values.reshape(len(part.rows), -1)
    kept = np.flatnonzero(~np.isnan(values).all(1))
    notes = [note for output, part in zip(outputs, parts, strict=True) for note in _output_notes(output, part, kept)]
    found = Target(MULTITASK, labels_side_by_side(outputs), values[kept], kept, tuple(notes), outputs)
    return _with_left_out(found, columns)


def _output_notes(output: Output, part: Target, kept: Any) -> Iterator[str]:
    """Yield the lines on one of several targets."""
    first, *others = part.notes
    gone = len(np.setdiff1d(kept, part.rows))
    named = f"; its output is {output.name}" if output.name != output.target else ""
    yield f"{first}{named}" + (f"; missing in {gone:,} rows, which teach the other targets only" if gone else "")
    yield from others
