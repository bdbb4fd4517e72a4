"""What files and options may make this process allocate: every limit in one place, each refused in one line."""

from __future__ import annotations

import contextlib
import io
import math
import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from zoo.common.errors import BadOption, DataError, ZooError

if TYPE_CHECKING:
    import zipfile

# Bytes that one byte of a file may unpack to, where deflate reaches 1,032; and bytes that may in any case.
UNPACKED, ARCHIVE_SLACK, ARRAYS_SLACK = 20, 1 << 20, 256 << 20
# The largest number in an option of a model or format, and the largest ones in the options of these names.
MOST, LARGEST = 10_000_000, {"depth": 1000, "depths": 1000, "batch": 65_536}
LONGEST = 1000  # values of an option
MOST_FILES = 500_000  # below a folder of calibration data
# Cells of a Parquet file for each of its bytes, and those that any file may have.
CELLS, CELLS_SLACK = 100, 10_000_000
# Steps of a range test and trials of a study.
MOST_TURNS = 1_000_000
# Pixels of a side of an image that a model takes, tokens of a text, and processes of one machine.
LARGEST_SIDE, MOST_TOKENS, MOST_WORKERS = 16_384, 100_000, 256
# Part of the outputs of all layers that training holds at least: some share their memory, others are recomputed.
HELD = 0.25
CGROUPS = (("memory.max", "memory.current"), ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"))


def check_archive(archive: zipfile.ZipFile, packed: int, slack: int = ARCHIVE_SLACK) -> None:
    """Raise DataError if the members of an archive unpack to much more than its size.

    Args:
        archive: the archive; nothing of it is unpacked.
        packed: its size in bytes.
        slack: bytes that any archive may unpack to.
    """
    unpacked = sum(entry.file_size for entry in archive.infolist())
    if unpacked > UNPACKED * packed + slack:
        raise DataError(f"its {packed:,} bytes unpack to {unpacked:,}, much more than what it is made for")


def check_hdf5(file: Any, packed: int) -> int:
    """Raise DataError if a dataset of an HDF5 file is much larger than the file, or lies in another one.

    Args:
        file: an h5py.File.
        packed: its size in bytes.

    Returns:
        The number of values in all datasets.
    """
    import h5py

    found: list[Any] = []
    file.visititems(lambda _, node: found.append(node) if isinstance(node, h5py.Dataset) else None)
    for node in found:
        if node.external or node.is_virtual:
            raise DataError(f"the values of {node.name} are not in the file")
    declared = sum(node.nbytes for node in found)
    if declared > UNPACKED * packed + ARCHIVE_SLACK:
        raise DataError(f"its {packed:,} bytes declare {declared:,} bytes of values")
    return sum(node.size or 0 for node in found)


def check_keras(path: Path) -> int:
    """Raise DataError if a .keras file is damaged, or unpacks to much more than its size, or the weights in it do.

    Returns:
        The number of values of its weights.

    Raises:
        OSError: its weights are no HDF5 file.
    """
    import zipfile  # as below

    import h5py

    size, values = path.stat().st_size, 0
    with _opened(zipfile, path) as archive:
        check_archive(archive, size)
        for entry in archive.infolist():
            if entry.filename.endswith(".h5"):
                with _member(archive, entry, path) as member, h5py.File(member, "r") as file:
                    values += check_hdf5(file, entry.file_size)
    return values


@contextlib.contextmanager
def _opened(zipfile: Any, path: Path) -> Iterator[Any]:
    """Open an archive, and raise DataError where it is damaged."""
    import zlib

    try:
        with zipfile.ZipFile(path) as archive:
            yield archive
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError) as error:
        raise DataError(f"it is no whole archive ({error})") from error


def _member(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, path: Path) -> io.IOBase:
    """Return a member of an archive as a file; one that is not compressed, as Keras writes it, is not read."""
    if entry.compress_type:
        return io.BytesIO(archive.read(entry))
    with path.open("rb") as file:
        file.seek(entry.header_offset + 26)
        lengths = file.read(4)
    names = sum(int.from_bytes(lengths[place : place + 2], "little") for place in (0, 2))
    return _Part(path, entry.header_offset + 30 + names, entry.file_size)


class _Part(io.RawIOBase):
    """A part of a file as a file of its own.

    Args:
        path: the file.
        first: its first byte.
        size: number of bytes.
    """

    def __init__(self, path: Path, first: int, size: int) -> None:
        super().__init__()
        self._file, self._first, self._size, self._place = path.open("rb"), first, size, 0

    def readable(self) -> bool:
        """Return that it can be read."""
        return True

    def seekable(self) -> bool:
        """Return that it has places."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go to a place, and return it."""
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._place, io.SEEK_END: self._size}[whence]
        self._place = max(0, start + offset)
        return self._place

    def readinto(self, buffer: Any) -> int:
        """Fill a buffer with bytes, and return how many there were."""
        self._file.seek(self._first + self._place)
        count = self._file.readinto(memoryview(buffer)[: max(0, self._size - self._place)])
        self._place += count
        return count

    def close(self) -> None:
        """Close the file."""
        self._file.close()
        super().close()


def check_arrays(path: Path) -> None:
    """Raise DataError if a .npy or .npz file declares more than it has, or unpacks to much more than its size.

    Raises:
        ValueError: it is neither.
    """
    import zipfile  # here, so that `zoo list` starts faster

    size = path.stat().st_size
    try:
        with path.open("rb") as file:
            if file.read(4) != b"PK\x03\x04":
                file.seek(0)
                _check_array(file, size)
                return
        with _opened(zipfile, path) as archive:
            check_archive(archive, size, ARRAYS_SLACK)
            for entry in archive.infolist():
                with archive.open(entry) as member:
                    _check_array(member, entry.file_size)
    except DataError as error:
        raise DataError(f"Expected arrays that the file holds. Received: {path}: {error}. Use another file.") from error


def _check_array(file: Any, size: int) -> None:
    """Raise DataError if the header of an array declares more bytes than follow."""
    from numpy.lib import format as arrays

    version = arrays.read_magic(file)
    header = arrays.read_array_header_1_0 if version == (1, 0) else arrays.read_array_header_2_0
    shape, _, dtype = header(file)
    declared = math.prod(shape) * dtype.itemsize
    if declared > size or min(shape, default=0) < 0:
        raise DataError(f"it declares an array of {declared:,} bytes, and has {size:,}")


def check_cells(path: Path, rows: int, columns: int) -> None:
    """Raise DataError if a compressed table declares many more cells than it has bytes."""
    size = path.stat().st_size
    if rows * columns > CELLS * size + CELLS_SLACK:
        raise DataError(
            f"Expected a table of at most {CELLS} cells a byte. Received: {path}, whose {size:,} bytes declare "
            f"{rows:,} rows of {columns:,} columns. Write the table without compression, or in parts."
        )


def check_option(name: str, value: Any) -> None:
    """Raise BadOption for numbers and lists in an option of a model beyond any model that is built."""
    values = value if isinstance(value, (list, tuple)) else [value]
    most = LARGEST.get(name.rpartition(":")[2], MOST)
    if len(values) > LONGEST:
        raise BadOption(f"{name} must have at most {LONGEST} values. Received: {name} with {len(values)}")
    for number in values:
        if isinstance(number, float) and not math.isfinite(number):
            raise BadOption(f"{name} must be finite. Received: {name}={value_text(value)}")
        if isinstance(number, (int, float)) and abs(number) > most:
            raise BadOption(f"{name} must be at most {most:,}. Received: {name}={value_text(value)}. Lower {name}.")


def check_shape(shape: Iterable[int], channels_last: bool) -> None:
    """Raise BadOption for an input shape beyond any that is computed.

    Args:
        shape: the shape of one example.
        channels_last: whether it is (height, width, channels).
    """
    shape = tuple(shape)
    most = LARGEST_SIDE if channels_last else MOST
    if max(shape) > most or math.prod(shape) > LARGEST_SIDE**2 * 4:
        raise BadOption(
            f"input_shape must be at most {most:,} in each direction. Received: input_shape={value_text(shape)}. "
            "Lower input_shape (data.image_size)."
        )


def available_memory() -> int:
    """Return the bytes of memory that this process may still allocate; a terabyte where the system does not say."""
    found = [1 << 40]
    meminfo = Path("/proc/meminfo")
    if meminfo.is_file():
        lines = (line.split() for line in meminfo.read_text(encoding="ascii").splitlines())
        found += [int(line[1]) * 1024 for line in lines if line[0] == "MemAvailable:"]
    elif hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        found.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    for limit, used in CGROUPS:
        files = [Path("/sys/fs/cgroup") / name for name in (limit, used)]
        values = [file.read_text(encoding="ascii").strip() for file in files if file.is_file()]
        if len(values) == 2 and all(map(str.isdecimal, values)):
            found.append(max(0, int(values[0]) - int(values[1])))
    return min(found)


def require_memory(needed: float, what: str, remedy: str) -> None:
    """Raise BadOption if more memory is needed than is available.

    Args:
        needed: bytes.
        what: what needs them, for the message.
        remedy: what to lower.
    """
    available = available_memory()
    if needed > available:
        refuse_memory(needed, available, what, remedy)


def refuse_memory(needed: float, available: int, what: str, remedy: str) -> NoReturn:
    """Raise BadOption for something that does not fit into the memory that is available, in bytes."""
    raise BadOption(
        f"Expected what fits into the {available / 1e9:,.1f} GB of memory that are free. "
        f"Received: {what}, which needs at least {needed / 1e9:,.1f} GB. {remedy}"
    )


def value_text(value: Any, most: int = 100) -> str:
    """Return a value as text of limited length."""
    try:
        text = str(list(value)) if isinstance(value, tuple) else str(value)
    except ValueError:  # Python converts no integer of more than 4,300 digits
        text = "a number of more than 4,300 digits"
    return text if len(text) <= most else f"{text[:most]}…"


def option_names(options: Mapping[str, Any]) -> str:
    """Return options with their values, for messages."""
    return ", ".join(f"{name}={value_text(value, 60)}" for name, value in options.items())


def resource_error(error: BaseException) -> ZooError | None:
    """Return the one-line error for exhausted memory, too deep nesting or an error of TensorFlow; None for others."""
    reason = value_text(" ".join(str(error).split()), 200)
    if isinstance(error, RecursionError):
        return ZooError(f"Expected values that are not nested so deeply. Received: {reason}. Flatten the input.")
    # TensorFlow and JAX name the state alike.
    exhausted = type(error).__name__ == "ResourceExhaustedError" or str(error).startswith("RESOURCE_EXHAUSTED")
    if isinstance(error, MemoryError) or exhausted:
        return ZooError(
            f"Expected enough memory. Received: {reason or 'none is left'}. Lower data.batch_size, the size of the "
            "inputs or of the model."
        )
    errors = getattr(sys.modules.get("tensorflow"), "errors", None)
    if errors is not None and isinstance(error, errors.OpError):
        return ZooError(f"TensorFlow could not compute an operation. Received: {type(error).__name__}: {reason}")
    return None
