"""Pipelines of the digits, and their batches, in memory and streamed."""

from __future__ import annotations

import numpy as np

import training.data.pipeline.pipeline as pipeline_module
import zoo
from training import DataConfig, ModelConfig, Recipe
from training.data.pipeline.opening import open_pipeline


def digits(seed=1, model="resnet_tiny", **data):
    """Return the pipeline of the digits for a recipe with this seed."""
    recipe = Recipe("test", model=ModelConfig(model), data=DataConfig("digits", **data), seed=seed)
    return open_pipeline(recipe, zoo.spec(model))


def streaming(monkeypatch, buffer=10_000):
    """Stream everything: nothing fits into memory."""
    monkeypatch.setattr(pipeline_module, "MEMORY", 0)
    monkeypatch.setattr(pipeline_module, "SHUFFLE", buffer)


def batches(dataset):
    """Return (x, y) of all batches."""
    return [(np.asarray(x), np.asarray(y)) for x, y in dataset]


def same(one, two):
    """Return whether two lists of batches are equal to the bit."""
    return len(one) == len(two) and all(
        np.array_equal(x1, x2) and np.array_equal(y1, y2) for (x1, y1), (x2, y2) in zip(one, two, strict=True)
    )
