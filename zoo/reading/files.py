"""Open files from outside: regular files alone, and one error for whatever a parser makes of them."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from zoo.common.errors import RunError, ZooError

REASON = 200  # characters of the message of a parser
KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFLNK: "a link",
}
EXPECTED, ADVICE = "Expected a readable file", "Restore the file, or make it again."


def kind_of(mode: int) -> str:
    """Return what a path is that is no regular file, in words; "" for a regular file."""
    return "" if stat.S_ISREG(mode) else KINDS.get(stat.S_IFMT(mode), "a special file")


def refusal(
    path: str | os.PathLike[str], reason: str, expected: str = EXPECTED, advice: str = ADVICE, received: str = ""
) -> str:
    """Return the message about a file that cannot be read, in one line."""
    return f"{expected}. Received: {received or os.fspath(path)}: {shortened(reason)}. {advice}".rstrip()


def shortened(reason: str) -> str:
    """Return a message in one line of at most `REASON` characters, without its full stop."""
    line = " ".join(str(reason).split())
    return (line if len(line) <= REASON else f"{line[: REASON - 1]}…").rstrip(".")


def reason_of(error: BaseException) -> str:
    """Return the message of an error; with the name of its class where it has none of its own."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    text = str(error).strip()
    return f"{type(error).__name__}: {text}".rstrip(": ") if isinstance(error, LookupError) or not text else text


def check_regular(
    path: str | os.PathLike[str],
    expected: str = EXPECTED,
    error: type[ZooError] = RunError,
    advice: str = ADVICE,
    received: str = "",
) -> None:
    """Raise an error unless a path is a regular file, links followed: a FIFO would block, and a device never end.

    For the arguments see `reading`.
    """
    try:
        kind = kind_of(os.stat(path).st_mode)
    except (OSError, ValueError) as failure:
        raise error(refusal(path, reason_of(failure), expected, advice, received)) from failure
    if kind:
        raise error(refusal(path, f"it is {kind}", expected, advice, received))


@contextlib.contextmanager
def reading(
    path: str | os.PathLike[str],
    expected: str = EXPECTED,
    error: type[ZooError] = RunError,
    advice: str = ADVICE,
    received: str = "",
) -> Iterator[None]:
    """Check that a path is a regular file, and turn every failure of what parses it into one error.

    Parsers of damaged files raise many classes, among them `zipfile.BadZipFile`, `zlib.error`, `struct.error`,
    `MemoryError` and `RecursionError`, so that all are caught: nothing else belongs into the block.

    Args:
        path: the file.
        expected: the start of the message.
        error: the class of the error.
        advice: the end of the message.
        received: what the user passed; the path by default.
    """
    check_regular(path, expected, error, advice, received)
    try:
        yield
    except ZooError:
        raise
    except Exception as failure:
        raise error(refusal(path, reason_of(failure), expected, advice, received)) from failure


@contextlib.contextmanager
def as_value_error() -> Iterator[None]:
    """Turn an error of the zoo about the content of a file into ValueError, for `reading` to name the file."""
    try:
        yield
    except ZooError as error:
        raise ValueError(str(error)) from error


def open_regular(path: str | os.PathLike[str]) -> IO[bytes]:
    """Open a regular file to read; raises OSError for another kind, without waiting for a writer of a FIFO."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        kind = kind_of(os.fstat(descriptor).st_mode)
        if kind:
            raise OSError(f"it is {kind}")
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def read_bytes(path: str | os.PathLike[str], limit: int) -> bytes:
    """Return the content of a regular file of at most `limit` bytes; raises OSError."""
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size > limit:
            raise OSError(f"it has {size:,} bytes, and at most {limit:,} are read")
        return file.read(limit)


def open_lock(path: Path) -> IO[bytes]:
    """Open a lock file, made if needed; raises RunError for a link or a special file, which is not followed."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        file = os.fdopen(os.open(path, flags, 0o644), "wb")
    except OSError as error:
        kind = "it is a link" if path.is_symlink() else reason_of(error)
        raise RunError(refusal(path, kind, "Expected a lock file that can be written", "Remove it.")) from error
    if kind_of(os.fstat(file.fileno()).st_mode):
        file.close()
        raise RunError(refusal(path, "it is no regular file", "Expected a lock file", "Remove it."))
    return file


def open_own(path: Path) -> IO[bytes]:
    """Open a file to read and append, made if needed; raises OSError for a link or a special file."""
    flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    file = os.fdopen(os.open(path, flags, 0o644), "a+b")
    if kind_of(os.fstat(file.fileno()).st_mode):
        file.close()
        raise OSError("it is no regular file")
    return file


def check_inside(folder: Path) -> None:
    """Refuse a folder with links that lead out of it, or with special files, at any depth.

    What is written into such a link is written elsewhere, and what is deleted there is deleted elsewhere.

    Args:
        folder: a run directory, or a folder of artifacts; a link to it is fine.

    Raises:
        RunError: there is one; the message names it.
    """
    root = folder.resolve()
    for path, mode in _special(root):
        where = folder / path.relative_to(root)
        if not stat.S_ISLNK(mode):
            raise RunError(f"A run or export folder must have regular files alone. Received: {where}, {kind_of(mode)}.")
        if not path.resolve().is_relative_to(root):
            raise RunError(
                f"A run or export folder must have no links that lead out of it. Received: {where}, a link to "
                f"{shortened(os.readlink(path))}. Replace it by its content."
            )


def _special(folder: Path) -> Iterator[tuple[Path, int]]:
    """Yield links and special files below a folder, with their modes; links are not followed."""
    waiting = [os.fspath(folder)]
    while waiting:
        with contextlib.suppress(FileNotFoundError, PermissionError), os.scandir(waiting.pop()) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(entry.path)
                elif not entry.is_file(follow_symlinks=False):
                    yield Path(entry.path), entry.stat(follow_symlinks=False).st_mode
