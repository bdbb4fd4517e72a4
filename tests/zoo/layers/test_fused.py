"""Fused kernels for training transformers on CPU: the same functions and gradients, in fewer operations."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

import zoo
from zoo.layers import bfloat16, core, fused
from zoo.layers.lazy import sequence

# float32 sums in another order; bfloat16 keeps 8 bits, and results are rounded once, some of them from rounded factors.
TOLERANCE = {"float32": 1e-5, "bfloat16": 1e-2}
every_dtype = pytest.mark.parametrize("dtype", TOLERANCE)


def draw(*shape, seed=0, dtype="float32"):
    """Standard normal values, as exact in float64 as in `dtype`."""
    values = np.random.default_rng(seed).standard_normal(shape).astype("float32")
    return np.asarray(tf.cast(tf.cast(values, dtype), "float64"))


def outputs_and_gradients(function, *values, dtype="float64"):
    """The output of a function and the gradients of all its arguments, for one upstream gradient."""
    tensors = [tf.cast(v, dtype) for v in values]
    with tf.GradientTape() as tape:
        tape.watch(tensors)
        y = function(*tensors)
    upstream = tf.cast(draw(*y.shape, seed=9, dtype="bfloat16"), y.dtype)
    return [y, *tape.gradient(y, tensors, upstream)]


def assert_same_gradients(ours, truth, dtype, *values):
    """Outputs and gradients in a dtype are those of the formula in float64."""
    for actual, expected in zip(
        outputs_and_gradients(ours, *values, dtype=dtype), outputs_and_gradients(truth, *values), strict=True
    ):
        assert actual.shape == expected.shape
        actual, expected = (np.asarray(tf.cast(v, "float64")) for v in (actual, expected))
        assert np.abs(actual - expected).max() <= TOLERANCE[dtype] * np.abs(expected).max()


@every_dtype
@pytest.mark.parametrize("shape", [(3, 5), *(pytest.param(s, marks=pytest.mark.slow) for s in ((7,), (2, 3, 4, 5)))])
def test_gelu(shape, dtype):
    """x times the normal distribution function of x."""

    def truth(x):
        return 0.5 * x * tf.math.erfc(-x / np.sqrt(2.0))

    assert_same_gradients(fused.gelu, truth, dtype, 3 * draw(*shape, dtype=dtype))


def test_gelu_of_large_values():
    """Far from 0 it is x or 0, and its slope 1 or 0."""
    y, slope = outputs_and_gradients(fused.gelu, np.array([-1e4, -50.0, 0.0, 50.0, 1e4]), dtype="float32")
    np.testing.assert_allclose(y, [0, 0, 0, 50, 1e4], rtol=1e-6, atol=1e-3)
    np.testing.assert_allclose(slope, draw(5, seed=9, dtype="bfloat16") * [0, 0, 0.5, 1, 1], rtol=1e-6, atol=1e-6)


@every_dtype
@pytest.mark.parametrize(
    "shape", [(6, 8), *(pytest.param(s, marks=pytest.mark.slow) for s in ((2, 3, 40), (2, 3, 4, 8)))]
)
def test_layer_norm(shape, dtype):
    """Mean 0 and deviation 1 for each vector, then scale and offset with gradients in float32."""
    scale, offset = 1 + 0.3 * draw(shape[-1], seed=1), draw(shape[-1], seed=2)

    def truth(x):
        mean, variance = tf.nn.moments(x, -1, keepdims=True)
        return (x - mean) / tf.sqrt(variance + 1e-6) * scale + offset

    def ours(x):
        return fused.layer_norm(x, tf.constant(scale, tf.float32), tf.constant(offset, tf.float32), 1e-6)

    assert_same_gradients(ours, truth, dtype, 3 * draw(*shape, dtype=dtype) + 1)
    weights = [tf.constant(v, tf.float32) for v in (scale, offset)]
    x = tf.cast(draw(*shape), dtype)
    with tf.GradientTape() as tape:
        tape.watch(weights)
        y = fused.layer_norm(x, *weights, 1e-6)
    found = tape.gradient(y, weights)
    assert [g.dtype for g in found] == [tf.float32] * 2
    rows = np.prod(shape[:-1])
    np.testing.assert_allclose(found[1], np.full(shape[-1], rows), rtol=1e-6)


@every_dtype
@pytest.mark.parametrize("biased", [False, True])
def test_attention_weights(biased, dtype):
    """The softmax of scaled products, plus what masks them."""
    bias = np.triu(np.full((5, 5), -1e4), 1)[None, None]

    def truth(q, k):
        return tf.nn.softmax(tf.matmul(q, k, transpose_b=True) * 0.5 + bias * biased)

    def ours(q, k):
        return fused.attention_weights(q, k, [tf.cast(bias, q.dtype)] * biased, 0.5)

    assert_same_gradients(ours, truth, dtype, draw(2, 3, 5, 4, dtype=dtype), draw(2, 3, 5, 4, seed=1, dtype=dtype))


@every_dtype
def test_dense(dtype):
    """A product and a sum."""
    values = (draw(6, 5, dtype=dtype), draw(5, 4, seed=1, dtype=dtype), draw(4, seed=2, dtype=dtype))
    assert_same_gradients(fused.dense, lambda x, k, b: tf.matmul(x, k) + b, dtype, *values)


# How it is made, the shape it takes, and how many roundings of bfloat16 are multiplied in its gradients.
LAYERS = {
    "gelu": (lambda dtype: core.Activation("gelu", dtype=dtype), (3, 5, 8), 1),
    "layer_norm": (lambda dtype: core.LayerNormalization(epsilon=1e-6, dtype=dtype), (3, 5, 8), 1),
    "dense": (lambda dtype: core.Dense(6, dtype=dtype), (3, 5, 8), 1),
    "dense and tanh": (lambda dtype: core.Dense(6, activation="tanh", dtype=dtype), (3, 5, 8), 2),
}
every_layer = pytest.mark.parametrize(("make", "shape", "roundings"), LAYERS.values(), ids=LAYERS)


def passed(layer, values, training):
    """What a layer gives, and the gradients of its input and its weights."""
    x = tf.cast(values, layer.compute_dtype)
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = layer(x, training=training)
    weights = [w.value for w in layer.trainable_weights]
    upstream = tf.cast(draw(*y.shape, seed=9, dtype="bfloat16"), y.dtype)
    return [y, *tape.gradient(y, [x, *weights], upstream)]


def has_function_for_xla(layer, shape, training):
    """Return whether the graph of a call has a part that XLA compiles."""
    call = tf.function(lambda x: layer(x, training=training))
    graph = call.get_concrete_function(tf.TensorSpec(shape, layer.compute_dtype)).graph.as_graph_def()
    return any(f.attr["_XlaMustCompile"].b for f in graph.library.function)


@every_layer
@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16"])
def test_layers_train_as_they_infer(make, shape, roundings, policy):
    """Training uses other operations for the same outputs, gradients and dtypes."""
    layer = make(policy)
    layer.build((None, *shape[1:]))
    tolerance = TOLERANCE["float32"] if policy == "float32" else roundings * TOLERANCE["bfloat16"]
    for actual, expected in zip(passed(layer, draw(*shape), True), passed(layer, draw(*shape), False), strict=True):
        assert (actual.dtype, actual.shape) == (expected.dtype, expected.shape)
        actual, expected = (np.asarray(tf.cast(v, "float64")) for v in (actual, expected))
        assert np.abs(actual - expected).max() <= tolerance * max(np.abs(expected).max(), 1e-3)


@every_layer
def test_fused_in_training_only(make, shape, roundings):
    """In bfloat16 training on CPU the graph has parts for XLA; in inference and in float16 it has none."""
    dense = isinstance(make("mixed_bfloat16"), core.Dense)
    fused = bfloat16.is_fast() if dense else not bfloat16.has_gpu()
    assert has_function_for_xla(make("mixed_bfloat16"), shape, training=True) == fused
    assert not has_function_for_xla(make("mixed_bfloat16"), shape, training=False)
    assert not has_function_for_xla(make("mixed_float16"), shape, training=True)


def test_dense_of_few_rows_is_keras_own():
    """One vector per example does not pay off for the fused kernel; dropped weights and no bias are not supported."""
    dtype = "mixed_bfloat16"
    for layer, shape in (
        (core.Dense(6, dtype=dtype), (7, 8)),
        (core.Dense(6, dtype=dtype, use_bias=False), (3, 5, 8)),
        (core.DropConnectDense(6, dtype=dtype, drop_connect=0.5), (3, 5, 8)),
    ):
        assert not has_function_for_xla(layer, shape, training=True)


def test_training_gradients_match_inference_operations():
    """The loss and all gradients of a transformer in training are those of the plain operations."""
    model = zoo.get("vit_micro_tiny")
    values = draw(3, 32, 32, 3).astype("float32")
    found = []
    for training in (True, False):
        with tf.GradientTape() as tape:
            logits = model(values, training=training)
            loss = keras.losses.sparse_categorical_crossentropy(np.array([1, 2, 3]), logits, from_logits=True)
        found.append([logits, *tape.gradient(loss, [w.value for w in model.trainable_weights])])
    for actual, expected in zip(*found, strict=True):
        assert np.abs(actual - expected).max() <= 1e-4 * max(np.abs(expected).max(), 1e-3)


def test_weights_of_attention_in_half_precision():
    """In float16, which is not fused, training and inference are the same operations."""
    layer = sequence.AttentionWeights(dtype="float16")
    q, k = (tf.cast(draw(1, 2, 3, 4, seed=s), "float16") for s in (0, 1))
    np.testing.assert_array_equal(layer([q, k], training=True), layer([q, k], training=False))


ON_TWO = """
import tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
import keras, numpy as np, zoo
keras.utils.set_random_seed(1)
with tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]).scope():
    model = zoo.get("vit_micro_tiny", dtype="mixed_bfloat16")
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.AdamW(1e-3), loss, jit_compile=False)
x, y = np.random.rand(32, 32, 32, 3).astype("float32"), np.random.randint(0, 10, 32)
losses = model.fit(x, y, batch_size=16, epochs=4, verbose=0).history["loss"]
print("trained" if losses[-1] < losses[0] else losses)
"""


@pytest.mark.slow
def test_fused_on_two_devices(python):
    """What XLA compiles runs on each device of a mirrored strategy."""
    out, err = python("-c", ON_TWO, warm=True).communicate(timeout=120)
    assert out.split()[-1:] == ["trained"], err
