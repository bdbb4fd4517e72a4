"""Files of data: regular files of limited size, as the readers of images, texts and tables open them."""

from __future__ import annotations

import os

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

from training.data.readers.files import digest_of, file_digest
from training.data.readers.records import count_records
from training.data.readers.table_files import read_rows
from zoo.common.errors import DataError
from zoo.reading import data_files
from zoo.reading.data_files import (
    open_csv,
    open_parquet,
    open_table,
    read_blocks,
    read_ends,
    read_image,
    read_numbers,
    read_text,
)


def opened(context):
    """Open what a context manager opens."""
    with context as found:
        return found


OPENING = {
    "image": read_image,
    "text": read_text,
    "numbers": read_numbers,
    "ends": lambda path: read_ends(path, 10),
    "blocks": lambda path: list(read_blocks(path)),
    "csv": lambda path: opened(open_csv(path)),
    "parquet": lambda path: opened(open_parquet(path)),
    "digest": file_digest,
    "records": count_records,
}


@pytest.mark.parametrize("name", OPENING)
def test_special_files_do_not_block(tmp_path, name):
    """A FIFO has no writer, and a device no end."""
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "zero").symlink_to("/dev/zero")
    for special in ("fifo", "zero", "."):
        with pytest.raises(OSError, match=r"it is a (FIFO|device|folder)"):
            OPENING[name](tmp_path / special)


@pytest.mark.parametrize("name", ["image", "text", "numbers", "csv", "parquet"])
def test_large_files_are_not_read(tmp_path, name):
    """Sparse files of two terabytes are refused by their size."""
    with open(tmp_path / "file", "wb") as file:
        file.truncate(2 << 40)
    with pytest.raises(OSError, match=r"it has 2,199,023,255,552 bytes, and at most [\d,]+ are read"):
        OPENING[name](tmp_path / "file")


def test_whole_files_are_read(tmp_path, monkeypatch):
    """The control: bytes, ends, blocks, digests and tables."""
    path = tmp_path / "a.csv"
    path.write_bytes(b"a,b\n1,2\n3,4\n")
    assert read_image(path) == read_text(path) == path.read_bytes()
    assert read_ends(path, 3, 4) == (b"a,b", b"3,4\n")
    assert b"".join(read_blocks(path, 5)) == path.read_bytes()
    assert file_digest(path) == digest_of(path.read_bytes())
    assert np.array_equal(read_numbers(path), [[1, 2], [3, 4]])
    with open_csv(path) as reader:
        table = reader.read_all()
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet")
    with open_parquet(tmp_path / "a.parquet") as file:
        assert file.read().equals(table)
    monkeypatch.setattr(data_files, "TABLE", 3)
    with pytest.raises(OSError, match="it has 12 bytes, and at most 3"), open_table(path):
        pass


def test_unreadable_tables_are_one_line(tmp_path):
    """Whatever pyarrow raises, in the form of all refusals."""
    path = tmp_path / "a.parquet"
    path.write_bytes(b"PAR1" + bytes(100))
    with pytest.raises(DataError, match=rf"Expected a table that can be read\. Received: {path}: .*\.$") as caught:
        read_rows(str(path))
    assert "\n" not in str(caught.value)
