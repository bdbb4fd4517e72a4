"""Comparisons of given outputs; only the decision is under test."""

from __future__ import annotations

import numpy as np
import pytest


@pytest.fixture(scope="session")
def decide():
    """Compare outputs with a source's: `decide(outputs, source, labels, tolerance, task)` returns a Parity."""
    from export.core.runtime import Runtime, Tensor
    from export.core.tolerance import INT8_TOLERANCE
    from export.verification.parity import compare

    class Fake(Runtime):
        """A runtime with given outputs, by the number of the example."""

        def __init__(self, outputs, metadata):
            self.outputs_of, self.batch, self.metadata = outputs, None, metadata
            self.inputs = (Tensor("image", (None, 2), "float32"),)
            self.outputs = (Tensor("logits", (None, *outputs.shape[1:]), "float32"),)

        def __call__(self, images):
            return self.outputs_of[images[:, 0].astype(int)]

    def made(outputs, source, labels=None, tolerance=INT8_TOLERANCE, task="classify"):
        count, metadata = len(source), {"input": "image", "output": "logits", "task": task}
        samples = {"inputs": np.stack([np.arange(count), np.zeros(count)], 1).astype("float32"), "logits": source}
        samples |= {} if labels is None else {"labels": labels}
        return compare(Fake(outputs.astype("float32"), metadata), samples, tolerance, metadata)

    return made
