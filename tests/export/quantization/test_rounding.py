"""Learned rounding: on the grid, with less error in the outputs than rounding to nearest, and no other change."""

from __future__ import annotations

import numpy as np
import pytest

from export.quantization import rounding
from export.quantization.grid import LARGEST_CODE, round_to_nearest, scales_of
from export.quantization.rounding import Moments, layer_error, learn_rounding


def layer(groups, inputs, channels, seed=0):
    """A random kernel, and correlated inputs as between layers."""
    rng = np.random.default_rng(seed)
    kernel = rng.normal(size=(groups, inputs, channels))
    mixed = rng.normal(size=(groups, inputs, inputs)) / inputs**0.5 + 0.3
    return kernel, (rng.normal(size=(groups, 4000, inputs)) @ mixed + 0.5).astype("float32")


@pytest.mark.parametrize(("groups", "inputs", "channels", "least"), [
    (1, 40, 12, 0.5), (1, 300, 3, 0.5), (4, 18, 6, 0.7), (24, 9, 1, 0.8),
])  # fmt: skip
def test_the_outputs_change_less_than_by_rounding_to_nearest(groups, inputs, channels, least):
    """In no channel more, and much less in all together; on examples that nothing was learned on too."""
    kernel, examples = layer(groups, inputs, channels)
    seen, others = examples[:, :2000], examples[:, 2000:]
    learned = learn_rounding(kernel, Moments.of(seen, seen))
    nearest = round_to_nearest(kernel, scales_of(kernel)) * scales_of(kernel)
    matrix = Moments.of(seen, seen).damped()
    assert (layer_error(learned, kernel, matrix) <= layer_error(nearest, kernel, matrix)).all()
    errors = [np.var(others @ (changed - kernel), axis=1).sum() for changed in (learned, nearest)]
    assert errors[0] < least * errors[1]


def test_the_kernel_is_on_the_grid_that_is_read_from_it():
    """Whole codes up to 127, the same scales as before, and zeros that stay."""
    kernel, examples = layer(1, 40, 12)
    kernel[:, 10:20] = 0.0
    learned = learn_rounding(kernel, Moments.of(examples, examples))
    np.testing.assert_allclose(scales_of(learned), scales_of(kernel), rtol=1e-12)
    codes = learned / scales_of(kernel)
    np.testing.assert_allclose(codes, np.rint(codes), atol=1e-9)
    assert (abs(np.rint(codes)).max(axis=1) == LARGEST_CODE).all()
    assert not learned[:, 10:20].any()


def test_nothing_to_learn():
    """The control: where errors cannot cancel, each weight is rounded to nearest."""
    kernel, _ = layer(1, 40, 12)
    moments = Moments(np.zeros((1, 40)), np.zeros((1, 40)), np.eye(40)[None], np.eye(40)[None])
    expected = round_to_nearest(kernel, scales_of(kernel)) * scales_of(kernel)
    np.testing.assert_allclose(learn_rounding(kernel, moments), expected, atol=1e-12)


def test_the_error_of_earlier_layers_is_compensated():
    """If the quantized inputs are half as large, the kernel doubles, as far as its scales allow."""
    kernel, examples = layer(1, 30, 8)
    kernel[:, :1] = 10 * np.sign(kernel[:, :1])  # sets the scales, at an input that is always zero
    examples[..., 0] = 0.0
    learned = learn_rounding(kernel, Moments.of(examples, examples / 2))
    error = [np.var(examples / 2 @ changed - examples @ kernel, axis=1).sum() for changed in (learned, kernel)]
    assert error[0] < 0.01 * error[1]


def test_kernels_with_many_inputs_are_rounded_to_nearest(monkeypatch):
    """Their covariance would not fit into memory; the means for the biases are known all the same."""
    kernel, examples = layer(1, 40, 12)
    monkeypatch.setattr(rounding, "LARGEST_LEARNED", 39)
    moments = Moments.of(examples, examples)
    expected = round_to_nearest(kernel, scales_of(kernel)) * scales_of(kernel)
    np.testing.assert_array_equal(learn_rounding(kernel, moments), expected)
    np.testing.assert_allclose(moments.means, examples.mean(axis=1), rtol=1e-3)


def test_channels_without_weights():
    """A dead channel and a dead input stay zero, and nothing is divided by zero."""
    kernel, examples = layer(2, 12, 5)
    kernel[..., 3] = 0.0
    examples[..., 4] = 0.0
    learned = learn_rounding(kernel, Moments.of(examples, examples))
    assert np.isfinite(learned).all()
    assert not learned[..., 3].any()
    assert np.isfinite(learn_rounding(kernel, Moments.of(0 * examples, 0 * examples))).all()
