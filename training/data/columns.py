"""The column contract: how rows of a table become the vectors that a network was trained on."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from zoo.common.errors import BadOption, DataError, did_you_mean
from zoo.common.lazy import np

if TYPE_CHECKING:
    import numpy as _np

# What stands in a cell for a number that is missing, in any case.
MISSING = frozenset(("", "na", "n/a", "nan", "null"))
NUMBER, CATEGORY = "number", "category"
# More values than this are names or free text, not categories.
CATEGORIES = 1000
LARGEST = 3.4e38  # that a float32 can be


@dataclasses.dataclass(frozen=True)
class Column:
    """One column that is a feature.

    Args:
        name: its heading.
        kind: "number", one value; or "category", a value of 0 or 1 for each category, all 0 for one that is unknown.
        mean: of the numbers that are there in the training rows; it stands in for one that is missing.
        missing: whether training rows lacked some, so that a further value says if the number is missing (1) or not.
        categories: those of the training rows in alphabetical order; "" is that of an empty cell.
    """

    name: str
    kind: str = NUMBER
    mean: float = 0.0
    missing: bool = False
    categories: tuple[str, ...] = ()

    @property
    def width(self) -> int:
        """How many values of the vector are this column's."""
        return len(self.categories) if self.kind == CATEGORY else 1 + self.missing

    def values(self, cells: Sequence[str]) -> _np.ndarray:
        """Return float32 (n, width) of the cells of n rows; raises DataError for a cell that cannot be."""
        if self.kind == CATEGORY:
            return (np.array(cells, object)[:, None] == np.array(self.categories, object)).astype("float32")
        for row, cell in enumerate(cells, start=1):
            if not self._possible(cell):
                self._refuse(cell, f"row {row} of {len(cells)}")
        numbers = np.array([parse_number(cell) for cell in cells], "float64")
        lacking = np.isnan(numbers)
        found = np.where(lacking, self.mean, numbers)
        return np.stack([found, lacking][: self.width], axis=1).astype("float32")

    def _refuse(self, cell: str, where: str) -> None:
        hint = "" if self.missing else ", none missing, as in the training rows"
        raise DataError(f"Expected numbers in the column {self.name!r}{hint}. Received: {cell!r} in {where}")

    def _possible(self, cell: str) -> bool:
        number = parse_number(cell)
        return number is not None and (self.missing if math.isnan(number) else abs(number) < LARGEST)


@dataclasses.dataclass(frozen=True)
class ColumnSchema:
    """Learnt from the training rows, kept in the run and written into every artifact.

    Args:
        columns: the features in the order of the vector.
    """

    columns: tuple[Column, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """The headings of the features."""
        return tuple(column.name for column in self.columns)

    @property
    def width(self) -> int:
        """How many values a vector has."""
        return sum(column.width for column in self.columns)

    @property
    def features(self) -> tuple[str, ...]:
        """What each value of the vector says: "age", "age is missing", "colour=red"."""
        found: list[str] = []
        for column in self.columns:
            if column.kind == CATEGORY:
                found += [f"{column.name}={category}" for category in column.categories]
            else:
                found += [column.name, f"{column.name} is missing"][: column.width]
        return tuple(found)

    def is_number(self) -> list[bool]:
        """Tell for each value of the vector whether it is a number, and not a 0 or 1 that says something."""
        found: list[bool] = []
        for column in self.columns:
            found += [column.kind == NUMBER, *[False] * (column.width - 1)][: column.width]
        return found

    def encode(self, rows: Sequence[Sequence[str]]) -> _np.ndarray:
        """Return float32 (n, width) of rows of cells in the order of `names`; raises DataError."""
        cells = list(zip(*rows, strict=True)) or [()] * len(self.columns)
        parts = [column.values(found) for column, found in zip(self.columns, cells, strict=True)]
        return np.concatenate(parts, axis=1)

    def encode_records(self, records: Sequence[Mapping[str, Any]]) -> _np.ndarray:
        """Return float32 (n, width) of rows as mappings by heading.

        Args:
            records: values by heading: numbers, texts, booleans, and None for one that is missing. Further headings
                are passed over.

        Raises:
            DataError: a column is missing, or a value cannot be.
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
        """Return the contract as JSON-safe values."""
        columns = [dataclasses.asdict(c) | {"categories": list(c.categories)} for c in self.columns]
        return {"columns": columns, "features": list(self.features)}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> ColumnSchema:
        """Return the contract of `to_json`; raises BadOption."""
        try:
            return cls(tuple(Column(**c | {"categories": tuple(c["categories"])}) for c in values["columns"]))
        except (KeyError, TypeError) as error:
            raise BadOption(f"Expected a column contract. Received: {str(values)[:100]}") from error


def fit_columns(names: Sequence[str], rows: Sequence[Sequence[str]]) -> ColumnSchema:
    """Return the contract that training rows teach.

    A column whose cells are all numbers, or missing, is one of numbers; any other one of categories.

    Args:
        names: headings.
        rows: the training rows, cells in the order of the headings.

    Raises:
        DataError: a column holds nothing, or too many different texts.
    """
    return ColumnSchema(tuple(_column(name, cells) for name, cells in zip(names, zip(*rows, strict=True), strict=True)))


def _column(name: str, cells: Sequence[str]) -> Column:
    parsed = [parse_number(cell) for cell in cells]
    if not any(cell.strip() for cell in cells):
        raise DataError(f"Expected something in the column {name!r} of the training rows. Received: empty cells only.")
    if None not in parsed:
        there = [number for number in parsed if math.isfinite(number)]
        if not there:
            raise DataError(f"Expected numbers or texts in the column {name!r}. Received: no number in a training row.")
        return Column(name, NUMBER, math.fsum(there) / len(there), any(map(math.isnan, parsed)))
    categories = tuple(sorted(set(cells)))
    if len(categories) > CATEGORIES:
        raise DataError(
            f"Expected numbers or at most {CATEGORIES} categories in a column. Received: {name!r} with "
            f"{len(categories)} different texts. Leave it out: name the others in data.columns."
        )
    return Column(name, CATEGORY, categories=categories)


def parse_number(cell: str) -> float | None:
    """Return the number in a cell, NaN if it is missing, None if there is something else."""
    text = cell.strip()
    if text.lower() in MISSING:
        return math.nan
    try:
        return None if "_" in text else float(text)
    except ValueError:
        return None


def cell_of(value: Any) -> str:
    """Return a value as the cell of a table; a float gives the same float again."""
    if value is None:
        return ""
    if isinstance(value, (bool, np.bool_)):
        return "true" if value else "false"
    if isinstance(value, (float, np.floating)):
        return repr(float(value))
    return str(value)
