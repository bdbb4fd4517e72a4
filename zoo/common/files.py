"""Files that are whole or not there: written beside their place, synced, then renamed."""

from __future__ import annotations

import json
import math
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from zoo.common.errors import RunError


def write_atomic(path: Path, write: Callable[[Path], None]) -> None:
    """Let `write` write a temporary neighbour of `path` and move it into place.

    Raises:
        RunError: the disk is full or cannot be written; what stood at `path` is untouched.
    """
    # The suffix stays, because writers such as Keras' look at it.
    beside = path.with_name(f".writing-{os.getpid()}-{path.name}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(beside)
        _sync(beside)
        os.replace(beside, path)
        _sync(path.parent)
    except OSError as error:
        raise _write_error(path, error) from error
    finally:
        beside.unlink(missing_ok=True)


def _write_error(path: Path, error: OSError) -> RunError:
    """Return one line that says what could not be written and why."""
    reason = error.strerror or str(error)
    return RunError(
        f"Could not write {path}: {reason}. What was there before is untouched. "
        "Make room or choose another place, then go on."
    )


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file whole or not at all."""
    write_atomic(path, lambda beside: _write_all(beside, content))


def _write_all(path: Path, content: bytes) -> None:
    path.write_bytes(content)


def write_json(path: Path, content: Any) -> None:
    """Write JSON whole or not at all; numbers that are not finite become null, as JSON knows none."""
    write_bytes(path, to_json(content).encode())


def to_json(content: Any) -> str:
    """Return strict, indented JSON, with null for numbers that are not finite."""
    return json.dumps(finite(content), indent=2, allow_nan=False, ensure_ascii=False) + "\n"


def finite(value: Any) -> Any:
    """Return JSON-safe values with None for numbers that are not finite."""
    if isinstance(value, dict):
        return {key: finite(v) for key, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def read_json(path: Path) -> Any:
    """Read JSON, or raise RunError in one line."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RunError(f"Expected a readable JSON file. Received: {path}: {error}") from error


def _sync(path: Path) -> None:
    """Make sure that a file or folder has reached the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """Give a temporary neighbour to fill; it becomes `path` if all went well and vanishes otherwise."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = Path(tempfile.mkdtemp(prefix=f".writing-{path.name}-", dir=path.parent))
    beside.chmod(0o755)
    try:
        yield beside
        _exchange(beside, path)
    except OSError as error:
        if isinstance(error, RunError):
            raise
        raise _write_error(path, error) from error
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def _exchange(new: Path, path: Path) -> None:
    """Put a folder in the place of another, which is removed afterwards."""
    if not path.exists():
        os.replace(new, path)
        return
    old = path.with_name(f".replaced-{new.name}")
    os.replace(path, old)
    os.replace(new, path)
    shutil.rmtree(old, ignore_errors=True)
