"""Every family's gradients are those of its loss: central differences against autodiff, in float64, to four digits."""

from __future__ import annotations

import numpy as np
import pytest

import zoo
from zoo.build import options_of
from zoo.specs.registry import models

# Models under 200,000 parameters, at least one per family; most of them run only in the slow tests.
TINY = [name for name in zoo.list_models("*_tiny") if zoo.spec(name).params < 200_000]
QUICK = ("mlp_tiny", "highway_tiny", "cnn_tiny", "resnet_tiny", "vgg_bn_tiny", "encoder_tiny")
RANDOM = ("dropout", "drop_path", "attention_dropout", "projection_dropout", "drop_connect")


@pytest.fixture
def float64():
    """Use Keras in float64, and restore it afterwards."""
    import keras

    before = keras.config.floatx(), keras.config.dtype_policy()
    keras.config.set_floatx("float64")
    keras.config.set_dtype_policy("float64")
    yield
    keras.config.set_floatx(before[0])
    keras.config.set_dtype_policy(before[1])


def wide(config):
    """Return a model's configuration with float64 in place of float32, in the logits and in attention."""
    if isinstance(config, dict):
        return {key: wide(value) for key, value in config.items()}
    if isinstance(config, (list, tuple)):
        return type(config)(map(wide, config))
    return "float64" if config == "float32" else config


def tiny_model(name):
    """Return a tiny model in float64 without randomness."""
    import keras

    keras.utils.set_random_seed(1)
    without = {option: 0.0 for option in RANDOM if option in options_of(models[name])}
    # Sequence-to-sequence models always have float32 logits: the vectors before the logits are checked.
    built = zoo.get(name, include_top=zoo.spec(name).task != "generate", **without)
    model = type(built).from_config(wide(built.get_config()))
    model.set_weights(built.get_weights())
    return model


def loss_of(model, spec):
    """Return a function without arguments that computes the loss of a fixed batch in training mode.

    The loss is the mean cross-entropy, or the mean square where there are no logits.
    """
    import tensorflow as tf

    random = np.random.default_rng(1)
    if spec.vocabulary:
        known = spec.classes if spec.task == "generate" else spec.vocabulary
        ids = {t.name: random.integers(4, known, (3, t.shape[1])).astype(t.dtype) for t in model.inputs}
        x = ids if len(ids) > 1 else next(iter(ids.values()))
    else:
        x = tf.constant(random.normal(size=(3, *model.input_shape[1:])))
    shape = model(x, training=False).shape
    labels, wanted = random.integers(0, shape[-1], shape[:-1]), random.normal(size=shape)

    def loss():
        logits = model(x, training=True)
        assert logits.dtype == tf.float64
        if spec.task == "generate":
            return tf.reduce_mean(tf.square(logits - wanted))
        return tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits))

    return loss


@pytest.mark.parametrize(
    "name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in TINY]
)
def test_gradients_are_right(name, float64, gradient_check):
    """Along random directions in the space of all weights, the slope matches the gradient."""
    model = tiny_model(name)
    assert gradient_check(loss_of(model, zoo.spec(name)), model.trainable_variables) < 1e-4


def test_every_family_is_checked():
    """Each family has a model here."""
    assert {zoo.spec(name).family for name in TINY} == set(zoo.list_families())


def toy(activation):
    """Return the loss of two layers, and its variables, in float64."""
    import tensorflow as tf

    random = np.random.default_rng(2)
    x = tf.constant(random.normal(size=(5, 4)))
    kernels = [tf.Variable(random.normal(size=shape)) for shape in ((4, 6), (6, 1))]
    return lambda: tf.reduce_mean((activation(x @ kernels[0]) @ kernels[1]) ** 2), kernels


def test_right_gradient_passes(gradient_check):
    """The check is precise to six digits, and skips the corners of ReLUs."""
    import tensorflow as tf

    for activation in (tf.tanh, tf.nn.relu):
        assert gradient_check(*toy(activation)) < 1e-6


@pytest.mark.parametrize("factor", [1.01, 0.99, 0.0])
def test_wrong_gradient_fails(factor, gradient_check):
    """A gradient that is off by one percent fails."""
    import tensorflow as tf

    @tf.custom_gradient
    def wrong(x):
        y = tf.tanh(x)
        return y, lambda upstream: factor * upstream * (1 - y**2)

    assert gradient_check(*toy(wrong)) > 1e-3


def test_gradient_that_is_missing_fails(gradient_check):
    """A missing gradient fails too."""
    import tensorflow as tf

    assert gradient_check(*toy(lambda x: tf.tanh(tf.stop_gradient(x)))) > 1e-3


def test_loss_that_jumps_is_refused(gradient_check):
    """A loss that is nowhere smooth cannot be checked, and the error reports it."""
    import tensorflow as tf

    kernel = tf.Variable(np.zeros((5, 1)))
    with pytest.raises(ArithmeticError, match="no smooth direction"):
        gradient_check(lambda: tf.reduce_sum(tf.sign(kernel)), [kernel])
