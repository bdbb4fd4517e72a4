"""Seconds to build a network, ours and Keras', in turns in one process: `python benchmarks/building.py`."""

from __future__ import annotations

import json
import os
import statistics
import time
from collections.abc import Callable
from typing import Any

TURNS = 7
# Ours, Keras' class, and the share of Keras' time that we promise.
NETWORKS = (("resnet50", "ResNet50", 0.8), ("vgg16", "VGG16", 0.5))


def seconds(build: Callable[[], Any]) -> float:
    """Return how long one call takes."""
    start = time.perf_counter()
    build()
    return time.perf_counter() - start


def compare(name: str, keras_name: str) -> dict[str, float]:
    """Return medians: ours with random weights, ours as it is built for weights that follow, Keras'."""
    import keras

    import zoo
    from zoo.layers.lazy import layers

    def loading() -> None:
        with layers.weights_follow():
            zoo.get(name)

    ways = {
        "random": lambda: zoo.get(name),
        "weights": loading,
        "keras": lambda: getattr(keras.applications, keras_name)(weights=None),
    }
    found: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(TURNS + 1):
        for way, build in ways.items():
            found[way].append(seconds(build))
    # The first turn imports what is lazy.
    return {way: statistics.median(times[1:]) for way, times in found.items()}


if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    rows = {n: compare(n, k) | {"most": most} for n, k, most in NETWORKS}
    print(json.dumps(rows))
