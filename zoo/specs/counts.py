"""What was counted once of each model that comes with the zoo, so that nobody has to build it to know."""

from __future__ import annotations

import copy
import functools
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

# Written by `make readme`; the tests count everything again.
FILE = Path(__file__).with_name("counts.json")
# Counts a model that has no record, by building it; `zoo.counts` provides it.
_counters: list[Callable[[Any], dict[str, Any]]] = []


def provide(counter: Callable[[Any], dict[str, Any]]) -> None:
    """Set what counts the models of plug-ins, `counter(spec)`."""
    _counters[:] = [counter]


def counts_of(spec: Any) -> dict[str, Any]:
    """Return what `zoo.summary.summarize` returns for a model with its default options.

    Args:
        spec: its `ModelSpec`. The models that come with the zoo are read from a file; another one is built once.
    """
    return copy.deepcopy(recorded()[spec.name] if spec.name in recorded() else _counters[0](spec))


@functools.cache
def recorded() -> dict[str, dict[str, Any]]:
    """Return the counts of all models that come with the zoo."""
    return json.loads(FILE.read_text(encoding="utf-8"))


def to_text(content: Mapping[str, dict[str, Any]]) -> str:
    """Return the counts of many models as JSON with one line for each, so that differences are readable."""
    lines = (f"{json.dumps(name)}: {json.dumps(content[name], allow_nan=False)}" for name in content)
    return "{\n" + ",\n".join(lines) + "\n}\n"
