"""Batch normalization over devices: its gradient is that of one device, and the order of its sums is fixed."""

from __future__ import annotations

import numpy as np
import pytest

CHILD = """
import json
import numpy as np
import keras
import tensorflow as tf
from training.recipe.recipe import recipes
from training.distributed.devices import open_device
from zoo.layers.core import BatchNormalization

device = open_device(recipes["digits_mlp"].override(strategy="mirrored", precision="float32", replicas=2))
random = np.random.default_rng(0)
x = 0.5 + random.normal(size=(8, 3, 3, 2)).astype("float32")
weights = random.normal(size=x.shape).astype("float32")

def gradients(layer, x, weights):
    with tf.GradientTape() as tape:
        tape.watch(x)
        loss = tf.reduce_sum(tf.sin(layer(x, training=True)) * weights)
    return tape.gradient(loss, [x, layer.gamma.value])

def shared(layer):
    def replica():
        rows = tf.distribute.get_replica_context().replica_id_in_sync_group * 4
        return gradients(layer, tf.constant(x)[rows : rows + 4], tf.constant(weights)[rows : rows + 4])
    return tf.function(lambda: device.strategy.run(replica))

def most_added(function):
    return max(len(op.inputs) for op in function.get_concrete_function().graph.get_operations() if op.type == "AddN")

def made(kind, **options):
    with device.strategy.scope():
        layer = kind(**options)
        layer.build(x.shape)
    return layer

ours, kerass = made(BatchNormalization), made(keras.layers.BatchNormalization, synchronized=True)
parts, of_gamma = (device.strategy.experimental_local_results(g) for g in shared(ours)())
alone = keras.layers.BatchNormalization()
alone.build(x.shape)
wanted = gradients(alone, tf.constant(x), tf.constant(weights))
print(json.dumps({
    "x": np.concatenate([p.numpy() for p in parts]).tolist(), "wanted": wanted[0].numpy().tolist(),
    "gamma": sum(g.numpy() for g in of_gamma).tolist(), "wanted_gamma": wanted[1].numpy().tolist(),
    "most": most_added(shared(ours)), "of_keras": most_added(shared(kerass)),
}))
"""


@pytest.fixture(scope="module")
def found(printed):
    """The output of a process with two logical CPUs."""
    return printed("-c", CHILD, warm=True)


def test_gradient_is_that_of_one_device(found):
    """The gradients are those of the inputs and of the scale."""
    for mine, wanted in (("x", "wanted"), ("gamma", "wanted_gamma")):
        assert np.abs(found[wanted]).max() > 0.1
        np.testing.assert_allclose(found[mine], found[wanted], atol=2e-5 * np.abs(found[wanted]).max())


def test_no_gradient_is_a_sum_of_three(found):
    """TensorFlow adds three terms in an order that depends on timing; Keras' synchronized layer has such a sum."""
    assert found["most"] == 2
    assert found["of_keras"] > 2
