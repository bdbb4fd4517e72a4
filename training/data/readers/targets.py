"""The column to predict: its task, its classes or numbers, and the rows that have it."""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from training.data.columns.cells import Cells
from training.data.columns.column import LARGEST
from training.data.columns.fitting import ENOUGH, fit_texts
from training.data.columns.numbers import BOOLEAN, Fit, NumberRule
from training.data.outputs import Output, strata
from training.data.splits import check_classes
from zoo.common.errors import DataError
from zoo.common.lazy import np
from zoo.specs.tasks import task_of

if TYPE_CHECKING:
    import numpy as _np

# A target of at most this many different whole numbers is a class, and the maximum number of classes.
FEW, MOST = 20, 1000
# The fraction of a target's cells from which on "none" may be a class.
OFTEN = 0.05


@dataclasses.dataclass(frozen=True)
class Target:
    """The target of a table, or several.

    Args:
        task: "classify", "regress", "multilabel" or "multitask".
        labels: names of the classes, or of the target; see `training.data.Dataset`.
        values: class indices int64 (n,), numbers float32 (n, targets), or several labels int64 (n, labels), of the rows
            below; of several targets with their own outputs float32 (n, columns).
        rows: int64 (n,), the numbers of the rows that have a target.
        notes: what was guessed or left out, a line each.
        outputs: of the model, for several targets.
    """

    task: str
    labels: tuple[str, ...]
    values: _np.ndarray
    rows: _np.ndarray
    notes: tuple[str, ...] = ()
    outputs: tuple[Output, ...] = ()

    @property
    def classes(self) -> _np.ndarray | None:
        """The classes by which rows are split, int64 (n,); None without classes."""
        if self.outputs:
            return strata(self.outputs, self.values)
        return self.values if task_of(self.task).indexed else None

    def take(self, places: Any) -> Target:
        """Return the target of some of its rows."""
        return dataclasses.replace(self, values=self.values[places], rows=self.rows[places])


@dataclasses.dataclass(frozen=True)
class Asked:
    """How a target is read.

    Args:
        task: "classify" or "regress"; "" infers it.
        decimal: the decimal sign of numbers, "" if it is unknown.
        option: the option that sets the task, for messages.
        few: whether there are at most `MOST` classes, with more than one row each. A table has other columns that may
            be meant; a label file names its classes.
    """

    task: str = ""
    decimal: str = ""
    option: str = "data.task"
    few: bool = True


def read_target(name: str, cells: Cells, asked: Asked = Asked()) -> Target:
    """Return the target of the rows that have one.

    Args:
        name: the name of its column.
        cells: its cells, as texts.
        asked: how it is read.

    Raises:
        DataError: there are too many classes or too few, a class has a single example, or a target is no number.
    """
    cells = cells.as_texts()
    fit = _fit(cells, asked.decimal)
    inferred = asked.task or _infer(cells, fit)
    read = _numbers if task_of(inferred).numbers else _classes
    labels, values, kept = read(name, cells, fit, asked)
    found = Target(inferred, labels, values, kept)
    return dataclasses.replace(found, notes=tuple(_notes(name, found, fit, asked)))


def left_out(count: int, cells: Sequence[Cells] = ()) -> Iterator[str]:
    """Yield a line if rows have no target.

    Args:
        count: the number of such rows.
        cells: the cells of the targets.
    """
    if count:
        spelled: Counter[str] = Counter()
        for part in cells:
            spelled.update({text: number for text, number in part.spelled.items() if text})
        shown = "".join(f", {text!r} in {number:,}" for text, number in spelled.most_common(3))
        yield f"Left out: {count:,} rows without a target{shown}; data.missing lists what counts as missing"


def _fit(cells: Cells, decimal: str) -> Fit | None:
    fit = fit_texts(cells, decimal)
    return fit if fit and isinstance(fit.rule, NumberRule) and fit.rule.form != BOOLEAN else None


def _infer(cells: Cells, fit: Fit | None) -> str:
    """Return the task of a target column."""
    if fit is None:
        return "classify"
    words = [word for word, count in zip(cells.words.to_pylist(), cells.counts, strict=True) if count]
    whole = len(words) <= FEW and all(word.lstrip("+-").isdigit() for word in words)
    return "classify" if whole else "regress"


def _numbers(name: str, cells: Cells, fit: Fit | None, asked: Asked) -> tuple[tuple[str, ...], Any, Any]:
    """Return the name of the target, its numbers float32 (n, 1), and the rows that have one."""
    values = fit.values if fit else np.full(len(cells.words), np.nan)
    values = np.append(np.where(np.abs(values) < LARGEST, values, np.nan), np.nan)[cells.codes]
    strays = np.flatnonzero(cells.present & np.isnan(values))
    if len(strays) > (1 - ENOUGH) * cells.present.sum():
        raise DataError(
            f"Expected a number in every row of the target {name!r}. Received: "
            f"{cells.take(strays[:1]).texts()[0]!r} in row {strays[0] + 1}. Set {asked.option}=classify for "
            "classes."
        )
    kept = np.flatnonzero(~np.isnan(values))
    if not len(kept):
        raise DataError(f"Expected numbers in the target {name!r}. Received: none in {len(cells)} rows.")
    return (name,), values[kept].astype("float32")[:, None], kept


def _classes(name: str, cells: Cells, _: Fit | None, asked: Asked) -> tuple[tuple[str, ...], Any, Any]:
    """Return the names of the classes, numbers in numeric and texts in alphabetical order; int64 (n,); their rows."""
    _check_spelling(name, cells)
    used, kept = np.flatnonzero(cells.counts), np.flatnonzero(cells.codes >= 0)
    if len(used) < 2 or (asked.few and len(used) > min(MOST, len(kept) - 1)):
        gone = f", and {len(cells) - len(kept):,} missing ones" if len(kept) < len(cells) else ""
        expected = f"2 to {MOST} classes, with more than one row each," if asked.few else "at least two classes"
        raise DataError(
            f"Expected {expected} in the target {name!r}. "
            f"Received: {len(used)} different values in {len(kept)} rows{gone}. Name another data.target, or for "
            f"numbers set {asked.option}=regress."
        )
    words = {int(place): cells.words[int(place)].as_py() for place in used}
    order = sorted(words, key=lambda place: (_order(words[place]), words[place]))
    indices = np.full(len(cells.words), -1, "int64")
    indices[order] = np.arange(len(order))
    labels, targets = tuple(words[place] for place in order), indices[cells.codes[kept]]
    if asked.few:
        check_classes(labels, targets, name)
    return labels, targets, kept


def _check_spelling(name: str, cells: Cells) -> None:
    """Raise DataError if a class may be called none."""
    often = [text for text, count in cells.spelled.items() if text.lower() == "none" and count >= OFTEN * len(cells)]
    if often:
        raise DataError(
            f"Expected to know whether {often[0]!r} is a class of the target {name!r} or a missing cell. Received: "
            f"{cells.spelled[often[0]]:,} of {len(cells):,} rows with it. Set data.missing='[\"\"]' for a class, or "
            "remove these rows."
        )


def _order(name: str) -> float:
    try:
        number = float(name)
    except ValueError:
        return math.inf
    return math.inf if math.isnan(number) else number


def _notes(name: str, found: Target, fit: Fit | None, asked: Asked) -> Iterator[str]:
    if task_of(found.task).numbers:
        rule = f", read as {fit.rule.described}" if fit and fit.rule.described else ""
        other = f"; {asked.option}=classify makes it classes" if not asked.task else ""
        yield f"target {name!r}: regression, a number{rule}{other}"
        return
    others = [f"{asked.option}=regress predicts it as a number"] if fit and not asked.task else []
    if any("|" in label for label in found.labels):
        others.append(f"{asked.option}=multilabel reads 'a|b' as two labels")
    yield "; ".join([f"target {name!r}: classification, {len(found.labels)} classes", *others])
    folded = Counter(label.casefold() for label in found.labels)
    twice = [label for label in found.labels if folded[label.casefold()] > 1]
    if twice:
        yield f"classes that differ in case only: {', '.join(map(repr, twice[:6]))}"
