"""Batch and layer normalization against Keras' own and float64, and the fused kernels they use."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf
from layer_pairs import NORM_SHAPE, TOLERANCE, close, draw, gradients_of, layer_pair, operations

import zoo


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("dtype", TOLERANCE)
def test_norm_is_keras_norm(dtype, training):
    """Outputs, gradients and moving statistics are Keras' own, in training and inference."""
    ours, theirs = layer_pair("BatchNormalization", NORM_SHAPE, dtype=dtype, momentum=0.9, epsilon=1e-5)
    values = draw(*NORM_SHAPE) * 3 + 1
    for actual, expected in zip(
        gradients_of(ours, values, training), gradients_of(theirs, values, training), strict=True
    ):
        close(actual, expected, TOLERANCE[dtype])


@pytest.mark.parametrize("options", [{"scale": False}, {"center": False}, {"scale": False, "center": False}])
@pytest.mark.parametrize("training", [True, False])
def test_norm_without_scale_or_offset(options, training):
    """The same without scale, without offset and without both."""
    ours, theirs = layer_pair("BatchNormalization", NORM_SHAPE, **options)
    values = draw(*NORM_SHAPE) * 3 + 1
    for actual, expected in zip(
        gradients_of(ours, values, training), gradients_of(theirs, values, training), strict=True
    ):
        close(actual, expected, 1e-5)


def furthest(actual, expected):
    """Largest difference of any tensor, as a fraction of its largest value."""
    pairs = [[np.asarray(tf.cast(v, "float64")) for v in pair] for pair in zip(actual, expected, strict=True)]
    return max(np.abs(a - b).max() / np.abs(b).max() for a, b in pairs)


@pytest.mark.parametrize("shape", [(64, 8, 8, 6), (64, 2, 2, 6), (4, 1, 1, 6)])
@pytest.mark.parametrize("spread", [3, 0.01])
@pytest.mark.parametrize("options", [{}, {"scale": False}])
def test_norm_is_that_of_float64(shape, spread, options):
    """Outputs, gradients and moving statistics are as exact as float32 is, as Keras' own are; another epsilon shows."""
    values = draw(*shape) * spread + spread
    _, exact = layer_pair("BatchNormalization", shape, dtype="float64", **options)
    expected = gradients_of(exact, values)
    for layer in layer_pair("BatchNormalization", shape, **options):
        assert furthest(gradients_of(layer, values), expected) <= 1e-5
    other, _ = layer_pair("BatchNormalization", shape, epsilon=2e-3, **options)
    assert furthest(gradients_of(other, values), expected) > 1e-5


def model_gradients(model, values, dtype):
    """The gradients of a model with two heads, for the labels 0 to 9 in turn."""
    labels = np.arange(len(values)) % 10
    with tf.GradientTape() as tape:
        logits = model(values.astype(dtype), training=True)
        losses = [keras.losses.sparse_categorical_crossentropy(labels, v, from_logits=True) for v in logits.values()]
        loss = tf.reduce_mean(losses)
    return tape.gradient(loss, [w.value for w in model.trainable_weights])


@pytest.mark.slow
def test_gradients_of_many_norms_match_float64(monkeypatch):
    """All gradients of 40 serial and parallel normalizations with smooth functions between them.

    Average pooling replaces max pooling: if two values of a window differ by a rounding error, the other one gets the
    gradient. As a control, weights that differ by 1e-2 fail.
    """
    monkeypatch.setattr(keras.layers, "MaxPooling2D", keras.layers.AveragePooling2D)
    keras.utils.set_random_seed(0)
    options = {"auxiliary": True, "activation": "silu", "dropout": 0.0, "input_shape": (16, 16, 1)}
    ours = zoo.get("inception_tiny", **options)
    exact = zoo.get("inception_tiny", dtype="float64", **options)
    weights = ours.get_weights()
    exact.set_weights(weights)
    values = draw(32, 16, 16, 1)
    found, expected = model_gradients(ours, values, "float32"), model_gradients(exact, values, "float64")
    assert furthest(found, expected) <= 1e-4
    ours.set_weights([1.01 * w for w in weights])
    assert furthest(model_gradients(ours, values, "float32"), expected) > 1e-3


def test_norm_of_a_single_value():
    """One value a channel has no variance, not a division by zero."""
    ours, theirs = layer_pair("BatchNormalization", (1, 1, 1, 6))
    for actual, expected in zip(
        gradients_of(ours, draw(1, 1, 1, 6)), gradients_of(theirs, draw(1, 1, 1, 6)), strict=True
    ):
        close(actual, expected, 1e-5)


def test_frozen_norm_uses_moving_averages():
    """With trainable=False a training call is inference, and moves nothing."""
    layer, _ = layer_pair("BatchNormalization", NORM_SHAPE)
    expected = layer(draw(*NORM_SHAPE), training=False)
    before = [w.numpy() for w in layer.weights]
    layer.trainable = False
    np.testing.assert_array_equal(layer(draw(*NORM_SHAPE), training=True), expected)
    for weight, value in zip(layer.weights, before, strict=True):
        np.testing.assert_array_equal(weight.numpy(), value)


@pytest.mark.parametrize(
    ("shape", "options"), [((8, 6), {}), ((8, 5, 6), {}), ((2, 3, 4, 5, 6), {}), (NORM_SHAPE, {"axis": 1})]
)
def test_norm_falls_back(shape, options):
    """Other ranks and another axis use Keras' operations, bit for bit."""
    ours, theirs = layer_pair("BatchNormalization", shape, **options)
    for actual, expected in zip(gradients_of(ours, draw(*shape)), gradients_of(theirs, draw(*shape)), strict=True):
        np.testing.assert_array_equal(actual, expected)
    assert "FusedBatchNormV3" not in operations(ours, shape)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(
    ("kind", "options"),
    [("BatchNormalization", {"renorm": True}), ("LayerNormalization", {"rms_scaling": True})],
)
def test_options_that_kernels_do_not_support(kind, options, training):
    """Renormalization and RMS scaling use Keras' own operations."""
    ours, theirs = layer_pair(kind, NORM_SHAPE, **options)
    values = draw(*NORM_SHAPE) * 3 + 1
    for actual, expected in zip(
        gradients_of(ours, values, training), gradients_of(theirs, values, training), strict=True
    ):
        close(actual, expected, 1e-6)


def test_norm_is_fused():
    """The graph of our layer has the fused kernel and its gradient, on bfloat16; Keras' own has not."""
    ours, theirs = layer_pair("BatchNormalization", NORM_SHAPE, dtype="mixed_bfloat16")
    assert {"FusedBatchNormV3", "FusedBatchNormGradV3"} <= operations(ours, NORM_SHAPE)
    assert "FusedBatchNormV3" not in operations(theirs, NORM_SHAPE)


def test_norm_reads_bfloat16():
    """The fused kernel is given the bfloat16 activations themselves, with float32 statistics."""
    layer, _ = layer_pair("BatchNormalization", NORM_SHAPE, dtype="mixed_bfloat16")
    step = tf.function(lambda x: layer(x, training=True))
    graph = step.get_concrete_function(tf.TensorSpec(NORM_SHAPE, "bfloat16")).graph.as_graph_def()
    [node] = [
        node
        for nodes in (graph.node, *(function.node_def for function in graph.library.function))
        for node in nodes
        if node.op == "FusedBatchNormV3"
    ]
    assert tf.dtypes.as_dtype(node.attr["T"].type) == tf.bfloat16
    assert tf.dtypes.as_dtype(node.attr["U"].type) == tf.float32


@pytest.mark.parametrize("shape", [pytest.param((4, 5, 6, 8), marks=pytest.mark.slow), (4, 7, 8)])
@pytest.mark.parametrize("dtype", ["float32", "mixed_bfloat16"])
def test_layer_norm_is_keras_layer_norm(shape, dtype):
    """Outputs and gradients are Keras' own, and there is no negation in the graph."""
    ours, theirs = layer_pair("LayerNormalization", shape, epsilon=1e-6, dtype=dtype)
    for actual, expected in zip(
        gradients_of(ours, 3 * draw(*shape) + 1), gradients_of(theirs, 3 * draw(*shape) + 1), strict=True
    ):
        close(actual, expected, TOLERANCE[dtype])
    step = tf.function(lambda x: ours(x)).get_concrete_function(tf.TensorSpec(shape))
    assert "Neg" not in {operation.type for operation in step.graph.get_operations()}


def test_layer_norm_over_other_axes_uses_keras():
    """Any other axis, and none of the weights."""
    for options in ({"axis": (1, 2)}, {"center": False, "scale": False}, {"axis": 1}):
        ours, theirs = layer_pair("LayerNormalization", (3, 4, 5), **options)
        close(ours(draw(3, 4, 5)), theirs(draw(3, 4, 5)), 1e-5)
