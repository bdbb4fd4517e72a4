"""The column schema: how rows of a table are encoded as the input vectors of a model."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from training.data.columns.cells import Cells, value_cells
from training.data.columns.column import GAP, NUMBER, ONE_HOT, VALUE, Column
from training.data.columns.missing import MISSING
from zoo.common.errors import BadOption, DataError, did_you_mean
from zoo.common.lazy import np

if TYPE_CHECKING:
    import numpy as _np


@dataclasses.dataclass(frozen=True)
class Slots:
    """The values of a vector, and where they come from in a compact row.

    Args:
        places: int32 (width,), the place of each value's source in the compact row.
        kinds: int8 (width,): 0 for a value, 1 for the mark of a missing one, 2 for a one-hot value.
        constants: float32 (width,): what replaces a missing value, or the code of the category.
    """

    places: _np.ndarray
    kinds: _np.ndarray
    constants: _np.ndarray


@dataclasses.dataclass(frozen=True)
class ColumnSchema:
    """The encoding of the columns, fitted on the training rows, saved in the run and in every artifact.

    Args:
        columns: the feature columns in the order of the vector.
        spellings: texts that mean a missing cell, in lower case.
    """

    columns: tuple[Column, ...]
    spellings: tuple[str, ...] = MISSING

    @property
    def names(self) -> tuple[str, ...]:
        """Return the names of the feature columns."""
        return tuple(column.name for column in self.columns)

    @property
    def texts(self) -> frozenset[str]:
        """Return the names of the columns whose cells are texts, even where they look like numbers."""
        return frozenset(column.name for column in self.columns if column.kind != NUMBER)

    @functools.cached_property
    def width(self) -> int:
        """Return the number of values of a vector."""
        return sum(column.width for column in self.columns)

    @functools.cached_property
    def compact_width(self) -> int:
        """Return the number of values of a compact row."""
        return sum(column.compact_width for column in self.columns)

    @property
    def features(self) -> tuple[str, ...]:
        """Return a name for each value of the vector: "age", "age is missing", "color=red", "day: month"."""
        return tuple(name for column in self.columns for name in column.values_named)

    def is_number(self) -> list[bool]:
        """Return for each value of the vector whether it is a number, not a 0/1 indicator."""
        return [kind == VALUE for column in self.columns for _, kind, _ in column.slots]

    @property
    def parts(self) -> tuple[int, ...]:
        """Return the parts of the vector: n for n numbers, -n for a column of n values that are 0 or 1."""
        found: list[int] = []
        for column in self.columns:
            kinds = [kind for _, kind, _ in column.slots]
            numbers = kinds.count(VALUE)
            if numbers and found and found[-1] > 0:
                found[-1] += numbers
            else:
                found += [numbers] * bool(numbers)
            found += [kinds.count(kind) * -1 for kind in (GAP, ONE_HOT) if kind in kinds]
        return tuple(found)

    @functools.cached_property
    def slots(self) -> Slots:
        """Return where the values of a vector come from."""
        start, found = 0, []
        for column in self.columns:
            found += [(start + place, (VALUE, GAP, ONE_HOT).index(kind), fill) for place, kind, fill in column.slots]
            start += column.compact_width
        places, kinds, constants = zip(*found, strict=True)
        return Slots(np.array(places, "int32"), np.array(kinds, "int8"), np.array(constants, "float32"))

    def compact(self, cells: Iterable[Cells], count: int, *, strict: bool = False) -> _np.ndarray:
        """Return compact rows, float32 (n, compact width): numbers with NaN for a missing one, codes of categories.

        Args:
            cells: of each column in the order of `names`; one column after the other is in memory.
            count: the number of rows.
            strict: raise DataError for texts that a column cannot read; otherwise they count as missing.
        """
        found = _aligned(count, self.compact_width)
        start = 0
        for column, each in zip(self.columns, cells, strict=True):
            end = start + column.compact_width
            found[:, start:end] = column.compact(each, strict=strict)
            start = end
        return found

    def expand(self, compact: _np.ndarray) -> _np.ndarray:
        """Return vectors, float32 (n, width), of compact rows; `training.data.pipeline` does the same in TensorFlow."""
        slots = self.slots
        values = compact[:, slots.places]
        gaps, one_hot = np.isnan(values), values == slots.constants
        filled = np.where(gaps, slots.constants, values)
        return np.select([slots.kinds == 2, slots.kinds == 1], [one_hot, gaps], filled).astype("float32")

    def encode(self, rows: Sequence[Sequence[Any]]) -> _np.ndarray:
        """Return float32 (n, width) for rows of cells in the order of `names`; raises DataError."""
        columns = list(zip(*rows, strict=True)) or [()] * len(self.columns)
        return self.encode_cells([value_cells(column, self.spellings) for column in columns])

    def encode_cells(self, cells: Sequence[Cells]) -> _np.ndarray:
        """Return float32 (n, width) for the cells of each column; raises DataError."""
        return self.expand(self.compact(cells, len(cells[0]), strict=True))

    def encode_records(self, records: Sequence[Mapping[str, Any]]) -> _np.ndarray:
        """Return float32 (n, width) for rows as mappings by column name.

        Args:
            records: values by column name: numbers, texts, booleans, dates, None for missing. Other columns are
                ignored.

        Raises:
            DataError: a column is missing, or a value does not fit its column.
        """
        for number, record in enumerate(records, start=1):
            require_columns(self.names, record, number)
        return self.encode([[record[name] for name in self.names] for record in records])

    def to_json(self) -> dict[str, Any]:
        """Return the schema as JSON-safe values."""
        columns = [_json(dataclasses.asdict(column)) for column in self.columns]
        return {"columns": columns, "missing": list(self.spellings), "features": list(self.features)}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> ColumnSchema:
        """Return the schema of `to_json`; raises BadOption."""
        try:
            columns = tuple(Column(**{key: _tuple(value) for key, value in c.items()}) for c in values["columns"])
            return cls(columns, tuple(values.get("missing", MISSING)))
        except (AttributeError, KeyError, TypeError) as error:
            raise BadOption(f"Expected a column schema. Received: {str(values)[:100]}") from error


def _aligned(rows: int, columns: int) -> _np.ndarray:
    """Return an empty float32 array whose memory TensorFlow can use as it is: it starts at a multiple of 64 bytes."""
    values = np.empty(rows * columns + 16, "float32")
    start = -values.ctypes.data % 64 // values.itemsize
    return values[start : start + rows * columns].reshape(rows, columns)


def _json(values: dict[str, Any]) -> dict[str, Any]:
    """Return the values that differ from the defaults, and those that every column has."""
    plain = dataclasses.asdict(Column(""))
    shown = {key: value for key, value in values.items() if key in ("name", "kind") or value != plain[key]}
    return {key: list(value) if isinstance(value, tuple) else value for key, value in shown.items()}


def _tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def require_columns(names: Collection[str], record: Mapping[str, Any], number: int) -> None:
    """Raise DataError if a row, of a number from 1, has not all columns."""
    for name in names:
        if name not in record:
            raise DataError(
                f"Expected the columns {', '.join(names)}. Received: row {number} without {name!r}. "
                f"{did_you_mean(name, map(str, record))}"
            )
