"""One feature column: how its cells become values of the vector."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from training.data.columns.cells import Cells
from training.data.columns.dates import PARTS, DateRule, date_parts
from training.data.columns.numbers import NumberRule
from zoo.common.errors import DataError
from zoo.common.lazy import np, tf

if TYPE_CHECKING:
    import numpy as _np

NUMBER, CATEGORY, DATE, HASH = "number", "category", "date", "hash"
LARGEST = 3.4e38  # of float32
# The value of rare categories and those that are not in the training rows; the category of a missing cell.
OTHER, EMPTY = "(other)", ""
# Kinds of the values of a vector.
VALUE, GAP, ONE_HOT = "value", "gap", "one-hot"


@dataclasses.dataclass(frozen=True)
class Column:
    """One feature column.

    Args:
        name: the column name.
        kind: "number", one value; "date", five or six values; "category", one-hot; "hash", one-hot of a hash of the
            text, for columns with many categories.
        mean: mean of the numbers in the training rows; it replaces a missing number.
        missing: whether training rows have missing cells; then one more value is 1 where the cell is missing.
        gaps: number of missing cells in the training rows.
        categories: categories of the training rows in alphabetical order; "" is that of a missing cell. An unknown
            category is all 0 unless there is `other`.
        other: whether one more value is 1 for categories that are rare in the training rows or unknown.
        form: how texts are read: a form of `NumberRule`, or of `DateRule`.
        decimal: the decimal sign of numbers.
        unit: the unit behind numbers.
        fills: of dates, the means of its values in the training rows, which replace those of a missing date.
        first: of dates, the first one, in days since 1970.
        utc: of dates, whether times with an offset are converted to UTC.
        strays: texts of the training rows that are no such number or date, and count as missing.
        buckets: of a hash, the number of its values.
        bins: of numbers, quantiles of the training rows, rising, for models that divide numbers into bins.
    """

    name: str
    kind: str = NUMBER
    mean: float = 0.0
    missing: bool = False
    gaps: int = 0
    categories: tuple[str, ...] = ()
    other: bool = False
    form: str = "plain"
    decimal: str = "."
    unit: str = ""
    fills: tuple[float, ...] = ()
    first: float = 0.0
    utc: bool = False
    strays: tuple[str, ...] = ()
    buckets: int = 0
    bins: tuple[float, ...] = ()

    @property
    def rule(self) -> NumberRule | DateRule:
        """Return the rule that reads texts."""
        return DateRule(self.form, self.utc) if self.kind == DATE else NumberRule(self.form, self.decimal, self.unit)

    @property
    def rule_reads(self) -> bool:
        """Return whether the rule reads the cells, as numbers or dates."""
        return self.kind in (NUMBER, DATE)

    @property
    def slots(self) -> tuple[tuple[int, str, float], ...]:
        """Return for each value of the vector its place in the compact row, its kind and a constant.

        The constant replaces a missing "value", and is the code of the category of a "one-hot" value.
        """
        if not self.rule_reads:
            return tuple((0, ONE_HOT, float(code)) for code in range(len(self.values_named)))
        fills = self.fills if self.kind == DATE else (self.mean,)
        found = tuple((place, VALUE, fill) for place, fill in enumerate(fills))
        return (*found, (0, GAP, 0.0)) if self.missing else found

    @property
    def values_named(self) -> tuple[str, ...]:
        """Return a name for each value of the vector: "age", "age is missing", "color=red", "day: month"."""
        name = self.name
        if self.kind == CATEGORY:
            return tuple(f"{name}={category}" for category in (*self.categories, *[OTHER] * self.other))
        if self.kind == HASH:
            return tuple(f"{name} in bucket {i}" for i in range(self.buckets)) + (f"{name}=",) * self.missing
        own = tuple(f"{name}: {part}" for part in PARTS[: len(self.fills)]) if self.kind == DATE else (name,)
        return (*own, f"{name} is missing") if self.missing else own

    @property
    def width(self) -> int:
        """Return the number of values of this column in the vector."""
        return len(self.slots)

    @property
    def compact_width(self) -> int:
        """Return the number of values of this column in a compact row."""
        return len(self.fills) if self.kind == DATE else 1

    def compact(self, cells: Cells, *, strict: bool = False) -> _np.ndarray:
        """Return float32 (n, compact width): numbers, NaN where missing; or the code of a category, -1 for none.

        Args:
            cells: the cells of n rows.
            strict: raise DataError for a text that is no number or date, and was none in the training rows.
        """
        if not self.rule_reads:
            return self._codes(cells)[:, None].astype("float32")
        values = self.parse(cells)
        if strict:
            self._check(cells, values)
        if self.kind == DATE:
            return date_parts(values, self.first, clock=len(self.fills) == len(PARTS))
        return values.astype("float32")[:, None]

    def parse(self, cells: Cells) -> _np.ndarray:
        """Return the number, or days since 1970, in each cell, float64 (n,), NaN where there is none."""
        if self.kind == DATE:
            cells = cells.as_texts()
        words = self.rule.parse(cells.words) if len(cells.words) else np.zeros(0)
        values = cells.by_word(words)
        with np.errstate(invalid="ignore"):
            return np.where(np.abs(values) < LARGEST, values, np.nan)

    def _check(self, cells: Cells, values: _np.ndarray) -> None:
        for row in np.flatnonzero(np.isnan(values) & cells.present):
            text = cells.take([row]).texts()[0]
            if text not in self.strays:
                what = "dates" if self.kind == DATE else "numbers"
                raise DataError(
                    f"Expected {what} in the column {self.name!r}, or an empty cell. "
                    f"Received: {text!r} in row {row + 1} of {len(cells)}"
                )

    def _codes(self, cells: Cells) -> _np.ndarray:
        """Return the code of each cell's category, float64 (n,), -1 for one that has no value."""
        cells = cells.as_texts()
        if self.kind == HASH:
            codes, gap = _buckets(cells.words, self.buckets), self.buckets if self.missing else -1
        else:
            unknown = len(self.categories) if self.other else -1
            places = {category: place for place, category in enumerate(self.categories)}
            codes = np.array([places.get(word, unknown) for word in cells.words.to_pylist()], "float64")
            gap = places.get(EMPTY, unknown)
        return np.append(codes, gap)[cells.codes]

    @property
    def described(self) -> tuple[str, str, str, str]:
        """Return name, type with its rule, what replaces a missing cell, and the values, for a table of all columns."""
        count = f" ({self.gaps:,})" if self.gaps else ""
        if not self.rule_reads:
            gap = "a value of its own" if EMPTY in self.categories or self.missing else OTHER if self.other else "all 0"
            return self.name, CATEGORY, gap + count, self._described_categories()
        kind = self.form if self.form == "boolean" else self.kind
        rule = self.rule.described.replace(kind, "").strip()
        fill = "the mean date" if self.kind == DATE else f"{self.mean:.6g}"
        values = ", ".join(PARTS[: len(self.fills)])
        return self.name, f"{kind} ({rule})" if rule else kind, fill + ", marked" * self.missing + count, values

    def _described_categories(self) -> str:
        if self.kind == HASH:
            return f"hashed into {self.buckets}"
        shown = ", ".join(category or "''" for category in self.categories[:4])
        more = f", … ({len(self.categories)})" if len(self.categories) > 4 else ""
        return shown + more + ", and others" * self.other


def _buckets(words: Any, buckets: int) -> _np.ndarray:
    """Return the bucket of each text by FarmHash's Fingerprint64, as `tf.strings.to_hash_bucket_fast`."""
    if not len(words):
        return np.zeros(0)
    return tf.strings.to_hash_bucket_fast(words.to_pylist(), buckets).numpy().astype("float64")
