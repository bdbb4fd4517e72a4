"""Parameters, multiply-adds and memory of a model, counted by building it."""

from __future__ import annotations

import functools
from typing import Any

from zoo.build import Request, construct
from zoo.layers.lazy import layers
from zoo.specs.counts import counts_of
from zoo.specs.registry import ModelSpec, models
from zoo.summary import summarize


def counts(name: str) -> dict[str, Any]:
    """Return what `zoo.summary.summarize` returns for a model with its default options."""
    return counts_of(models[name].spec)


def count(name: str) -> dict[str, Any]:
    """Build a model, without drawing weights, and summarize it."""
    with layers.weights_follow():
        return summarize(*construct(models[name], Request(), {}))


@functools.cache
def counted(spec: ModelSpec) -> dict[str, Any]:
    """Return what `count` returns, once for each model."""
    # By the spec: a plug-in may register another model under a name that is free again.
    return count(spec.name)
