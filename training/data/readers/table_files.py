"""Tables in files: CSV and Parquet as headings and rows of cells."""

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
    """Return the headings and the rows of a file, every cell as text, "" where it is empty.

    Args:
        path: a CSV file in UTF-8 whose first line has the headings, divided by commas, semicolons or tabs, or a
            Parquet file.
        option: how the path was given, for messages.

    Raises:
        DataError: there is no such file, it has no rows, or it cannot be read.
    """
    file = Path(path).expanduser()
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
    twice = sorted({name for name in names if names.count(name) > 1 or not name.strip()})
    if twice:
        raise DataError(f"Expected a heading of its own for each column. Received: {file} with {twice[:5]}")
    if not table.num_rows:
        raise DataError(f"Expected rows below the headings. Received: {file} without any.")
    columns = [list(map(cell_of, column.to_pylist())) for column in table.columns]
    return names, list(map(list, zip(*columns, strict=True)))


def _read_csv(file: Path) -> Any:
    """Read every cell as text: what the columns hold is for the training rows to say."""
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
    """Return the rows with the columns that are wanted only; raises DataError for one that is not there."""
    for name in wanted:
        if name not in names:
            raise DataError(
                f"Expected one of the columns {', '.join(names[:20])}. Received: {option}={name!r}. "
                f"{did_you_mean(name, names)}"
            )
    places = [names.index(name) for name in wanted]
    return [[row[place] for place in places] for row in rows]
