"""Several devices of one process: dropout masks, Keras' own batch normalization, and loss scaling."""

from __future__ import annotations

import numpy as np
import pytest

CHILD = """
import json
import numpy as np
import keras
import tensorflow as tf
from training.recipe.recipe import recipes
from training.distributed.replicated import Replicated
from training.distributed.devices import open_device
from training.learning.training_model import as_training_model

recipe = recipes["digits_mlp"].override(strategy="mirrored", precision="float32")
# Devices that worked together before do not affect later ones.
def added_up(count):
    strategy = open_device(recipe.override(replicas=count)).strategy
    def rank():
        context = tf.distribute.get_replica_context()
        return context.all_reduce("sum", tf.cast(context.replica_id_in_sync_group, tf.float32))
    found = tf.function(lambda: strategy.run(rank))()
    return [float(value) for value in strategy.experimental_local_results(found)]
sums = [added_up(count) for count in (4, 2, 4)]
device = open_device(recipe.override(replicas=2))
optimizer = device.adapt_optimizer

def model(*layers, optimizer, **options):
    with device.strategy.scope():
        made = as_training_model(keras.Sequential([keras.Input((4,)), *layers]))
        made.compile(optimizer, "mse", jit_compile=False, **options)
        made.optimizer.build(made.trainable_variables)
        made._compile_loss.build(keras.ops.zeros((1, 1)), keras.ops.zeros((1, 1)))
    device.prepare(made)
    return made

def results(function):
    values = device.strategy.experimental_local_results(tf.function(lambda: device.strategy.run(function))())
    return [np.asarray(v).tolist() for v in values]

dropout = keras.layers.Dropout(0.5, seed=3)
dropped = model(dropout, keras.layers.Dense(1), optimizer=optimizer(keras.optimizers.SGD)())
masks = results(lambda: dropout(tf.ones((1, 64)), training=True))
alone = np.asarray(keras.layers.Dropout(0.5, seed=3)(tf.ones((1, 64)), training=True)).tolist()

norm = keras.layers.BatchNormalization(momentum=0.0)
normed = model(norm, keras.layers.Dense(1), optimizer=optimizer(keras.optimizers.SGD)())
def ranks():
    rank = tf.cast(tf.distribute.get_replica_context().replica_id_in_sync_group, tf.float32)
    return norm(1000.0 + rank * tf.ones((3, 4)), training=True)
results(ranks)

scaler = optimizer(keras.optimizers.LossScaleOptimizer)(optimizer(keras.optimizers.SGD)(0.1))
scaled = model(keras.layers.Dense(1), optimizer=scaler)
before = [v.numpy().tolist() for v in scaled.weights]
def step(bad):
    rank = tf.cast(tf.distribute.get_replica_context().replica_id_in_sync_group, tf.float32)
    # Only the gradients of the second replica overflow.
    x = tf.ones((2, 4)) * tf.where((rank > 0) & bad, np.float32("inf"), 1.0)
    return scaled.train_step((x, tf.ones((2, 1))))["loss"]
results(lambda: step(True))
skipped = [v.numpy().tolist() for v in scaled.weights]
results(lambda: step(False))
print(json.dumps({
    "sums": sums, "masks": masks, "alone": alone, "mean": norm.moving_mean.numpy().tolist(),
    "variance": norm.moving_variance.numpy().tolist(), "before": before, "skipped": skipped,
    "moved": [v.numpy().tolist() for v in scaled.weights], "scale": float(scaled.optimizer.dynamic_scale.numpy()),
}))
"""


@pytest.fixture(scope="module")
def found(printed):
    """The output of a process with two logical CPUs."""
    return printed("-c", CHILD, warm=True)


def test_each_replica_has_its_own_dropout_mask(found):
    """Masks differ, and the first replica's mask is that of one device."""
    first, second = found["masks"]
    assert first == found["alone"]
    assert 16 < np.sum(np.not_equal(first, second)) < 48


def test_sums_over_changing_devices_of_a_process(found):
    """4, then 2, then again 4 devices sum only their own values, the numbers from 0 on."""
    assert found["sums"] == [[6.0] * 4, [1.0] * 2, [6.0] * 4]


def test_batch_norm_of_keras_is_of_all_replicas(found):
    """The mean and variance of 1000 and 1001 in equal parts are right, though far from 0."""
    assert found["mean"] == pytest.approx([1000.5] * 4)
    assert found["variance"] == pytest.approx([0.25] * 4, rel=1e-3)


def test_overflow_of_one_replica_skips_the_step_of_all(found):
    """No weight moves, and the loss scale is halved; the next step moves the weights."""
    assert found["skipped"] == found["before"]
    assert found["moved"] != found["before"]
    assert found["scale"] == 2.0**14
