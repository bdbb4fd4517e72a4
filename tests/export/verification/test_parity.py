"""The comparison of an artifact's outputs with those of its source."""

from __future__ import annotations

import numpy as np
import pytest

from export.core.runtime import Runtime, Tensor
from export.core.tolerance import Tolerance
from export.verification.parity import compare, require
from zoo.common.errors import ParityError


class Fake(Runtime):
    """A runtime with given logits; only the comparison is under test here."""

    def __init__(self, logits, name="image", batch=None):
        self.logits, self.batch, self.metadata = logits, batch, EXPECTED
        self.inputs = (Tensor(name, (batch, 2), "float32"),)
        self.outputs = (Tensor("logits", (batch, 3), "float32"),)

    def __call__(self, images):
        return self.logits[images[:, 0].astype(int)]


EXPECTED = {"input": "image", "output": "logits"}
LOGITS = np.array([[3.0, 0, 0], [0, 3, 0], [0, 0, 3], [3, 0, 0]], "float32")
SAMPLE = {"inputs": np.stack([np.arange(4.0), np.zeros(4)], 1), "labels": np.array([0, 1, 2, 0]), "logits": LOGITS}


@pytest.mark.parametrize(("logits", "passes"), [
    (LOGITS, True),
    (LOGITS + 1e-5, True),
    (LOGITS + 1e-2, False),
    (LOGITS[:, ::-1], False),
    (np.full_like(LOGITS, np.nan), False),
    (np.where(LOGITS == 3, np.inf, LOGITS), False),
])  # fmt: skip
def test_comparison(logits, passes):
    """Small differences pass; large ones, other predictions, NaN and infinity fail."""
    parity = compare(Fake(np.ascontiguousarray(logits)), SAMPLE, Tolerance(1e-4, 1.0, 0.0), EXPECTED)
    assert parity.passed is passes
    if not passes:
        with pytest.raises(ParityError, match="fake failed verification on 4 examples"):
            require(parity, "fake")


def test_comparison_sees_accuracy_and_agreement():
    """A wide tolerance on logits does not hide a wrong prediction."""
    wrong = LOGITS.copy()
    wrong[3] = [0, 1, 0]
    parity = compare(Fake(wrong), SAMPLE, Tolerance(10.0, 0.5, 0.1), EXPECTED)
    assert (parity.accuracy, parity.agreement, parity.passed) == (0.75, 0.75, False)
    assert compare(Fake(wrong), SAMPLE, Tolerance(10.0, 0.5, 0.25), EXPECTED).passed
    assert not compare(Fake(wrong), SAMPLE, Tolerance(10.0, 0.8, 1.0), EXPECTED).passed


@pytest.mark.parametrize("change", [
    lambda r: setattr(r, "inputs", (Tensor("x", (None, 2), "float32"),)),
    lambda r: setattr(r, "outputs", (Tensor("logits", (None, 4), "float32"),)),
    lambda r: setattr(r, "metadata", None),
    lambda r: setattr(r, "logits", r.logits[:, :2]),
])  # fmt: skip
def test_comparison_sees_names_shapes_and_metadata(change):
    """Another name, another size or missing metadata fails verification."""
    runtime = Fake(LOGITS)
    change(runtime)
    with pytest.raises(ParityError):
        compare(runtime, SAMPLE, Tolerance(1e-4, 1.0, 0.0), EXPECTED)
