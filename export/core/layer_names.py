"""The operators of a layer in files of every runtime, by their names."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable


def layer_pattern(name: str) -> str:
    """Return the regular expression that matches the operators of a layer in files of every runtime.

    An operator has the name of its output, MODEL/LAYER/operation;MODEL/OTHER/operation if several were fused, and Keras
    may number the scope of a layer.
    """
    return rf"(^|.*[/;]){re.escape(name)}(_\d+)?([/;].*|$)"


def matching(names: Iterable[str], layers: Collection[str]) -> list[str]:
    """Return the names of operators that belong to layers."""
    patterns = [re.compile(layer_pattern(layer)) for layer in layers]
    return [name for name in names if any(pattern.match(name) for pattern in patterns)]
