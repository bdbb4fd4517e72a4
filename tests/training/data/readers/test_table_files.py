"""Tables as people have them: encodings, delimiters, headers, thousands, missing targets; each read right, or said."""

from __future__ import annotations

import numpy as np
import pytest

from training import DataConfig
from training.data.readers.loading import load_dataset
from training.data.readers.sniffing import find_delimiter, find_layout
from training.data.summary import summarize, summary_lines
from zoo.common.errors import DataError

VALUES = np.random.default_rng(3).standard_normal((120, 3)).round(4)
LABELS = ["yes" if row[0] + row[1] > 0 else "no" for row in VALUES]
ROWS = [[*map(str, row), label] for row, label in zip(VALUES, LABELS, strict=True)]
NAMES = ["größe", "b", "c", "label"]


def text_of(rows, delimiter=",", names=NAMES):
    """Return a table as text."""
    return "".join(delimiter.join(row) + "\n" for row in ([names] if names else []) + rows)


def loaded(path, content, **options):
    """Write a file, and return its dataset and its vectors in the order of the file."""
    path.write_bytes(content)
    dataset = load_dataset(DataConfig("table", path=str(path), **options))
    cells = [dataset.cells.columns[name] for name in dataset.table.names]
    return dataset, dataset.table.encode_cells(cells)


FILES = {
    "utf-8": text_of(ROWS).encode(),
    "byte order mark": text_of(ROWS).encode("utf-8-sig"),
    "cp1252": text_of(ROWS).encode("cp1252"),
    "utf-16": text_of(ROWS).encode("utf-16"),
    "utf-16 without mark": text_of(ROWS).encode("utf-16-le"),
    "semicolons and commas": text_of([[c.replace(".", ",") for c in row] for row in ROWS], ";").encode(),
    "tabs": text_of(ROWS, "\t").encode(),
    "bars": text_of(ROWS, "|").encode(),
    "declared by Excel": ("sep=;\n" + text_of(ROWS, ";")).encode(),
    "a title": ("Report of 2024\n\n" + text_of(ROWS)).encode(),
    "Windows": text_of(ROWS).replace("\n", "\r\n").encode(),
    "quoted": text_of([[f'"{cell}"' for cell in row] for row in ROWS]).encode(),
    "white space": text_of([[f" {cell} " for cell in row] for row in ROWS]).encode(),
    "index of pandas": text_of([[str(i), *row] for i, row in enumerate(ROWS)], names=["", *NAMES]).encode(),
    "row names of R": text_of([[f'"{i}"', *row] for i, row in enumerate(ROWS, 1)]).encode(),
    "trailing commas": text_of([[*row, ""] for row in ROWS], names=[*NAMES, ""]).encode(),
    "currency": text_of([["$" + row[0], row[1] + " kg", row[2] + "%", row[3]] for row in ROWS]).encode(),
}


@pytest.mark.parametrize("kind", FILES)
def test_files_as_people_have_them(kind, tmp_path):
    """The names, numbers and classes are those of the plain file."""
    target = {"target": "label"} if kind == "trailing commas" else {}
    dataset, vectors = loaded(tmp_path / "t.csv", FILES[kind], **target)
    assert (dataset.table.names, dataset.labels) == (tuple(NAMES[:3]), ("no", "yes"))
    np.testing.assert_allclose(vectors, VALUES, rtol=1e-6)
    if kind in ("cp1252", "utf-16", "a title", "index of pandas", "row names of R"):
        assert any("t.csv" in note or "Left out" in note for note in dataset.notes)


def test_latin_1_and_a_given_encoding(tmp_path):
    """Bytes that cp1252 lacks are latin-1; the option reads others, and is refused where it cannot be."""
    content = text_of(ROWS).encode("cp1252")
    (tmp_path / "t.csv").write_bytes(content + b"1,2,3,yes\x81\n" * 2)
    assert find_layout(tmp_path / "t.csv").encoding == "latin-1"
    assert loaded(tmp_path / "u.csv", text_of(ROWS).encode("cp437"), encoding="cp437")[0].table.names[0] == "größe"
    for encoding, message in (("utf-8", "text in utf-8"), ("utf-99", "encoding of Python")):
        with pytest.raises(DataError, match=message):
            loaded(tmp_path / "v.csv", content, encoding=encoding)


def test_files_without_names(tmp_path):
    """A first row of data is recognized, said, and can be overridden; years and texts as names are names."""
    dataset, vectors = loaded(tmp_path / "t.csv", text_of(ROWS, names=None).encode())
    assert dataset.table.names == ("column_1", "column_2", "column_3")
    assert len(vectors) == len(ROWS)
    assert any("no column names" in note for note in dataset.notes)
    assert len(loaded(tmp_path / "t.csv", text_of(ROWS, names=None).encode(), header="yes")[1]) == len(ROWS) - 1
    for names in (["2001", "2002", "2003", "label"], NAMES):
        dataset, vectors = loaded(tmp_path / "t.csv", text_of(ROWS, names=names).encode())
        assert (dataset.table.names, len(vectors)) == (tuple(names[:3]), len(ROWS))


def test_points_between_thousands(tmp_path):
    """1.234 next to 950 and decimal commas is a thousand; with decimals of other lengths it is not."""
    numbers = [f"{1000 + 7 * i:,}".replace(",", ".") if i % 3 else str(950 - i) for i in range(60)]
    rows = [[number, f"{i},5", "ab"[i % 2]] for i, number in enumerate(numbers)]
    _, vectors = loaded(tmp_path / "t.csv", text_of(rows, ";", ["a", "b", "y"]).encode())
    assert vectors[1].tolist() == [1007, 1.5]
    rows = [[f"{1 + i / 1000:.3f}" if i % 3 else "1.5", "ab"[i % 2]] for i in range(60)]
    assert loaded(tmp_path / "t.csv", text_of(rows, names=["a", "y"]).encode())[1][1] == np.float32(1.001)


def test_rows_without_a_target_are_left_out(tmp_path):
    """They are counted with their spelling; a frequent 'none' may be a class and is asked about."""
    rows = [[*row[:3], "?" if i in (5, 7) else "NA" if i == 9 else row[3]] for i, row in enumerate(ROWS)]
    dataset, _ = loaded(tmp_path / "t.csv", text_of(rows).encode())
    assert sum(split.count for split in dataset.splits.values()) == len(ROWS) - 3
    assert any("3 rows without a target, '?' in 2, 'NA' in 1" in note for note in dataset.notes)
    rows = [[*row[:3], "none" if row[3] == "no" else row[3]] for row in ROWS]
    with pytest.raises(DataError, match="whether 'none' is a class"):
        loaded(tmp_path / "t.csv", text_of(rows).encode())
    assert loaded(tmp_path / "t.csv", text_of(rows).encode(), missing=("",))[0].labels == ("none", "yes")


def test_numbers_as_targets(tmp_path):
    """Decimal commas, currencies and gaps in a target; the task and the rule are said."""
    rows = [[str(i), "" if i == 4 else f"{i + 0.25:.2f} €".replace(".", ",")] for i in range(60)]
    dataset, _ = loaded(tmp_path / "t.csv", text_of(rows, ";", ["a", "price"]).encode())
    found = sorted(float(y[0]) for split in dataset.splits.values() for y in split.labels().as_numpy_iterator())
    assert found == [i + 0.25 for i in range(60) if i != 4]
    assert "regression, a number, read as decimal comma, €; data.task=classify" in dataset.notes[0]


def test_rows_of_other_lengths(tmp_path):
    """They are refused with their text, or left out and counted."""
    content = (text_of(ROWS) + "1,2\n1,2,3,yes,5\n").encode()
    with pytest.raises(DataError, match="Expected 4 columns, got 2: 1,2"):
        loaded(tmp_path / "t.csv", content)
    dataset, vectors = loaded(tmp_path / "t.csv", content, skip_bad=True)
    assert len(vectors) == len(ROWS)
    assert any(note.startswith("Left out: 2 rows with too few or too many cells") for note in dataset.notes)


@pytest.mark.parametrize(
    ("start", "message"),
    [(b"PK\x03\x04", "spreadsheet"), (b"\x1f\x8b", "gzip"), (b"PAR1", "Parquet"), (bytes(range(256)), "zero bytes")],
)
def test_files_of_other_kinds_are_refused_with_the_remedy(start, message, tmp_path):
    """A spreadsheet that is called .csv, and so on."""
    with pytest.raises(DataError, match=message):
        loaded(tmp_path / "t.csv", start * 5)


def test_delimiters_between_other_signs():
    """Commas in texts and decimal commas do not separate."""
    assert find_delimiter("a;b\n1,5;2,5\n2,5;3,5\n") == ";"
    assert find_delimiter('a\tb\n"x, y"\t1\n"z, w"\t2\n') == "\t"
    assert find_delimiter("a,b\nx;y,1\nz,2\n") == ","
    assert find_delimiter("a\n1\n2\n") == ","


def test_the_summary_shows_the_columns(tmp_path):
    """A line for each column, after the examples; the notes last."""
    rows = [
        [f"2024-01-{i % 28 + 1:02d}", f"{i},5", "red" if i % 2 else "", str(i), row[3]] for i, row in enumerate(ROWS)
    ]
    names = ["day", "size", "color", "id", "label"]
    dataset, _ = loaded(tmp_path / "t.csv", text_of(rows, ";", names).encode())
    lines = list(summary_lines(summarize(dataset)))
    assert lines[2].split() == ["column", "type", "missing", "cells", "become", "values"]
    assert lines[3].split(maxsplit=1) == ["day", lines[3].split(maxsplit=1)[1]]
    assert "date (year-month-day)" in lines[3]
    assert "number (decimal comma)" in lines[4]
    assert "a value of its own (49)" in lines[5]
    assert lines[-1].startswith("Left out: 'id' (a different number in every row)")
