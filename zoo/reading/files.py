"""Open files from outside: regular files alone, and one error for whatever a parser makes of them."""

from __future__ import annotations

import contextlib
import dataclasses
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
ADVICE = "Restore the file, or make it again."


@dataclasses.dataclass(frozen=True)
class Refusal:
    """What is said of a file that cannot be read, in one line.

    Args:
        expected: the start of the message; "" for that of the kind of file.
        error: the class of the error.
        advice: the end of the message.
        received: what the user passed; "" for the path.
    """

    expected: str = ""
    error: type[ZooError] = RunError
    advice: str = ADVICE
    received: str = ""

    def of_kind(self, expected: str) -> Refusal:
        """Return the refusal of a kind of file: with this start of the message, unless it has one of its own."""
        return self if self.expected else dataclasses.replace(self, expected=expected)

    def because(self, path: str | os.PathLike[str], reason: BaseException | str) -> ZooError:
        """Return the error about a file, to raise it.

        Args:
            path: the file.
            reason: why it cannot be read.
        """
        why = shortened(reason if isinstance(reason, str) else reason_of(reason))
        start = self.expected or "Expected a readable file"
        return self.error(f"{start}. Received: {self.received or os.fspath(path)}: {why}. {self.advice}".rstrip())


PLAIN = Refusal()


def kind_of(mode: int) -> str:
    """Return what a path is that is no regular file, in words; "" for a regular file."""
    return "" if stat.S_ISREG(mode) else KINDS.get(stat.S_IFMT(mode), "a special file")


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


def check_regular(path: str | os.PathLike[str], refusal: Refusal = PLAIN) -> None:
    """Raise the error of a refusal unless a path is a regular file, links followed.

    A FIFO would block, and a device never end.
    """
    try:
        kind = kind_of(os.stat(path).st_mode)
    except (OSError, ValueError) as failure:
        raise refusal.because(path, failure) from failure
    if kind:
        raise refusal.because(path, f"it is {kind}")


@contextlib.contextmanager
def reading(path: str | os.PathLike[str], refusal: Refusal = PLAIN) -> Iterator[None]:
    """Check that a path is a regular file, and turn every failure of what parses it into one error.

    Parsers of damaged files raise many classes, among them `zipfile.BadZipFile`, `zlib.error`, `struct.error`,
    `MemoryError` and `RecursionError`, so that all are caught: nothing else belongs into the block.

    Args:
        path: the file.
        refusal: the error.
    """
    check_regular(path, refusal)
    try:
        yield
    except ZooError:
        raise
    except Exception as failure:
        raise refusal.because(path, failure) from failure


@contextlib.contextmanager
def as_value_error() -> Iterator[None]:
    """Turn an error of the zoo about the content of a file into ValueError, for `reading` to name the file."""
    try:
        yield
    except ZooError as error:
        raise ValueError(str(error)) from error


def open_regular(path: str | os.PathLike[str], buffering: int = -1) -> IO[bytes]:
    """Open a regular file to read; raises OSError for another kind, without waiting for a writer of a FIFO.

    Args:
        path: the file.
        buffering: see `open`.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        kind = kind_of(os.fstat(descriptor).st_mode)
        if kind:
            raise OSError(f"it is {kind}")
        return os.fdopen(descriptor, "rb", buffering)
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


LOCK = Refusal("Expected a lock file that can be written", advice="Remove it.")


def open_lock(path: Path) -> IO[bytes]:
    """Open a lock file, made if needed; raises RunError for a link or a special file, which is not followed."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        file = os.fdopen(os.open(path, flags, 0o644), "wb")
    except OSError as error:
        reason = "it is a link" if path.is_symlink() else reason_of(error)
        raise LOCK.because(path, reason) from error
    if kind_of(os.fstat(file.fileno()).st_mode):
        file.close()
        raise LOCK.because(path, "it is no regular file")
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
        if not _target(path).is_relative_to(root):
            raise RunError(
                f"A run or export folder must have no links that lead out of it. Received: {where}, a link to "
                f"{shortened(os.readlink(path))}. Replace it by its content."
            )


def _target(path: Path) -> Path:
    """Return where a link leads; of a link to itself, the link."""
    try:
        return path.resolve()
    except (OSError, RuntimeError):  # Python 3.13 raises neither
        return path


def _special(folder: Path) -> Iterator[tuple[Path, int]]:
    """Yield links and special files below a folder, with their modes; links are not followed."""
    waiting = [os.fspath(folder)]
    while waiting:
        with contextlib.suppress(FileNotFoundError, PermissionError), os.scandir(waiting.pop()) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(entry.path)
                elif not entry.is_file(follow_symlinks=False):
                    # Removed meanwhile, alone: the other entries are still looked at.
                    with contextlib.suppress(FileNotFoundError):
                        yield Path(entry.path), entry.stat(follow_symlinks=False).st_mode
