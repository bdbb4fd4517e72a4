"""Activations, scales, dropped weights and local response normalization against Keras' own and formulas."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf
from layer_pairs import TOLERANCE, close, draw, gradients_of, layer_pair, operations

import zoo
from zoo.common.errors import BadOption
from zoo.layers import core


@pytest.mark.parametrize("dtype", ["float32", "mixed_bfloat16"])
def test_gelu_is_keras_gelu(dtype):
    """The exact GELU and its gradient; in float32 without the operation that ONNX does not have."""
    ours, theirs = layer_pair("Activation", (4, 5, 6), activation="gelu", dtype=dtype)
    values = 3 * draw(4, 5, 6)
    for training, tolerance in ((True, TOLERANCE[dtype]), (False, TOLERANCE[dtype] / 10)):
        for actual, expected in zip(
            gradients_of(ours, values, training), gradients_of(theirs, values, training), strict=True
        ):
            close(actual, expected, tolerance)
    assert ("Erfc" in operations(ours, (4, 5, 6), training=False)) == (dtype != "float32")


def test_other_activations_are_keras_own():
    """Other activations than the exact GELU are unchanged."""
    for name in ("relu", "silu", "tanh", "relu6"):
        ours, theirs = layer_pair("Activation", (4, 5), activation=name)
        assert operations(ours, (4, 5)) == operations(theirs, (4, 5))


def lrn_by_hand(x, radius=2, bias=2.0, alpha=1e-4, beta=0.75):
    """Section 3.3 of the paper, channel by channel."""
    y = np.empty_like(x)
    for i in range(x.shape[-1]):
        near = x[..., max(0, i - radius) : i + radius + 1]
        y[..., i] = x[..., i] / (bias + alpha * (near**2).sum(-1)) ** beta
    return y


@pytest.mark.parametrize("options", [{}, {"alpha": 0.5, "bias": 1.0}, {"radius": 1, "beta": 0.5, "alpha": 0.1}])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("dtype", ["float32", "mixed_bfloat16"])
def test_local_response_normalization(options, training, dtype):
    """It is the paper's formula, in training, where it is one operation, as in inference."""
    x = 5 * draw(2, 3, 4, 7)
    layer = core.LocalResponseNormalization(dtype=dtype, **options)
    close(tf.cast(layer(x, training=training), "float32"), lrn_by_hand(x, **options), 2 * TOLERANCE[dtype])


def test_layer_scale():
    """Each channel is multiplied by its own scale, which starts at the given value."""
    layer = core.LayerScale(0.5)
    np.testing.assert_array_equal(layer(draw(2, 3, 4)), 0.5 * draw(2, 3, 4))
    layer.gamma.assign([1.0, 2.0, 3.0, 4.0])
    np.testing.assert_array_equal(layer(draw(2, 3, 4)), draw(2, 3, 4) * np.array([1, 2, 3, 4], "float32"))
    assert core.LayerScale.from_config(layer.get_config()).initial == 0.5


@pytest.mark.parametrize("dtype", ["float32", "mixed_bfloat16"])
def test_drop_connect(dtype):
    """Training sets a fraction of the weights to 0 and scales the others up; inference uses all weights."""
    ours, theirs = layer_pair("Dense", (4, 50), units=40, dtype=dtype)
    close(ours(draw(4, 50)), theirs(draw(4, 50)), 1e-6)
    layer = core.DropConnectDense(40, drop_connect=0.25, use_bias=False, dtype=dtype)
    layer.build((None, 50))
    layer.kernel.assign(np.ones((50, 40)))
    kernel = np.asarray(tf.cast(layer(np.eye(50, dtype="float32"), training=True), "float32"))
    assert set(np.unique(kernel)) == {0.0, np.float32(tf.cast(tf.cast(1 / 0.75, layer.compute_dtype), "float32"))}
    assert 0.2 < (kernel == 0).mean() < 0.3
    assert (np.asarray(layer(np.eye(50, dtype="float32"))) == 1).all()


def test_skip_initialization():
    """Kernels start at zero inside, and are drawn again afterwards, also after an error."""
    with core.skip_initialization():
        assert not np.any(zoo.get("mlp_tiny").get_layer("dense1").kernel.numpy())
    with pytest.raises(BadOption), core.skip_initialization():
        zoo.get("mlp_tiny", depth=-1)
    model = zoo.get("mlp_tiny")
    assert np.all(model.get_layer("dense1").kernel.numpy() != 0)
    assert keras.Model.from_config(model.get_config()).get_layer("dense1").kernel.numpy().any()
