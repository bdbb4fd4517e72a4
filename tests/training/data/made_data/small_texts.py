"""Small texts of each task, their pipelines, and batches as arrays."""

from __future__ import annotations

import numpy as np

import zoo
from training import DataConfig, Dataset, ModelConfig, Recipe, TextConfig, register_dataset
from training.data.dataset import datasets, in_memory_split
from training.data.pipeline.opening import open_pipeline
from zoo.specs.text import SPECIAL

CATS = TextConfig((*SPECIAL, "the", "cat", "sat", "größe"))


MODELS = {"classify": "encoder_tiny", "tag": "tagger_tiny", "generate": "transformer_tiny"}
# What each task has of small data: texts and labels by split.
SMALL = {
    "classify": {
        "train": (["a b b c", "b a", "c b b", "a"], [0, 1, 1, 0]),
        "validation": (["b zebra", "zebra zebra a"], [1, 0]),
        "test": (["c", "a b", "b c"], [0, 1, 0]),
    },
    "tag": {
        "train": (["a b b c", "b a", "c b b", "a"], ["x y y x", "y x", "x y y", "x"]),
        "validation": (["b zebra", "zebra zebra a"], ["y x", "x y x"]),
        "test": (["c", "a b", "b c"], ["x", "x y", "y x"]),
    },
    "generate": {
        "train": (["a b b c", "b a", "c b b", "a"], ["c b b a", "a b", "d d", "a"]),
        "validation": (["b zebra", "zebra zebra a"], ["zebra b", "a zebra zebra"]),
        "test": (["c", "a b", "b c"], ["c", "b a", "c b"]),
    },
}
LABELS = {"classify": ("no", "yes"), "tag": ("x", "y"), "generate": ()}


def put(task, text=None, **splits):
    """Register small data of a task as "test_text"."""
    found = {name: in_memory_split(*lists) for name, lists in {**SMALL[task], **splits}.items()}
    datasets._entries.pop("test_text", None)
    made = Dataset("test_text", LABELS[task], (), found, text=text or TextConfig(), task=task)
    register_dataset("test_text")(lambda _: made)


def remove():
    """Unregister the small data."""
    datasets._entries.pop("test_text", None)
    datasets._origins.pop("test_text", None)


def served(task, text=None, model=None, **config):
    """Return the pipeline of the small data."""
    model = model or MODELS[task]
    config = {"length": (5,) if task != "generate" else (4, 5), "batch_size": 4, **config}
    return open_pipeline(Recipe("test", ModelConfig(model), DataConfig("test_text", **config)), zoo.spec(model), text)


def arrays(batches):
    """Return all batches as lists of arrays in a fixed order."""
    import tensorflow as tf

    return [[np.asarray(t) for t in tf.nest.flatten(batch)] for batch in batches]


def same(one, two):
    """Return whether two lists of batches are equal to the bit."""
    return len(one) == len(two) and all(
        len(a) == len(b) and all(x.dtype == y.dtype and np.array_equal(x, y) for x, y in zip(a, b, strict=True))
        for a, b in zip(one, two, strict=True)
    )
