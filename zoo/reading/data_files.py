"""Open files of data: encoded images, texts, tables, records, and graphs of models, all of limited size.

Readers of data collect the reasons of many files, or name a file in a table: what is raised here is OSError with the
reason, and `zoo.reading.files.reading` turns it into one line where a file stands for itself.
"""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Iterator
from typing import IO, Any

from zoo.common.lazy import LazyModule, np
from zoo.reading.files import open_regular, read_bytes

arrow_csv = LazyModule("pyarrow.csv", "pyarrow")
parquet = LazyModule("pyarrow.parquet", "pyarrow")

# Bytes of an encoded image (100 million pixels of 4 x 16 bits have 0.8 GB), of a text, of a table and of a table of
# examples to calibrate on.
IMAGE, TEXT, TABLE, NUMBERS = 1 << 30, 64 << 20, 1 << 40, 1 << 30
# Bytes of a graph in one message, the most that protobuf and flatbuffers can have, and of one in XML.
GRAPH, XML = 1 << 31, 1 << 28
BLOCK = 1 << 20  # bytes of one read


def read_image(path: str | os.PathLike[str]) -> bytes:
    """Return the content of an image file; raises OSError."""
    return read_bytes(path, IMAGE)


def read_graph(path: str | os.PathLike[str], limit: int = GRAPH) -> bytes:
    """Return the content of a file with the graph of a model; raises OSError."""
    return read_bytes(path, limit)


def read_text(path: str | os.PathLike[str]) -> bytes:
    """Return the content of a text file; raises OSError."""
    return read_bytes(path, TEXT)


def read_numbers(path: str | os.PathLike[str]) -> Any:
    """Return the numbers of a CSV file with a header line, float64 (rows, columns); raises OSError or ValueError."""
    return np.genfromtxt(io.BytesIO(read_bytes(path, NUMBERS)), delimiter=",", skip_header=1, ndmin=2)


def read_ends(path: str | os.PathLike[str], head: int, tail: int = 0) -> tuple[bytes, bytes]:
    """Return the first and the last bytes of a file; raises OSError.

    Args:
        path: the file.
        head: the number of first bytes.
        tail: the number of last bytes.
    """
    with open_regular(path) as file:
        first = file.read(head)
        if not tail:
            return first, b""
        file.seek(max(os.fstat(file.fileno()).st_size - tail, 0))
        return first, file.read(tail)


def read_blocks(path: str | os.PathLike[str], size: int = BLOCK) -> Iterator[bytes]:
    """Yield the content of a file in blocks of at most `size` bytes; raises OSError."""
    with open_regular(path) as file:
        yield from iter(lambda: file.read(size), b"")


@contextlib.contextmanager
def open_table(path: str | os.PathLike[str]) -> Iterator[IO[bytes]]:
    """Open a table; raises OSError, also for one of more than `TABLE` bytes."""
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size > TABLE:
            raise OSError(f"it has {size:,} bytes, and at most {TABLE:,} are read")
        yield file


@contextlib.contextmanager
def open_csv(path: str | os.PathLike[str], **options: Any) -> Iterator[Any]:
    """Open a CSV file as pyarrow's reader of batches; raises OSError or an error of pyarrow.

    Args:
        path: the file.
        options: of `pyarrow.csv.open_csv`.
    """
    # By its path: threads of pyarrow read ahead, and would call Python for a file of Python's.
    with open_table(path), arrow_csv.open_csv(os.fspath(path), **options) as reader:
        yield reader


@contextlib.contextmanager
def open_parquet(path: str | os.PathLike[str]) -> Iterator[Any]:
    """Open a Parquet file as pyarrow's ParquetFile; raises OSError or an error of pyarrow."""
    with open_table(path), parquet.ParquetFile(os.fspath(path)) as opened:
        yield opened
