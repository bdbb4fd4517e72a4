"""Names of the classes of public data sets, in the order of the logits: files next to this module."""

from __future__ import annotations

import functools
from pathlib import Path

# Files by data set; each names its origin and license in its comments.
FILES = {"imagenet-1k": "imagenet_1k.txt"}


@functools.cache
def class_names(data_set: str | None) -> tuple[str, ...] | None:
    """Return the names that people know for the classes of a data set, such as "tabby cat"; None if they are not known.

    Args:
        data_set: its name, such as "imagenet-1k".
    """
    if data_set not in FILES:
        return None
    lines = Path(__file__).with_name(FILES[data_set]).read_text(encoding="utf-8").splitlines()
    return tuple(line for line in lines if not line.startswith("#"))
