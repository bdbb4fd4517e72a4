"""Recorded summaries of the zoo's models, so that listing and describing them builds nothing."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

# `make readme` writes this file; the tests recompute every count.
FILE = Path(__file__).with_name("counts.json")
# The function that counts a model without a record; `zoo` sets it to `zoo.counts.cached_count`.
_counters: list[Callable[[Any], dict[str, Any]]] = []


def set_counter(counter: Callable[[Any], dict[str, Any]]) -> None:
    """Set the function `counter(spec)` that counts the models of plug-ins."""
    _counters[:] = [counter]


def counts_of(spec: Any) -> dict[str, Any]:
    """Return the summary (see `zoo.summary.summarize`) of a model with its default options.

    Args:
        spec: its `ModelSpec`. Counts of the zoo's models are read from a file; a plug-in's model is built once.
    """
    return copy.deepcopy(recorded()[spec.name] if spec.name in recorded() else _counters[0](spec))


@functools.cache
def recorded() -> dict[str, dict[str, Any]]:
    """Return the recorded counts of all models of the zoo."""
    # Listing the models needs no counts.
    import json

    return json.loads(FILE.read_text(encoding="utf-8"))


def to_text(content: Mapping[str, dict[str, Any]]) -> str:
    """Return the counts of many models as JSON with one line per model, so that diffs are readable."""
    import json

    lines = (f"{json.dumps(name)}: {json.dumps(content[name], allow_nan=False)}" for name in content)
    return "{\n" + ",\n".join(lines) + "\n}\n"
