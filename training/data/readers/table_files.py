"""Tables in CSV and Parquet files, as column names and rows of cells."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

from training.data.columns import cell_of
from zoo.common.errors import DataError, did_you_mean
from zoo.common.lazy import LazyModule

arrow = LazyModule("pyarrow")
arrow_csv = LazyModule("pyarrow.csv", "pyarrow")
parquet = LazyModule("pyarrow.parquet", "pyarrow")

DELIMITERS = ",;\t"
SUFFIXES = {".csv": "csv", ".tsv": "csv", ".txt": "csv", ".parquet": "parquet", ".pq": "parquet"}


def read_table(path: str, option: str = "data.path") -> tuple[list[str], list[list[str]]]:
    """Return the column names and the rows of a file, every cell as text, "" for an empty one.

    Args:
        path: a CSV file in UTF-8 with a header line, separated by commas, semicolons or tabs, or a Parquet file.
        option: the option that gave the path, for messages.

    Raises:
        DataError: no such file, no rows, or an unreadable file.
    """
    file = Path(path).expanduser()
    if path and not file.exists():
        raise DataError(f"Expected a table that exists. Received: {option}={path!r}. There is no {file.absolute()}.")
    if not path or not file.is_file() or file.suffix.lower() not in SUFFIXES:
        raise DataError(
            f"Expected a table: a file that ends in {', '.join(SUFFIXES)}. Received: {option}={path!r}. "
            f"Give it by: --set {option}=FILE"
        )
    try:
        table = _READERS[SUFFIXES[file.suffix.lower()]](file)
    except (arrow.ArrowException, UnicodeDecodeError, OSError) as error:
        reason = " ".join(str(error).split())[:200]
        raise DataError(f"Expected a table that can be read. Received: {file}: {reason}") from error
    names = list(map(str, table.column_names))
    repeated = sorted({name for name in names if names.count(name) > 1 or not name.strip()})
    if repeated:
        raise DataError(
            f"Expected a different name for each column. Received: {file} with {repeated[:5]}. Rename them."
        )
    if not table.num_rows:
        raise DataError(f"Expected rows below the header. Received: {file} without any.")
    columns = [list(map(cell_of, column.to_pylist())) for column in table.columns]
    return names, list(map(list, zip(*columns, strict=True)))


def _read_csv(file: Path) -> Any:
    """Read every cell as text; the column schema infers the types from the training rows."""
    with file.open(encoding="utf-8-sig", newline="") as opened:
        first = opened.readline()
    delimiter = max(DELIMITERS, key=first.count)
    names = next(csv.reader([first], delimiter=delimiter), [])
    return arrow_csv.read_csv(
        file,
        parse_options=arrow_csv.ParseOptions(delimiter=delimiter, newlines_in_values=True),
        convert_options=arrow_csv.ConvertOptions(
            column_types=dict.fromkeys(names, arrow.string()), strings_can_be_null=False
        ),
    )


_READERS = {"csv": _read_csv, "parquet": lambda file: parquet.read_table(file)}


def select_columns(names: list[str], rows: list[list[str]], wanted: list[str], option: str) -> list[list[str]]:
    """Return the rows with some columns only; raises DataError for a missing column."""
    for name in wanted:
        if name not in names:
            raise DataError(
                f"Expected one of the columns {', '.join(names[:20])}. Received: {option}={name!r}. "
                f"{did_you_mean(name, names)}"
            )
    places = [names.index(name) for name in wanted]
    return [[row[place] for place in places] for row in rows]
