"""Latency of ResNet-50's artifacts at 224 px, batch 1, and the seconds that each export takes.

The weights are random, which changes neither; parity is the tests' concern.
"""

from __future__ import annotations

import json
import os
import tempfile
import time
from pathlib import Path

import numpy as np

import zoo
from export._format import formats
from export._latency import measure
from export._source import Source
from zoo._preprocessing import IMAGENET


def main() -> None:
    """Write every format, load each in its runtime, and time one call in turns."""
    images = np.random.default_rng(0).integers(0, 256, (16, 224, 224, 3)).astype("float32")
    network = zoo.get("resnet50")
    seconds = {}
    with tempfile.TemporaryDirectory() as folder:
        source = Source(network, IMAGENET, [str(i) for i in range(1000)], lambda: images, Path(folder))
        for name in ("onnx", "tflite", *formats.names(exclude=("onnx", "tflite"))):
            start = time.perf_counter()
            source.shared(name)
            seconds[name] = time.perf_counter() - start
        runtimes = {n: formats[n].load(source.shared(n), threads=os.cpu_count()) for n in formats.names()}
        latency = measure(runtimes, images)
    print(json.dumps({"latency": latency, "export": seconds}))


if __name__ == "__main__":
    main()
