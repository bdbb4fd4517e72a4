"""Full disks: which folder has no space left, for errors that do not say so."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path

# Bytes below which a disk counts as full: a library that found no space may have removed its file.
SCARCE = 1 << 20
# Errors of the system that mean a full disk or quota.
FULL = tuple(getattr(errno, name) for name in ("ENOSPC", "EDQUOT") if hasattr(errno, name))


def full_folders(folders: Iterable[Path | str] = ()) -> list[str]:
    """Return those of some folders, and of the folders for temporary files, that have less than 1 MiB left."""
    temporary = [path for path in (os.environ.get("TMPDIR"), tempfile.gettempdir()) if path]
    return [str(folder) for folder in dict.fromkeys(map(Path, (*folders, *temporary))) if _is_full(folder)]


def _is_full(folder: Path) -> bool:
    try:
        return shutil.disk_usage(folder).free < SCARCE
    except OSError:  # it does not exist
        return False


def full_disk_hint(folders: Iterable[Path | str] = ()) -> str:
    """Return what to do about a full disk, " No space is left in X …"; "" if none is full."""
    found = full_folders(folders)
    if not found:
        return ""
    return (
        f" No space is left in {', '.join(found)}. Free some, or choose another folder (TMPDIR for temporary files), "
        "then try again."
    )


def describe_os_error(error: OSError) -> str:
    """Return an error of the system in one line, with the file, or the full disk if it names none."""
    if isinstance(error, shutil.Error) and error.args and isinstance(error.args[0], list):
        first, *others = error.args[0]
        more = f" (and {len(others)} others)" if others else ""
        return f"Could not copy {first[0]} to {first[1]}{more}: {first[2]}.{full_disk_hint([Path(first[1]).parent])}"
    reason = error.strerror or str(error)
    if error.filename is not None:
        return f"Could not use {os.fsdecode(error.filename)}: {reason}.{full_disk_hint([_folder(error.filename)])}"
    hint = full_disk_hint([Path.cwd()]) if error.errno in FULL else ""
    return f"Could not read or write a file: {reason}.{hint}"


def _folder(name: str | bytes | int) -> Path:
    return Path(os.fsdecode(name)).absolute().parent if isinstance(name, (str, bytes)) else Path.cwd()
