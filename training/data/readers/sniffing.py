"""What a text file with a table is: its encoding, its delimiter, whether it has a header, and its column names."""

from __future__ import annotations

import codecs
import collections
import csv
import dataclasses
import io
import itertools
import re
from collections.abc import Sequence
from pathlib import Path

from zoo.common.errors import DataError
from zoo.reading.data_files import open_table, read_blocks, read_ends

DELIMITERS = ",;\t|"
# Bytes and rows that are examined, and bytes that are checked at a time.
SAMPLE, ROWS, BLOCK = 1 << 18, 200, 1 << 24
BOMS = ((codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))
# Files of other kinds, by their first bytes.
OTHERS = {
    b"PK\x03\x04": "a spreadsheet or zip archive; save it as CSV",
    b"\xd0\xcf\x11\xe0": "an Excel file; save it as CSV",
    b"\x1f\x8b": "compressed by gzip; unpack it",
    b"PAR1": "a Parquet file; name it FILE.parquet",
    b"SQLite": "a database; export the table as CSV",
}
# Bytes that Windows' Western European encoding does not have.
UNDEFINED = frozenset(b"\x81\x8d\x8f\x90\x9d")
NUMBER = re.compile(r"[-+(]?\s?[^\w\s.,]?\s?\d[\d.,' ]*([eE][-+]?\d+)?\s?[%€$£]?\)?|[-+]?[.,]\d+")


def find_encoding(file: Path, given: str = "", option: str = "data.encoding") -> tuple[str, str]:
    """Return the encoding of a text file, and what to say about it, "" for nothing.

    Args:
        file: the file.
        given: the encoding that the user sets.
        option: the option that sets it, for messages.

    Raises:
        DataError: the file is no text, or does not have the given encoding.
    """
    head, _ = read_ends(file, SAMPLE)
    for start, what in OTHERS.items():
        if head.startswith(start):
            raise DataError(f"Expected a table of text. Received: {file}, which is {what}.")
    if given:
        _check(file, given)
        return given, ""
    for bom, name in BOMS:
        if head.startswith(bom):
            _check(file, name)
            return name, "" if name == "utf-8-sig" else f"{file.name} is read as UTF-16"
    if b"\0" in head:
        return _without_bom(file, head)
    if decodes(file, "utf-8"):
        return "utf-8", ""
    name = "latin-1" if any(set(block) & UNDEFINED for block in read_blocks(file, BLOCK)) else "cp1252"
    return name, f"{file.name} is not UTF-8: read as {name} (Western European); {option} changes it"


def _without_bom(file: Path, head: bytes) -> tuple[str, str]:
    """Return UTF-16 without a byte order mark; raises DataError."""
    even, odd = head[::2].count(0), head[1::2].count(0)
    name = "utf-16-le" if odd > even else "utf-16-be"
    if max(even, odd) < len(head) / 8 or min(even, odd) > max(even, odd) / 8 or not decodes(file, name):
        raise DataError(f"Expected text. Received: {file}, which has zero bytes. Save it as text in UTF-8.")
    return name, f"{file.name} is read as {name.upper()}"


def decodes(file: Path, encoding: str) -> bool:
    """Return whether a file is text in an encoding."""
    decoder = codecs.getincrementaldecoder(encoding)()
    try:
        for block in read_blocks(file, BLOCK):
            decoder.decode(block)
        decoder.decode(b"", final=True)
    except UnicodeError:
        return False
    return True


def _check(file: Path, encoding: str) -> None:
    try:
        fits = decodes(file, encoding)
    except LookupError:
        raise DataError(f"Expected an encoding of Python. Received: data.encoding={encoding!r}. Use utf-8.") from None
    if not fits:
        raise DataError(
            f"Expected text in {encoding}. Received: {file}, which is none. Save it as UTF-8, or set data.encoding."
        )


@dataclasses.dataclass(frozen=True)
class Layout:
    """How the rows of a text file are read.

    Args:
        encoding: of the file.
        delimiter: between cells.
        names: of the columns.
        skip: lines before the first row.
        nameless: names that stand for none.
        notes: what was guessed, a line each.
    """

    encoding: str
    delimiter: str
    names: tuple[str, ...]
    skip: int
    nameless: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def find_layout(file: Path, encoding: str = "", header: str = "") -> Layout:
    """Return how the rows of a file are read.

    Args:
        file: a text file.
        encoding: the encoding, "" to find it.
        header: "yes" or "no", whether the first row has the names of the columns; "" to find out.

    Raises:
        DataError: the file is no text, empty, or has two columns of one name.
    """
    encoding, note = find_encoding(file, encoding)
    with open_table(file) as opened, io.TextIOWrapper(opened, encoding, "replace", "") as lines:
        text = lines.read(SAMPLE)
    declared = re.match(r"sep=(.)\r?\n", text)
    delimiter = declared[1] if declared else find_delimiter(text)
    rows = _rows(text, delimiter, whole=len(text) < SAMPLE)
    rows = [(line, row) for line, row in rows if line > 1] if declared else rows
    if not rows:
        raise DataError(f"Expected rows below the header. Received: {file}, which is empty.")
    width = collections.Counter(len(row) for _, row in rows).most_common(1)[0][0]
    first = next((i for i, (_, row) in enumerate(rows) if len(row) >= width - 1), 0)
    notes = [note] if note else []
    if first:
        notes.append(f"{file.name}: the first {first} lines are left out, as they have no columns")
    names, below = rows[first][1], [row for _, row in rows[first + 1 :] if len(row) == width]
    if len(names) == width - 1 and len(below) > 1:
        names = ["", *names] if any(row[-1].strip() for row in below) else [*names, ""]
    start, headed = rows[first][0], True
    if header != "yes" and (header == "no" or not _is_header(names, below)):
        if not header:
            notes.append(f"{file.name} has no column names: the first row is data; data.header=yes changes it")
        names, start, headed = [""] * len(names), rows[first - 1][0] if first else int(bool(declared)), False
    named = _named(file, names)
    nameless = tuple(new for new, old in zip(named, names, strict=True) if headed and not old.strip())
    return Layout(encoding, delimiter, named, start, nameless, tuple(notes))


def _named(file: Path, names: Sequence[str]) -> tuple[str, ...]:
    """Return a name for every column; raises DataError for a name that several have."""
    named = tuple(name.strip() or f"column_{i}" for i, name in enumerate(names, start=1))
    repeated = sorted({name for name in named if named.count(name) > 1})
    if repeated:
        raise DataError(
            f"Expected a different name for each column. Received: {file} with {repeated[:5]}. Rename them."
        )
    return named


def find_delimiter(text: str) -> str:
    """Return the delimiter that gives most lines the same number of cells, more than one."""

    def score(delimiter: str) -> float:
        widths = collections.Counter(len(row) for _, row in _rows(text, delimiter, whole=False) if row)
        width, count = widths.most_common(1)[0] if widths else (1, 0)
        return count / widths.total() if width > 1 else 0.0

    scores = {delimiter: score(delimiter) for delimiter in DELIMITERS}
    best = max(scores.values())
    # Semicolons and tabs rarely separate anything but cells.
    near = [delimiter for delimiter in ";\t|," if scores[delimiter] >= best - 0.05 and best]
    return near[0] if near else ","


def _rows(text: str, delimiter: str, *, whole: bool) -> list[tuple[int, list[str]]]:
    """Return the first rows that are not empty, each with the number of its last line."""
    lines = text.splitlines(keepends=True)
    reader = csv.reader(iter(lines if whole or len(lines) < 3 else lines[:-1]), delimiter=delimiter)
    found: list[tuple[int, list[str]]] = []
    try:
        for row in itertools.islice(reader, ROWS):
            if row:
                found.append((reader.line_num, row))
    except csv.Error:
        return found
    return found


def _is_header(first: Sequence[str], below: Sequence[Sequence[str]]) -> bool:
    """Return whether the first row has the names of the columns, by the kinds of the cells below."""
    if not below or len(below[0]) < len(first):
        return True
    columns = [[row[i].strip() for row in below] for i in range(len(first))]
    numeric = [sum(map(_is_number, cells)) >= 0.8 * max(1, sum(map(bool, cells))) for cells in columns]
    heads = [cell.strip() for cell in first]
    of_numbers = [head for head, flag in zip(heads, numeric, strict=True) if flag]
    of_texts = [head in cells for head, cells, flag in zip(heads, columns, numeric, strict=True) if head and not flag]
    if any(head and not _is_number(head) for head in of_numbers):
        return True
    if not any(of_numbers):
        return not (len(of_texts) > 1 and all(of_texts))
    years = all(re.fullmatch(r"(1[89]|20)\d\d", head) for head in of_numbers if head)
    return (years and len(set(of_numbers)) == len(of_numbers)) or (bool(of_texts) and not any(of_texts))


def _is_number(text: str) -> bool:
    return bool(NUMBER.fullmatch(text))
