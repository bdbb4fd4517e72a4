"""Compare the seconds to build a model with Keras, in turns in one process: `python benchmarks/building.py`."""

from __future__ import annotations

import json
import os
import statistics
import time
from collections.abc import Callable
from typing import Any

TURNS = 7
# Name, Keras' class, and the largest ratio to Keras' time.
MODELS = (("resnet50", "ResNet50", 0.8), ("vgg16", "VGG16", 0.5))


def seconds(build: Callable[[], Any]) -> float:
    """Return the seconds of one call."""
    start = time.perf_counter()
    build()
    return time.perf_counter() - start


def compare(name: str, keras_name: str) -> dict[str, float]:
    """Return median seconds: with random weights, without initialization for weights to load, and Keras'."""
    import keras

    import zoo
    from zoo.layers.lazy import layers

    def loading() -> None:
        with layers.skip_initialization():
            zoo.get(name)

    builders = {
        "random": lambda: zoo.get(name),
        "weights": loading,
        "keras": lambda: getattr(keras.applications, keras_name)(weights=None),
    }
    found: dict[str, list[float]] = {name_: [] for name_ in builders}
    for _ in range(TURNS + 1):
        for kind, build in builders.items():
            found[kind].append(seconds(build))
    # The first turn includes lazy imports.
    return {kind: statistics.median(times[1:]) for kind, times in found.items()}


if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    rows = {n: compare(n, k) | {"most": most} for n, k, most in MODELS}
    print(json.dumps(rows))
