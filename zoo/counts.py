"""Multiply-adds, memory, feature maps and stages of a model, counted by building it."""

from __future__ import annotations

import functools
from typing import Any

from zoo.build import Request, construct
from zoo.layers.lazy import layers
from zoo.specs.counts import counts_of
from zoo.specs.registry import ModelSpec, models
from zoo.summary import summarize


def counts(name: str) -> dict[str, Any]:
    """Return the summary (see `zoo.summary.summarize`) of a model with its default options."""
    return counts_of(models[name].spec)


def count(name: str) -> dict[str, Any]:
    """Build a model without initializing its weights, and summarize it."""
    with layers.skip_initialization():
        return summarize(*construct(models[name], Request(), {}))


@functools.cache
def cached_count(spec: ModelSpec) -> dict[str, Any]:
    """Return the summary of `count`, computed once per model."""
    # Cached by spec, not by name: a plug-in may register another model under the name of a removed one.
    return count(spec.name)
