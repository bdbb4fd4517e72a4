"""Open files of arrays: `.npz`, `.npy` and safetensors. Nothing is unpickled."""

from __future__ import annotations

import contextlib
import io
import math
import os
import zipfile
from collections.abc import Iterator, Mapping
from typing import IO, Any

from zoo.common.budgets import ARRAYS_SLACK, check_archive
from zoo.common.lazy import np
from zoo.reading.files import PLAIN, Refusal, as_value_error, open_regular, reading

BLOCK = 1 << 20  # bytes of one read
HEADER = 1 << 16  # bytes that are read first, more than a header has


def read_npz(path: str | os.PathLike[str], refusal: Refusal = PLAIN) -> dict[str, Any]:
    """Return the arrays of an `.npz` file by name.

    Args:
        path: the file.
        refusal: the error.

    Raises:
        ZooError: that of `refusal`: the file is damaged, has objects, or is no `.npz` file.
    """
    refusal = refusal.of_kind("Expected a readable file of arrays")
    with reading(path, refusal), open_regular(path) as file, zipfile.ZipFile(file) as archive:
        entries = archive.infolist()
        with as_value_error():
            check_archive(archive, os.fstat(file.fileno()).st_size, ARRAYS_SLACK)
        names = [entry.filename.removesuffix(".npy") for entry in entries]
        if len({*names}) != len(names):
            raise ValueError("two arrays have one name")
        return {name: _member(archive, entry) for name, entry in zip(names, entries, strict=True)}


def _member(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> Any:
    with archive.open(entry) as file:
        return _array(file, entry.file_size, entry.filename)


def read_npy(path: str | os.PathLike[str], refusal: Refusal = PLAIN) -> Any:
    """Return the array of an `.npy` file; see `read_npz` for the arguments and the error."""
    with reading(path, refusal.of_kind("Expected a readable array")), open_regular(path) as file:
        return _array(file, os.fstat(file.fileno()).st_size, "it")


def _array(file: IO[bytes], size: int, name: str) -> Any:
    """Return an array of numbers or texts; raises ValueError for another one, and for one that is not all there.

    Args:
        file: the open `.npy` file.
        size: its size in bytes.
        name: its name, for messages.
    """
    head = io.BytesIO(file.read(HEADER))
    version = np.lib.format.read_magic(head)
    known = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    if version not in known:
        raise ValueError(f"{name[:100]} is of version {version}")
    shape, fortran, dtype = known[version](head)
    if dtype.kind not in "biufUS":
        raise ValueError(f"{name[:100]} is no array of numbers or texts")
    count = math.prod(shape)
    declared = count * dtype.itemsize
    if declared < 0 or head.tell() + declared != size:
        raise ValueError(f"{name[:100]} declares an array of {declared:,} bytes, and has {size - head.tell():,}")
    content = np.empty(count * dtype.itemsize, "uint8")
    _fill(memoryview(content), head.read(), file)
    array = content.view(dtype) if count else np.empty(0, dtype)
    return array.reshape(shape, order="F" if fortran else "C")


def _fill(buffer: memoryview, first: bytes, file: IO[bytes]) -> None:
    """Fill a buffer from bytes that were read and from a file; raises ValueError if it ends early."""
    place = len(first)
    buffer[:place] = first
    while place < len(buffer):
        block = file.read(min(BLOCK, len(buffer) - place))
        if not block:
            raise ValueError("it is cut off")
        buffer[place : place + len(block)] = block
        place += len(block)
    file.read(1)  # a zip member checks its checksum at its end


@contextlib.contextmanager
def open_safetensors(path: str | os.PathLike[str], refusal: Refusal = PLAIN) -> Iterator[Any]:
    """Open a safetensors file; see `zoo.reading.files.reading` for the arguments and the error.

    Yields:
        What `safetensors.safe_open` yields.
    """
    from safetensors import safe_open

    refusal = refusal.of_kind("Expected a readable safetensors file")
    with reading(path, refusal), safe_open(os.fspath(path), "np") as file:
        yield file


def read_safetensors(file: Any) -> tuple[dict[str, Any], Mapping[str, str]]:
    """Return the arrays by name and the metadata of an open file; raises errors of many classes."""
    return {key: file.get_tensor(key) for key in file.keys()}, file.metadata() or {}  # noqa: SIM118 - it is no mapping
