"""What was counted once of each model that comes with the zoo, so that nobody has to build it to know."""

from __future__ import annotations

import copy
import functools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from zoo.common.lazy import layers
from zoo.specs.registry import ModelSpec, models

# Written by `make readme`; the tests count everything again.
FILE = Path(__file__).with_name("specs") / "counts.json"


def facts(name: str) -> dict[str, Any]:
    """Return what `zoo.summary.summarize` says of a model with its default options.

    The models that come with the zoo are read from a file; another one is built to be counted.
    """
    return copy.deepcopy(_recorded()[name] if name in _recorded() else _counted(models[name].spec))


def count(name: str) -> dict[str, Any]:
    """Build a model, without drawing weights, and summarize it."""
    from zoo.build import Request, construct
    from zoo.summary import summarize

    with layers.weights_follow():
        return summarize(*construct(models[name], Request(), {}))


def to_text(content: Mapping[str, dict[str, Any]]) -> str:
    """Return the facts of many models as JSON with one line for each, so that differences are readable."""
    lines = (f"{json.dumps(name)}: {json.dumps(content[name], allow_nan=False)}" for name in content)
    return "{\n" + ",\n".join(lines) + "\n}\n"


@functools.cache
def _recorded() -> dict[str, dict[str, Any]]:
    return json.loads(FILE.read_text(encoding="utf-8"))


@functools.cache
def _counted(spec: ModelSpec) -> dict[str, Any]:
    # By the spec: a plug-in may register another network under a name that is free again.
    return count(spec.name)
