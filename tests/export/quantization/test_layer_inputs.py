"""Kernels as matrices: what they multiply gives the outputs of the layer, for every kind of layer."""

from __future__ import annotations

import numpy as np
import pytest

from export.quantization.layer_inputs import input_rows, is_supported, kernel_from_matrices, kernel_matrices
from zoo.common.lazy import keras

SHAPE = (2, 9, 10, 4)


@pytest.mark.parametrize(("kind", "options"), [
    ("Conv2D", {"filters": 6, "kernel_size": 1}),
    ("Conv2D", {"filters": 6, "kernel_size": 3, "strides": 2, "padding": "same"}),
    ("Conv2D", {"filters": 6, "kernel_size": (3, 2), "strides": (1, 2), "padding": "valid"}),
    ("Conv2D", {"filters": 6, "kernel_size": 3, "dilation_rate": 2, "padding": "same"}),
    ("Conv2D", {"filters": 6, "kernel_size": 3, "groups": 2}),
    ("DepthwiseConv2D", {"kernel_size": 3, "strides": 2, "padding": "same"}),
    ("DepthwiseConv2D", {"kernel_size": 3, "depth_multiplier": 2}),
    ("Dense", {"units": 5}),
])  # fmt: skip
def test_rows_times_kernel_are_the_outputs(kind, options):
    """At every position, in order, and back to the kernel."""
    layer = getattr(keras.layers, kind)(use_bias=False, **options)
    inputs = np.random.default_rng(0).normal(size=SHAPE).astype("float32")
    outputs = np.asarray(layer(inputs))
    matrices = kernel_matrices(layer)
    found = input_rows(layer, inputs) @ matrices
    np.testing.assert_allclose(found.transpose(1, 0, 2).reshape(outputs.shape), outputs, atol=1e-5)
    np.testing.assert_array_equal(kernel_from_matrices(layer, matrices), np.asarray(layer.kernel))


def test_large_maps_are_sampled():
    """At most 8,192 positions, the same for the same seed."""
    layer = keras.layers.Conv2D(2, 1)
    inputs = np.random.default_rng(0).normal(size=(4, 60, 60, 3)).astype("float32")
    layer(inputs)
    rows = input_rows(layer, inputs)
    assert rows.shape == (1, 8192, 3)
    np.testing.assert_array_equal(rows, input_rows(layer, inputs))
    assert (rows != input_rows(layer, inputs, seed=1)).any()


def test_other_layers_keep_their_kernels():
    """Transposed convolutions and channels first are no such matrices."""
    assert is_supported(keras.layers.Dense(2))
    assert not is_supported(keras.layers.Conv2DTranspose(2, 1))
    assert not is_supported(keras.layers.Conv2D(2, 1, data_format="channels_first"))
    assert not is_supported(keras.layers.ReLU())
