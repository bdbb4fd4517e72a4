"""Atomic files and folders: written next to their path, synced, then renamed."""

from __future__ import annotations

import contextlib
import json
import math
import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from zoo.common.disk import describe_os_error
from zoo.common.ending import cleaned_up
from zoo.common.errors import RunError
from zoo.common.exchange import exchange


def write_atomic(path: Path, write: Callable[[Path], None], *, parents: bool = True) -> None:
    """Write a file atomically.

    Args:
        path: the file.
        write: function that writes the file at the temporary path it is given.
        parents: make the folders above it; without, a folder that was deleted meanwhile does not come back.

    Raises:
        RunError: the disk is full or not writable, or a folder is missing; the previous file is unchanged.
    """
    _check_path(path)
    # The suffix stays, because writers such as Keras' depend on it.
    temporary = path.with_name(f".writing-{os.getpid()}-{path.name}")
    try:
        with cleaned_up(lambda: temporary.unlink(missing_ok=True)):
            if parents:
                path.parent.mkdir(parents=True, exist_ok=True)
            temporary.unlink(missing_ok=True)  # a link would be followed
            write(temporary)
            _sync(temporary)
            os.replace(temporary, path)
            _sync(path.parent)
    except OSError as error:
        raise _write_error(path, error) from error
    finally:
        temporary.unlink(missing_ok=True)


def _check_path(path: Path) -> None:
    """Raise RunError for a name that no file can have."""
    try:
        valid = b"\0" not in os.fsencode(path)
    except UnicodeEncodeError:
        valid = False
    if not valid:
        raise RunError(f"Expected a path. Received: {str(path)!r}, which no file can be called.")


def _write_error(path: Path, error: OSError) -> RunError:
    """Return the one-line error of a failed write."""
    reason = describe_os_error(error) if isinstance(error, shutil.Error) else error.strerror or str(error)
    return RunError(
        f"Could not write {path}: {reason}. The previous content is unchanged. "
        "Free disk space or choose another path, then try again."
    )


def write_bytes(path: Path, content: bytes, *, parents: bool = True) -> None:
    """Write a file atomically; `parents` as for `write_atomic`."""
    write_atomic(path, lambda temporary: _write_all(temporary, content), parents=parents)


def _write_all(path: Path, content: bytes) -> None:
    path.write_bytes(content)


def write_json(path: Path, content: Any, *, parents: bool = True) -> None:
    """Write JSON atomically; numbers that are not finite become null; `parents` as for `write_atomic`."""
    write_bytes(path, to_json(content).encode(), parents=parents)


def to_json(content: Any) -> str:
    """Return strict, indented JSON; numbers that are not finite become null."""
    return json.dumps(finite(content), indent=2, allow_nan=False, ensure_ascii=False) + "\n"


def finite(value: Any) -> Any:
    """Return the values with None for numbers that are not finite."""
    if isinstance(value, dict):
        return {key: finite(v) for key, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _sync(path: Path) -> None:
    """Flush a file or folder to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def whole_folder(path: Path, *, parents: bool = True) -> Iterator[Path]:
    """Yield a temporary folder next to `path` that becomes `path` on success and is removed otherwise.

    An existing `path` is replaced. A process that is killed meanwhile leaves the old folder or the new one; see
    `restore_replaced` for systems without an atomic exchange.

    Args:
        path: the folder.
        parents: make the folders above it; without, they must exist.

    Raises:
        RunError: the disk is full or not writable, or a folder above is missing; an existing `path` is unchanged.
    """
    _check_path(path)
    if path.is_symlink():
        raise RunError(f"Expected a folder that can be replaced. Received: {path}, a link. Remove it.")
    temporary = path.with_name(f".writing-{path.name}-{secrets.token_hex(4)}")
    try:
        if parents:
            path.parent.mkdir(parents=True, exist_ok=True)
        with cleaned_up(lambda: remove_folder(temporary), temporary.mkdir):
            yield temporary
            _replace_folder(temporary, path)
    except OSError as error:
        if isinstance(error, RunError):
            raise
        raise _write_error(path, error) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def remove_folder(folder: Path) -> None:
    """Remove a folder that another thread may still write into: its name goes first, so that nothing new gets in."""
    nameless = folder.with_name(f"{folder.name}-removed")
    with contextlib.suppress(OSError):
        os.rename(folder, nameless)
    for path in (nameless, folder):
        shutil.rmtree(path, ignore_errors=True)


REPLACED = ".replaced-"


def _replace_folder(new: Path, path: Path) -> None:
    """Move a folder to a path; a folder that is there is removed."""
    restore_replaced(path)
    old = _replaced(path)
    if not path.exists():
        os.replace(new, path)
    elif exchange(new, path):
        shutil.rmtree(new, ignore_errors=True)
    else:
        shutil.rmtree(old, ignore_errors=True)  # left by a process that was killed after both renames
        os.replace(path, old)
        os.replace(new, path)
    shutil.rmtree(old, ignore_errors=True)


def _replaced(path: Path) -> Path:
    """Return the name of a replaced folder between the two renames."""
    return path.with_name(f"{REPLACED}{path.name}")


def restore_replaced(path: Path) -> None:
    """Give a folder its name back if a process was killed between the two renames of its replacement.

    This happens only where no atomic exchange is possible. Readers of folders that `whole_folder` replaces call it.
    """
    if not path.name or path.exists() or not _replaced(path).is_dir():
        return
    with contextlib.suppress(OSError):
        os.rename(_replaced(path), path)


def restore_all(folder: Path) -> None:
    """Call `restore_replaced` for every folder in a folder."""
    for old in folder.glob(f"{REPLACED}*"):
        restore_replaced(folder / old.name.removeprefix(REPLACED))
