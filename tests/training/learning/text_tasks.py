"""One model and one dataset of texts for each task: recipes, compiled models, batches, and losses by hand."""

from __future__ import annotations

import functools
import math

import numpy as np
import pytest

import zoo
from training import DataConfig, ModelConfig, OptimizerConfig, Recipe
from training.data.pipeline.opening import open_pipeline
from training.learning.build import build_model, compile_model

# One model and one dataset for each task.
KINDS = {
    "classify": ("encoder_tiny", "word_order"),
    "tag": ("tagger_tiny", "word_roles"),
    "generate": ("transformer_tiny", "reverse"),
}
LENGTHS = {"classify": (20,), "tag": (20,), "generate": (12, 13)}


def recipe(task, **changes):
    """Return a recipe of a task: one model, one epoch."""
    model, data = KINDS[task]
    given = {
        "model": ModelConfig(model),
        "data": DataConfig(data, batch_size=8, length=LENGTHS[task]),
        "optimizer": OptimizerConfig("adam", learning_rate=1e-3),
        "epochs": 1,
        "precision": "float32",
        "strategy": "one",
    }
    return Recipe("test", **{**given, **changes})


@functools.cache
def served(task):
    """Return the pipeline of a task."""
    made = recipe(task)
    return open_pipeline(made, zoo.spec(made.model.name))


@functools.cache
def first_batch(task):
    """Return the first training batch of a task."""
    return next(iter(served(task).train(0)))


def compiled(task, jit_compile=False, **changes):
    """Return the compiled model of a task, and its first batch; the changes are not those of its data."""
    made = recipe(task, **changes)
    model = build_model(made, served(task))
    compile_model(model, made, served(task), jit_compile)
    return model, first_batch(task)


def by_hand(task, labels, logits, smoothing=0.0):
    """Return (losses, whether right) of all tokens without padding, token by token in float64."""
    losses, right = [], []
    for sequence, scores in zip(np.asarray(labels), np.asarray(logits, "float64"), strict=True):
        for label, score in zip(sequence, scores, strict=True):
            if not np.any(label):
                continue
            truth = int(label.argmax()) if task == "tag" else int(label)
            log_softmax = score - score.max() - math.log(np.exp(score - score.max()).sum())
            losses.append(-(1 - smoothing) * log_softmax[truth] - smoothing * log_softmax.mean())
            right.append(score.argmax() == truth)
    return losses, right


def batch(task, seed=0, count=4, length=6, classes=5):
    """Return labels with padding at the end, and logits."""
    draw = np.random.default_rng(seed)
    ids = draw.integers(1, classes, (count, length))
    for row, real in zip(ids, draw.integers(1, length, count), strict=True):
        row[real:] = 0
    ids[0, 0] = 1
    labels = np.eye(classes, dtype="float32")[ids] * (ids > 0)[..., None] if task == "tag" else ids.astype("int32")
    return labels, draw.normal(size=(count, length, classes)).astype("float32") * 3


sequences = pytest.mark.parametrize("task", ["tag", "generate"])
