"""Negative controls: a trained model with a fault in one layer is refused as int8, at any number of examples."""

from __future__ import annotations

import numpy as np
import pytest

from export.core.tolerance import INT4_TOLERANCE, INT8_TOLERANCE, INT16_TOLERANCE
from export.verification.measures import CLASSIFICATION

pytestmark = pytest.mark.tensorflow
COUNTS = (16, 43, 360)


@pytest.fixture(scope="module")
def trained_model(digits_run):
    """The model, its test examples, and which kernels may have a fault."""
    from training.learning.evaluation import load_model, open_data

    model, data = load_model(digits_run), open_data(digits_run)
    raw, labels = data.raw("test", 360)
    inputs = np.asarray(data.encoder.prepare(raw, labels)[0])
    kernels = [v for v in model.weights if v.path.endswith("kernel") and len(v.shape) == 4]
    return model, inputs, labels, model.predict(inputs, verbose=0), kernels


def random(kernel):
    return np.random.default_rng(0).normal(size=kernel.shape) * kernel.std() + kernel.mean()


def permuted(kernel):
    return np.random.default_rng(0).permutation(kernel.ravel()).reshape(kernel.shape)


def shifted_channels(kernel):
    return np.roll(kernel, 1, axis=-1)


def lost(kernel):
    return np.zeros_like(kernel)


def mirrored(kernel):
    return kernel[::-1, ::-1]


def negated(kernel):
    return -kernel


FAULTS = (random, permuted, shifted_channels, lost, mirrored, negated)


def refused(decide, outputs, source, labels, tolerance):
    """Return whether outputs are refused, with labels and without, for each number of examples."""
    return [
        not decide(outputs[:count], source[:count], given if given is None else given[:count], tolerance).passed
        for count in COUNTS
        for given in (labels, None)
    ]


@pytest.mark.parametrize(
    "fault", [pytest.param(f, marks=() if f in (random, shifted_channels) else pytest.mark.slow) for f in FAULTS]
)
def test_a_fault_in_any_layer_is_refused(decide, trained_model, fault):
    """In each convolution in turn; with and without labels, at 16, 43 and 360 examples, under each tolerance."""
    model, inputs, labels, source, kernels = trained_model
    for kernel in kernels:
        original = kernel.numpy()
        kernel.assign(fault(original))
        outputs = model.predict(inputs, verbose=0)
        kernel.assign(original)
        for tolerance in (INT8_TOLERANCE, INT16_TOLERANCE, INT4_TOLERANCE):
            assert all(refused(decide, outputs, source, labels, tolerance)), (kernel.path, tolerance)


def test_rounded_weights_pass(decide, trained_model):
    """The control: the same model with 8-bit kernels, at each number of examples."""
    model, inputs, labels, source, kernels = trained_model
    originals = [kernel.numpy() for kernel in kernels]
    for kernel, original in zip(kernels, originals, strict=True):
        scale = np.abs(original).max((0, 1, 2)) / 127
        kernel.assign(np.rint(original / scale) * scale)
    outputs = model.predict(inputs, verbose=0)
    for kernel, original in zip(kernels, originals, strict=True):
        kernel.assign(original)
    assert not any(refused(decide, outputs, source, labels, INT8_TOLERANCE))
    assert CLASSIFICATION.snr(outputs, source) > 20
