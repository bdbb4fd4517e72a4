"""Latency of a network's artifacts at batch 1, and how long each export takes: `inference.py MODEL [PEER.onnx]`.

The weights are random, which changes neither; parity is the tests' concern. With the ONNX file of a peer, which takes
images (1, 3, height, width), its latency in ONNX Runtime is measured in the same turns.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

import zoo
from export._format import formats
from export._latency import measure
from export._source import Source

# What a graph computes its shapes by, where sizes are not static.
DYNAMIC = ("Shape", "ReduceProd", "ConstantOfShape")


class Peer:
    """Someone else's ONNX file in ONNX Runtime, with the options that ours runs with."""

    def __init__(self, path: str, threads: int) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        self._session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        (self._input,) = self._session.get_inputs()

    def step(self, images: np.ndarray) -> None:
        """Run once on as many random pixels."""
        values = np.zeros((1, 3, *images.shape[1:3]), "float32")
        self._session.run(None, {self._input.name: values})


def shapes_computed(path: Path) -> dict[str, int]:
    """Return how many operations an ONNX file has that only a shape needs."""
    import onnx

    return dict(Counter(node.op_type for node in onnx.load(path).graph.node if node.op_type in DYNAMIC))


def main(name: str, *peer: str) -> None:
    """Write every format, load each in its runtime, and time one call in turns."""
    spec = zoo.spec(name)
    images = np.random.default_rng(0).integers(0, 256, (16, *spec.input_shape)).astype("float32")
    seconds, threads = {}, os.cpu_count() or 1
    with tempfile.TemporaryDirectory() as folder:
        labels = [str(i) for i in range(spec.classes)]
        source = Source(zoo.get(name), spec.preprocessing, labels, lambda: images, Path(folder))
        for fmt in ("onnx", "tflite", *formats.names(exclude=("onnx", "tflite"))):
            start = time.perf_counter()
            source.shared(fmt)
            seconds[fmt] = time.perf_counter() - start
        runtimes: dict[str, Any] = {n: formats[n].load(source.shared(n), threads=threads) for n in formats.names()}
        latency = measure(runtimes | {f"peer {Path(p).name}": Peer(p, threads) for p in peer}, images)
        shapes = shapes_computed(source.shared("onnx"))
    print(json.dumps({"latency": latency, "export": seconds, "shapes": shapes}))


if __name__ == "__main__":
    main(*sys.argv[1:])
