"""Our layers beside Keras' own with the same weights: their outputs, gradients and operations."""

from __future__ import annotations

import keras
import numpy as np
import tensorflow as tf

from zoo.layers import core

# Fractions of the largest value. bfloat16 keeps 8 bits of a number and float16 11: the kernels sum in another order,
# and an output or gradient that is rounded once more is off by up to one unit in the last place.
TOLERANCE = {"float32": 1e-5, "mixed_bfloat16": 1e-2, "mixed_float16": 2e-3, "bfloat16": 2e-2, "float16": 2e-3}


def close(actual, expected, tolerance):
    """Assert equal shapes and dtypes, and that no value differs by more than this fraction of the largest."""
    assert actual.dtype == expected.dtype
    actual, expected = (np.asarray(tf.cast(v, "float64")) for v in (actual, expected))
    assert actual.shape == expected.shape
    assert np.abs(actual - expected).max() <= tolerance * max(np.abs(expected).max(), 1e-3)


def draw(*shape, seed=0):
    """Standard normal values."""
    return np.random.default_rng(seed).standard_normal(shape).astype("float32")


def layer_pair(kind, shape, **options):
    """Our layer and Keras' own with the same weights, none of them trivial."""
    pair = getattr(core, kind)(**options), getattr(keras.layers, kind)(**options)
    for layer in pair:
        layer.build((None, *shape[1:]))
    for number, (ours, theirs) in enumerate(zip(*(layer.weights for layer in pair), strict=True)):
        value = 0.5 + np.abs(draw(*ours.shape, seed=number)) if len(ours.shape) == 1 else draw(*ours.shape, seed=number)
        ours.assign(value)
        theirs.assign(value)
    return pair


def gradients_of(layer, values, training=True):
    """Return outputs, the gradients of the input and of each weight, and the non-trainable weights."""
    x = tf.cast(values, layer.compute_dtype)
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = layer(x, training=training)
        loss = tf.reduce_sum(tf.cast(y, "float32") * draw(*y.shape, seed=9))
    weights = [w.value for w in layer.trainable_weights]
    return [y, *tape.gradient(loss, [x, *weights]), *(w.value for w in layer.non_trainable_weights)]


def operations(layer, shape, training=True, dtype=None):
    """Names of the operations in the graph of a forward and a backward pass of inputs of this shape."""

    @tf.function(autograph=False)
    def step(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = layer(x, training=training)
        return y, tape.gradient(y, [x, *(w.value for w in layer.trainable_weights)])

    spec = tf.TensorSpec((None, *shape[1:]), dtype or layer.compute_dtype)
    graph = step.get_concrete_function(spec).graph.as_graph_def()
    inner = [node for function in graph.library.function for node in function.node_def]
    return {node.op for node in [*graph.node, *inner]}


NORM_SHAPE = (8, 5, 7, 6)
