"""Folders of runs and studies: names, locks and files of JSON lines."""

from __future__ import annotations

import contextlib
import datetime
import os
import secrets
from collections.abc import Iterator
from pathlib import Path

from zoo.common.errors import RunError
from zoo.reading.files import open_lock


@contextlib.contextmanager
def locked(folder: Path, refusal: str) -> Iterator[None]:
    """Lock a folder for this process, or raise RunError with a message that starts with `refusal`."""
    # Windows, which is not supported, has no fcntl.
    import fcntl

    with open_lock(folder / ".lock") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RunError(f"{refusal} Wait for the other process, or stop it.") from None
        yield


def check_free(path: str | os.PathLike[str] | None) -> None:
    """Raise RunError if `path` exists and is not an empty folder."""
    if path and Path(path).exists() and (not Path(path).is_dir() or any(Path(path).iterdir())):
        raise RunError(
            f"Expected an empty or missing folder for a new run. Received: run={str(path)!r}, which contains files. "
            f"To resume an unfinished run, run: zoo train --resume {path}"
        )


def new_path(folder: str, name: str) -> Path:
    """Return `<folder>/<name>/<time>-<4 hex>`."""
    now = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
    return Path(folder) / name / f"{now}-{secrets.token_hex(2)}"
