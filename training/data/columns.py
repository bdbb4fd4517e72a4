"""The column schema: how rows of a table are encoded as the input vectors of a model."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from zoo.common.errors import BadOption, DataError, did_you_mean
from zoo.common.lazy import np

if TYPE_CHECKING:
    import numpy as _np

# Cells that mean a missing number, in any case.
MISSING = frozenset(("", "na", "n/a", "nan", "null"))
NUMBER, CATEGORY = "number", "category"
# Columns with more different texts are names or free text, not categories.
CATEGORIES = 1000
LARGEST = 3.4e38  # of float32


@dataclasses.dataclass(frozen=True)
class Column:
    """One feature column.

    Args:
        name: the column name.
        kind: "number", one value; or "category", one-hot, all 0 for an unknown category.
        mean: mean of the numbers in the training rows; it replaces a missing number.
        missing: whether training rows have missing numbers; then a second value is 1 where the number is missing.
        categories: categories of the training rows in alphabetical order; "" is that of an empty cell.
    """

    name: str
    kind: str = NUMBER
    mean: float = 0.0
    missing: bool = False
    categories: tuple[str, ...] = ()

    @property
    def width(self) -> int:
        """Return the number of values of this column in the vector."""
        return len(self.categories) if self.kind == CATEGORY else 1 + self.missing

    def values(self, cells: Sequence[str]) -> _np.ndarray:
        """Return float32 (n, width) for the cells of n rows; raises DataError for an invalid cell."""
        if self.kind == CATEGORY:
            return (np.array(cells, object)[:, None] == np.array(self.categories, object)).astype("float32")
        for row, cell in enumerate(cells, start=1):
            if not self._possible(cell):
                self._refuse(cell, f"row {row} of {len(cells)}")
        numbers = np.array([parse_number(cell) for cell in cells], "float64")
        missing = np.isnan(numbers)
        values = np.where(missing, self.mean, numbers)
        return np.stack([values, missing][: self.width], axis=1).astype("float32")

    def _refuse(self, cell: str, where: str) -> None:
        hint = "" if self.missing else ", none missing, as in the training rows"
        raise DataError(f"Expected numbers in the column {self.name!r}{hint}. Received: {cell!r} in {where}")

    def _possible(self, cell: str) -> bool:
        number = parse_number(cell)
        return number is not None and (self.missing if math.isnan(number) else abs(number) < LARGEST)


@dataclasses.dataclass(frozen=True)
class ColumnSchema:
    """The encoding of the columns, fitted on the training rows, saved in the run and in every artifact.

    Args:
        columns: the feature columns in the order of the vector.
    """

    columns: tuple[Column, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """Return the names of the feature columns."""
        return tuple(column.name for column in self.columns)

    @property
    def width(self) -> int:
        """Return the number of values of a vector."""
        return sum(column.width for column in self.columns)

    @property
    def features(self) -> tuple[str, ...]:
        """Return a name for each value of the vector: "age", "age is missing", "color=red"."""
        names: list[str] = []
        for column in self.columns:
            if column.kind == CATEGORY:
                names += [f"{column.name}={category}" for category in column.categories]
            else:
                names += [column.name, f"{column.name} is missing"][: column.width]
        return tuple(names)

    def is_number(self) -> list[bool]:
        """Return for each value of the vector whether it is a number, not a 0/1 indicator."""
        flags: list[bool] = []
        for column in self.columns:
            flags += [column.kind == NUMBER, *[False] * (column.width - 1)][: column.width]
        return flags

    def encode(self, rows: Sequence[Sequence[str]]) -> _np.ndarray:
        """Return float32 (n, width) for rows of cells in the order of `names`; raises DataError."""
        cells = list(zip(*rows, strict=True)) or [()] * len(self.columns)
        parts = [column.values(values) for column, values in zip(self.columns, cells, strict=True)]
        return np.concatenate(parts, axis=1)

    def encode_records(self, records: Sequence[Mapping[str, Any]]) -> _np.ndarray:
        """Return float32 (n, width) for rows as mappings by column name.

        Args:
            records: values by column name: numbers, texts, booleans, None for missing. Other columns are ignored.

        Raises:
            DataError: a column is missing, or a value does not fit its column.
        """
        for number, record in enumerate(records, start=1):
            for name in self.names:
                if name not in record:
                    raise DataError(
                        f"Expected the columns {', '.join(self.names)}. Received: row {number} without {name!r}. "
                        f"{did_you_mean(name, map(str, record))}"
                    )
        return self.encode([[cell_of(record[name]) for name in self.names] for record in records])

    def to_json(self) -> dict[str, Any]:
        """Return the schema as JSON-safe values."""
        columns = [dataclasses.asdict(c) | {"categories": list(c.categories)} for c in self.columns]
        return {"columns": columns, "features": list(self.features)}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> ColumnSchema:
        """Return the schema of `to_json`; raises BadOption."""
        try:
            return cls(tuple(Column(**c | {"categories": tuple(c["categories"])}) for c in values["columns"]))
        except (KeyError, TypeError) as error:
            raise BadOption(f"Expected a column schema. Received: {str(values)[:100]}") from error


def fit_columns(names: Sequence[str], rows: Sequence[Sequence[str]]) -> ColumnSchema:
    """Return the column schema fitted on training rows.

    A column of numbers and missing cells is numeric, any other column categorical.

    Args:
        names: column names.
        rows: the training rows, cells in the order of the columns.

    Raises:
        DataError: a column is empty, or has too many different texts.
    """
    return ColumnSchema(tuple(_column(name, cells) for name, cells in zip(names, zip(*rows, strict=True), strict=True)))


def _column(name: str, cells: Sequence[str]) -> Column:
    parsed = [parse_number(cell) for cell in cells]
    if not any(cell.strip() for cell in cells):
        raise DataError(f"Expected values in the column {name!r} of the training rows. Received: empty cells only.")
    if None not in parsed:
        present = [number for number in parsed if math.isfinite(number)]
        if not present:
            raise DataError(f"Expected numbers or texts in the column {name!r}. Received: no number in a training row.")
        return Column(name, NUMBER, math.fsum(present) / len(present), any(map(math.isnan, parsed)))
    categories = tuple(sorted(set(cells)))
    if len(categories) > CATEGORIES:
        raise DataError(
            f"Expected numbers or at most {CATEGORIES} categories in a column. Received: {name!r} with "
            f"{len(categories)} different texts. Leave it out: name the others in data.columns."
        )
    return Column(name, CATEGORY, categories=categories)


def parse_number(cell: str) -> float | None:
    """Return the number in a cell, NaN if it is missing, None for any other text."""
    text = cell.strip()
    if text.lower() in MISSING:
        return math.nan
    try:
        return None if "_" in text else float(text)
    except ValueError:
        return None


def cell_of(value: Any) -> str:
    """Return a value as the cell of a table; floats round-trip."""
    if value is None:
        return ""
    if isinstance(value, (bool, np.bool_)):
        return "true" if value else "false"
    if isinstance(value, (float, np.floating)):
        return repr(float(value))
    return str(value)
