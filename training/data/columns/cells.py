"""The cells of a table in memory: a few bytes each, whatever they hold."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from training.data.columns.missing import MISSING, cell_of, compute, is_missing
from training.data.columns.missing import arrow as pa
from zoo.common.lazy import np

if TYPE_CHECKING:
    import numpy as _np


# The code of a cell without a text, and the number of one without a number.
NO_TEXT, NO_NUMBER = -1, float("nan")


@dataclasses.dataclass(frozen=True)
class Cells:
    """The cells of one column: plain numbers, and texts by a code.

    Args:
        numbers: float32 or float64 (n,), NaN where a cell is missing or a text.
        words: the different texts without white space around them, a pyarrow array of strings.
        codes: int32 (n,), the text of each cell by its place in `words`, -1 for numbers and missing cells.
        spelled: number of missing cells by their spelling, where there are texts.
    """

    numbers: _np.ndarray
    words: Any
    codes: _np.ndarray
    spelled: Mapping[str, int] = dataclasses.field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.numbers)

    @property
    def present(self) -> _np.ndarray:
        """Return whether each cell has a value, bool (n,)."""
        return (self.codes >= 0) | ~np.isnan(self.numbers)

    @property
    def counts(self) -> _np.ndarray:
        """Return the number of cells with each of the words, int64 (words,)."""
        return np.bincount(self.codes[self.codes >= 0], minlength=len(self.words))

    def take(self, rows: Any) -> Cells:
        """Return the cells of some rows."""
        return Cells(_taken(self.numbers, rows), self.words, _taken(self.codes, rows))

    def by_word(self, values: Any) -> _np.ndarray:
        """Return float64 (n,): the value of each cell's word, the number of cells that have none.

        Args:
            values: float64 (words,).
        """
        if not len(self.words):
            return self.numbers.astype("float64")
        return np.where(self.codes >= 0, np.append(values, np.nan)[self.codes], self.numbers)

    def as_texts(self) -> Cells:
        """Return the same cells without numbers: 5.0 is the text "5"."""
        rows = np.flatnonzero(~np.isnan(self.numbers))
        if not len(rows):
            return self
        different, places = np.unique(self.numbers[rows], return_inverse=True)
        texts = pa.array([f"{value:.0f}" if float(value).is_integer() else repr(float(value)) for value in different])
        codes = self.codes.copy()
        codes[rows] = places + len(self.words)
        merged = pa.concat_arrays([self.words.cast(pa.string()), texts]).dictionary_encode()
        moved = np.append(merged.indices.to_numpy(zero_copy_only=False), -1).astype("int32")
        return Cells(_all(NO_NUMBER, len(self)), merged.dictionary, moved[codes], self.spelled)

    def texts(self) -> list[str]:
        """Return the text of each cell, "" where it is missing."""
        found = self.as_texts()
        words = [*found.words.to_pylist(), ""]
        return [words[code] for code in found.codes]


def _all(value: Any, count: int) -> _np.ndarray:
    """Return an array (count,) of one value, in the memory of one."""
    kind = "int32" if value == NO_TEXT else "float32"
    return np.broadcast_to(np.array(value, kind), (count,))


def _taken(values: _np.ndarray, rows: Any) -> _np.ndarray:
    return _all(values[0], len(values[rows])) if values.strides == (0,) and len(values) else values[rows]


def text_cells(texts: Any, missing: tuple[str, ...] = MISSING) -> Cells:
    """Return the cells of texts (n,), a pyarrow array of strings, null where missing."""
    encoded = compute.utf8_trim_whitespace(texts.cast(pa.string())).dictionary_encode()
    codes = encoded.indices.fill_null(-1).to_numpy(zero_copy_only=False).astype("int32")
    return masked(Cells(_all(NO_NUMBER, len(codes)), encoded.dictionary, codes), missing)


def masked(cells: Cells, missing: tuple[str, ...]) -> Cells:
    """Return the cells with those texts as missing cells that are spellings of one."""
    gone = np.flatnonzero(is_missing(cells.words, missing).to_numpy(zero_copy_only=False))
    if not len(gone):
        return cells
    counts = cells.counts
    spelled = {cells.words[int(i)].as_py(): int(counts[i]) for i in gone if counts[i]}
    moved = np.arange(len(cells.words) + 1, dtype="int32")
    moved[gone] = moved[-1] = -1
    return Cells(cells.numbers, cells.words, moved[cells.codes], {**cells.spelled, **spelled})


def value_cells(values: Iterable[Any], missing: tuple[str, ...] = MISSING) -> Cells:
    """Return the cells of values: texts, numbers, booleans, dates, None for a missing one.

    Numbers are taken as they are: a decimal comma is a matter of texts.
    """
    given = list(values)
    plain = [isinstance(value, (int, float, np.number)) and not isinstance(value, bool) for value in given]
    texts = [None if known else cell_of(value) for value, known in zip(given, plain, strict=True)]
    found = text_cells(pa.array(texts, pa.string()), missing)
    if not any(plain):
        return found
    numbers = number_cells([float(value) if known else np.nan for value, known in zip(given, plain, strict=True)])
    return dataclasses.replace(found, numbers=numbers.numbers)


def number_cells(numbers: Any) -> Cells:
    """Return the cells of numbers (n,), NaN where missing, in half the memory where float32 holds them."""
    numbers = np.asarray(numbers)
    if numbers.dtype != np.float32:
        whole = numbers.astype("float64")
        with np.errstate(over="ignore"):
            short = whole.astype("float32")
        # Whole numbers that float32 cannot hold are dates or codes.
        large = np.abs(whole) > 1 << 24
        exact = not large.any() or bool((short[large] == whole[large]).all())
        numbers = short if exact else whole
    return Cells(numbers, pa.array([], pa.string()), _all(NO_TEXT, len(numbers)))


def joined(parts: Sequence[Cells]) -> Cells:
    """Return the cells of consecutive parts of a column."""
    if len(parts) == 1:
        return parts[0]
    if not any(len(part.words) for part in parts):
        return number_cells(np.concatenate([part.numbers for part in parts]))
    merged = pa.concat_arrays([part.words.cast(pa.string()) for part in parts]).dictionary_encode()
    places = merged.indices.to_numpy(zero_copy_only=False).astype("int32")
    starts = np.cumsum([0, *(len(part.words) for part in parts)])
    codes = [_moved(part.codes, places[low:high]) for part, low, high in zip(parts, starts, starts[1:], strict=False)]
    spelled: dict[str, int] = {}
    for part in parts:
        for text, count in part.spelled.items():
            spelled[text] = spelled.get(text, 0) + count
    numbers = [part.numbers for part in parts]
    texts = all(part.strides == (0,) for part in numbers)
    whole = _all(NO_NUMBER, sum(map(len, parts))) if texts else np.concatenate(numbers)
    return Cells(whole, merged.dictionary, np.concatenate(codes), spelled)


def _moved(codes: Any, places: Any) -> Any:
    return np.append(places, np.int32(-1))[codes]


@dataclasses.dataclass(frozen=True)
class Rows:
    """The rows of a table.

    Args:
        columns: the cells of each column by its name, in the order of the file.
        source: the file, or the name of the data, for messages.
        notes: what was guessed about the file, a line each.
        nameless: names that the reader gave to columns without one.
        decimal: the decimal sign that numbers of the file probably have, "" if unknown.
    """

    columns: Mapping[str, Cells]
    source: str = ""
    notes: tuple[str, ...] = ()
    nameless: tuple[str, ...] = ()
    decimal: str = ""

    @property
    def names(self) -> list[str]:
        """Return the names of the columns."""
        return list(self.columns)

    def __len__(self) -> int:
        return len(next(iter(self.columns.values())))
