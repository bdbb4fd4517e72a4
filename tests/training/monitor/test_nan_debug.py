"""The first layer with a value that is not finite is named: in activations, gradients, data and updates."""

from __future__ import annotations

import types

import numpy as np
import pytest

from training.checkpoints.files import Progress
from training.learning.training_model import as_training_model
from training.monitor.nan_debug import find_first
from training.monitor.step_tools import Feed

COUNT = 6


def small_model(*middle, rate=0.1):
    """Return a compiled model of two dense layers with others between them, drawn from a seed."""
    import keras

    keras.utils.set_random_seed(1)
    x = inputs = keras.Input((4,))
    x = keras.layers.Dense(8, "relu", name="first")(x)
    for layer in middle:
        x = layer(x)
    model = as_training_model(keras.Model(inputs, keras.layers.Dense(2, name="last")(x)))
    model.compile(keras.optimizers.SGD(rate), keras.losses.CategoricalCrossentropy(from_logits=True))
    model.optimizer.build(model.trainable_variables)
    return model


def data(corrupted=None):
    """Return some batches of 16 as a pipeline serves them; `corrupted` is (batch, value) of one number."""
    import tensorflow as tf

    random = np.random.default_rng(0)
    x = random.normal(size=(COUNT, 16, 4)).astype("float32")
    y = np.eye(2, dtype="float32")[random.integers(0, 2, (COUNT, 16))]
    if corrupted:
        x[corrupted[0], 3, 1] = corrupted[1]
    batches = tf.data.Dataset.from_tensor_slices((x, y))
    recipe = types.SimpleNamespace(seed=1)
    return types.SimpleNamespace(
        train=lambda _, skip: batches.skip(skip), steps_per_epoch=COUNT, augments_on_device=False, recipe=recipe
    )


def found(model, pipeline, skip=0):
    """Return the report after a checkpoint at a step of the first epoch."""
    Feed(model)
    return find_first(model, pipeline, Progress(step=skip))


def test_healthy_steps_are_not_blamed():
    """Finite values give an empty report."""
    assert found(small_model(), data()) == ""


def test_layer_that_overflows_going_forward():
    """An exponential of a too large activation is named, and not the layers after it."""
    import keras

    layers = keras.layers.Rescaling(1e4, name="large"), keras.layers.Activation("exponential", name="power")
    text = found(small_model(*layers, keras.layers.Dense(3, name="behind")), data())
    assert text == "First value that is not finite, in epoch 1, step 1: the activation of power (Activation), inf"


def test_gradient_that_is_infinite_though_activations_are_not():
    """The square root has an infinite slope at 0, where a ReLU leaves many values."""
    import keras

    text = found(
        small_model(keras.layers.Lambda(keras.ops.sqrt, name="root"), keras.layers.Dense(3, name="behind")), data()
    )
    assert "step 1: the gradient of the input of root (Lambda), " in text
    assert text.endswith("all activations are finite")


def test_gradient_of_one_branch_is_not_blamed_on_the_other():
    """If a value has two branches, the one with the gradient that is not finite is named."""
    import keras

    def two(x):
        root = keras.layers.Lambda(keras.ops.sqrt, name="root")(x)
        return keras.layers.Add(name="sum")([root, keras.layers.Dense(8, name="other")(x)])

    assert "the gradient of the input of root (Lambda)" in found(small_model(two), data())


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_data_that_is_not_finite(value):
    """A number of the fourth batch that is not finite is found there, from any earlier checkpoint."""
    wanted = (
        "First value that is not finite, in epoch 1, step 4: the data; the images or features of the batch contain "
    )
    wanted += str(value)
    for skip in (0, 3):
        assert found(small_model(), data((3, value)), skip) == wanted
    assert found(small_model(), data((3, value)), 4) == ""


def test_update_that_is_too_large():
    """Finite gradients times a far too high rate break the weights; no layer is named."""
    text = found(small_model(rate=3e38), data((0, 100.0)))
    assert "step 1: the update of first/kernel by the optimizer; all activations and gradients are finite" in text


def test_rate_that_is_too_high_shows_in_the_activation_after_it():
    """A step that leaves finite but huge weights makes the next one overflow, in the first layer that can."""
    assert "step 2: the activation of " in found(small_model(rate=1e30), data())
