"""Digests of files, computed once while neither the time nor the size of a file changes."""

from __future__ import annotations

import functools
import hashlib
import re
from pathlib import Path
from typing import Any


def digest(path: Path, kind: str = "sha256") -> str:
    """Return the digest of a file in hexadecimal.

    Args:
        path: the file.
        kind: "sha256", "md5", or "git", the name that git gives to the content.
    """
    stored = path.resolve()
    status = stored.stat()
    return _digest(stored, status.st_mtime_ns, status.st_size, kind)


def digest_kind(text: str) -> str:
    """Return the kind of a digest by its length: "sha256", "git" or "md5"; "" for none of these."""
    lengths = {64: "sha256", 40: "git", 32: "md5"}
    return lengths.get(len(text), "") if re.fullmatch(r"[0-9a-f]+", text) else ""


@functools.cache
def _digest(path: Path, modified: int, size: int, kind: str) -> str:
    """Return the digest of a file of this time and size."""
    del modified
    # Neither md5 nor git's SHA-1 is secure against an attacker; both reveal damage.
    state = hashlib.new({"git": "sha1"}.get(kind, kind), usedforsecurity=kind == "sha256")
    if kind == "git":
        state.update(b"blob %d\0" % size)
    with path.open("rb") as file:
        return _updated(state, file).hexdigest()


def _updated(state: Any, file: Any) -> Any:
    for block in iter(lambda: file.read(1 << 20), b""):
        state.update(block)
    return state
