"""Tables in CSV and Parquet files, as columns of cells; a file is read in blocks."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from training.data.columns.cells import Cells, Rows, joined, number_cells, text_cells
from training.data.columns.missing import MISSING, arrow, compute, is_missing
from training.data.readers.sniffing import Layout, find_layout
from zoo.common.budgets import check_cells
from zoo.common.errors import DataError, did_you_mean
from zoo.common.lazy import LazyModule, np
from zoo.reading.data_files import open_csv, open_parquet
from zoo.reading.files import Refusal

arrow_csv = LazyModule("pyarrow.csv", "pyarrow")

SUFFIXES = {".csv": "csv", ".tsv": "csv", ".tab": "csv", ".txt": "csv", ".dat": "csv", ".data": "csv"}
SUFFIXES |= {".parquet": "parquet", ".pq": "parquet"}
REFUSAL = Refusal("Expected a table that can be read", DataError, "")
# Bytes, and rows of Parquet, that are read at a time.
BLOCK, BLOCK_ROWS = 1 << 24, 1 << 16
# Numbers that may have points between thousands.
GROUPED = re.compile(r"[+-]?[1-9]\d{0,2}(\.\d{3})+")


@dataclasses.dataclass(frozen=True)
class Reading:
    """How a table is read.

    Args:
        encoding: of a text file, "" to find it.
        header: "yes" or "no", "" to find out whether the first row has the names of the columns.
        missing: spellings of missing cells.
        skip_bad: leave out rows with too few or too many cells.
        texts: whether the cells of a column, by its name and those of all, stay texts; None where they may be numbers.
    """

    encoding: str = ""
    header: str = ""
    missing: tuple[str, ...] = MISSING
    skip_bad: bool = False
    texts: Callable[[str, Sequence[str]], bool] | None = None


def read_rows(path: str, reading: Reading = Reading(), option: str = "data.path") -> Rows:
    """Return the cells of a table.

    Args:
        path: a CSV file, its cells separated by commas, semicolons, tabs or bars, or a Parquet file.
        reading: how it is read.
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
        rows = _READERS[SUFFIXES[file.suffix.lower()]](file, reading)
    except (arrow.ArrowException, UnicodeError, OSError, MemoryError) as error:
        raise REFUSAL.because(file, error) from error
    if not rows.columns or not len(rows):
        raise DataError(f"Expected rows below the header. Received: {file} without any.")
    return rows


def _read_csv(file: Path, reading: Reading) -> Rows:
    layout, bad = find_layout(file, reading.encoding, reading.header), list[str]()

    def handle(row: Any) -> str:
        bad.append(f"{row.text[:60]!r} with {row.actual_columns} of {row.expected_columns} cells")
        return "skip" if reading.skip_bad else "error"

    with _open_csv(file, layout, handle) as reader:
        columns = _read(layout.names, reader, reading)
    notes = [f"Left out: {len(bad):,} rows with too few or too many cells, such as {bad[0]}"] if bad else []
    likely = "," if layout.delimiter == ";" else ""
    return Rows(columns, str(file), (*layout.notes, *notes), layout.nameless, likely)


def _open_csv(file: Path, layout: Layout, handle: Callable[[Any], str]) -> Any:
    """Open a text file as blocks of texts."""
    encoding = "utf8" if layout.encoding in ("utf-8", "utf-8-sig") else layout.encoding
    return open_csv(
        file,
        read_options=arrow_csv.ReadOptions(
            encoding=encoding, column_names=list(layout.names), skip_rows=layout.skip, block_size=BLOCK
        ),
        parse_options=arrow_csv.ParseOptions(
            delimiter=layout.delimiter, newlines_in_values=True, invalid_row_handler=handle
        ),
        convert_options=arrow_csv.ConvertOptions(
            column_types=dict.fromkeys(layout.names, arrow.string()), strings_can_be_null=False
        ),
    )


def _read_parquet(file: Path, reading: Reading) -> Rows:
    with open_parquet(file) as opened:
        schema = opened.schema_arrow
        check_cells(file, opened.metadata.num_rows, opened.metadata.num_columns)
        names = [name for name in schema.names if not arrow.types.is_nested(schema.field(name).type)]
        if len(set(schema.names)) < len(schema.names):
            raise DataError(f"Expected a different name for each column. Received: {file}: {schema.names[:20]}.")
        columns = _read(names, opened.iter_batches(BLOCK_ROWS, columns=names), reading)
    nested = [name for name in schema.names if name not in names]
    notes = (f"Left out: columns {', '.join(map(repr, nested[:10]))} (lists and records)",) if nested else ()
    # pandas stores its index under this name.
    return Rows(columns, str(file), notes, tuple(name for name in names if name.startswith("__index_level_")))


_READERS: dict[str, Callable[[Path, Reading], Rows]] = {"csv": _read_csv, "parquet": _read_parquet}


def _read(names: Sequence[str], batches: Iterable[Any], reading: Reading) -> dict[str, Cells]:
    """Return the columns of record batches."""
    parts: list[list[Cells]] = [[] for _ in names]
    texts = [reading.texts is not None and reading.texts(name, names) for name in names]
    for batch in batches:
        if not batch.num_rows:
            continue
        for place, column in enumerate(batch.columns):
            # A column of texts in the first block has texts in the others.
            first, known = not parts[place], texts[place] or bool(parts[place] and len(parts[place][0].words))
            parts[place].append(cells_of(column, reading.missing, texts=known, first=first))
    # Blocks are freed column by column.
    return {name: joined(found) for name in names if (found := parts.pop(0))}


def cells_of(values: Any, missing: tuple[str, ...], *, texts: bool = False, first: bool = True) -> Cells:
    """Return the cells of a pyarrow array.

    Args:
        values: texts, numbers, booleans or dates.
        missing: spellings of missing cells.
        texts: whether texts stay texts where they are plain numbers.
        first: whether these are the first cells of a column, which decide whether its numbers may be codes.
    """
    if arrow.types.is_dictionary(values.type):
        values = values.dictionary_decode()
    kind = values.type
    if arrow.types.is_decimal(kind):
        values, kind = values.cast(arrow.float64()), arrow.float64()
    if arrow.types.is_integer(kind) or arrow.types.is_floating(kind):
        if texts:
            return text_cells(_printed(values), missing)
        return number_cells(values.cast(arrow.float64(), safe=False).to_numpy(zero_copy_only=False))
    if not (arrow.types.is_string(kind) or arrow.types.is_large_string(kind)):
        return text_cells(compute.cast(values, arrow.string()), missing)
    numbers = None if texts else plain_numbers(values, missing, doubt=first)
    return text_cells(values, missing) if numbers is None else number_cells(numbers)


def _printed(values: Any) -> Any:
    """Return numbers as Python prints them."""
    if arrow.types.is_integer(values.type):
        return values.cast(arrow.string())
    return arrow.array([None if value is None or value != value else repr(value) for value in values.to_pylist()])


def plain_numbers(texts: Any, missing: tuple[str, ...], *, doubt: bool = True) -> Any:
    """Return float64 (n,), NaN where missing, for texts that are all plain numbers or missing; None for others.

    Args:
        texts: a pyarrow array of strings.
        missing: spellings of missing cells.
        doubt: whether to return None as well for what may be codes, or have points between thousands.
    """
    try:
        numbers = compute.cast(texts, arrow.float64())
    except arrow.ArrowInvalid:
        trimmed = compute.utf8_trim_whitespace(texts)
        gaps = is_missing(trimmed, missing)
        texts = compute.if_else(gaps, arrow.scalar(None, arrow.string()), trimmed)
        try:
            numbers = compute.cast(texts, arrow.float64())
        except arrow.ArrowInvalid:
            return None
    found = numbers.to_numpy(zero_copy_only=False)
    return None if doubt and _doubtful(texts, found) else found


def _doubtful(texts: Any, numbers: Any) -> bool:
    """Return whether texts that are plain numbers may be codes such as 01234, or have points for thousands."""
    known = np.isfinite(numbers)
    if (numbers[known] % 1 == 0).all():
        return bool(compute.any(compute.match_substring_regex(texts, r"^0[0-9]+$")).as_py())
    some = [text for text in texts[:1000].to_pylist() if text and "." in text]
    if not all(GROUPED.fullmatch(text) for text in some):
        return False
    pointed = compute.match_substring(texts, ".")
    grouped = compute.match_substring_regex(texts, r"^[+-]?[1-9][0-9]{0,2}(\.[0-9]{3})+$")
    # 41.257 next to 41.1 has decimals; next to 950 it may have thousands.
    return bool(compute.all(compute.equal(pointed, grouped)).as_py() and not compute.all(pointed).as_py())


def select_columns(rows: Rows, wanted: Sequence[str], option: str) -> dict[str, Cells]:
    """Return some columns of a table; raises DataError for a missing column."""
    require_columns(rows.names, wanted, option)
    return {name: rows.columns[name] for name in wanted}


def require_columns(names: Sequence[str], wanted: Sequence[str], option: str) -> None:
    """Raise DataError for a column that is not among the names."""
    for name in wanted:
        if name not in names:
            raise DataError(
                f"Expected one of the columns {', '.join(names[:20])}. Received: {option}={name!r}. "
                f"{did_you_mean(name, names)}"
            )
