"""Optimizers and schedules: Keras' own by name, the learning rate at its corners, what is not decayed."""

from __future__ import annotations

import functools
import inspect
import math

import numpy as np
import pytest

from training import OptimizerConfig, Recipe, ScheduleConfig
from training._optimizer import make_optimizer, make_schedule
from zoo._errors import BadOption

WRAPPERS = ("lossscaleoptimizer", "multioptimizer")


def optimizer_names():
    """Return the names of Keras' optimizers, in lower case, without those that only wrap others."""
    import keras

    found = inspect.getmembers(keras.optimizers, inspect.isclass)
    names = {n.lower() for n, c in found if issubclass(c, keras.optimizers.Optimizer)}
    # Keras 3.12, the last for Python 3.10, has a Muon that asks TensorFlow's variables for a path they lack.
    broken = {"muon"} if tuple(map(int, keras.__version__.split(".")[:2])) < (3, 13) else set()
    return sorted(names - {"optimizer", *WRAPPERS} - broken)


def made(epochs=4, steps=5, schedule=None, **optimizer):
    """Return the optimizer of a recipe."""
    config = ScheduleConfig("constant") if schedule is None else schedule
    return make_optimizer(Recipe("test", optimizer=OptimizerConfig(**optimizer), schedule=config, epochs=epochs), steps)


def rates(config, peak=0.1, epochs=10, steps=100):
    """Return the learning rate as a function of the step."""
    schedule = make_schedule(config, peak, epochs, steps)
    return lambda step: float(schedule(step))


def test_cosine_with_warmup_at_its_corners():
    """From 0 linearly to the peak, then half a cosine down to its end."""
    rate = rates(ScheduleConfig("cosine", warmup_epochs=2, end=0.01))
    assert rate(0) == 0.0
    assert rate(100) == pytest.approx(0.05)
    assert rate(200) == pytest.approx(0.1)
    for step in (300, 600, 900):
        share = (step - 200) / 800
        assert rate(step) == pytest.approx(0.1 * (0.01 + 0.99 * (1 + math.cos(math.pi * share)) / 2), rel=1e-4)
    assert rate(1000) == pytest.approx(0.001)
    assert rate(2000) == pytest.approx(0.001)


def test_cosine_without_warmup_starts_at_the_peak():
    """Without warm-up the first step has the peak, the last almost none."""
    rate = rates(ScheduleConfig("cosine"))
    assert rate(0) == pytest.approx(0.1)
    assert rate(500) == pytest.approx(0.05)
    assert rate(1000) == pytest.approx(0.0, abs=1e-8)


def test_inverse_sqrt_is_that_of_the_transformer():
    """Equation 3 of Vaswani et al. 2017: width^-0.5 min(step^-0.5, step warm-up^-1.5), steps from 1."""
    width, warmup = 512, 400
    rate = rates(ScheduleConfig("inverse_sqrt", warmup_epochs=4), peak=(width * warmup) ** -0.5)
    for step in (1, 2, 100, 399, 400, 401, 700, 1000):
        assert rate(step - 1) == pytest.approx(width**-0.5 * min(step**-0.5, step * warmup**-1.5), rel=1e-5)
    assert rate(399) == pytest.approx((width * warmup) ** -0.5)
    assert rate(1599) == pytest.approx((width * warmup) ** -0.5 / 2)


@pytest.mark.parametrize("config", [{}, {"warmup_epochs": 0.001}, {"warmup_epochs": 1, "end": 0.1}])
def test_inverse_sqrt_needs_a_warmup_and_has_no_end(config):
    """Without a warm-up there is no peak to fall from; it never arrives anywhere."""
    with pytest.raises(BadOption, match="inverse_sqrt needs a warm-up") as error:
        rates(ScheduleConfig("inverse_sqrt", **config))
    assert "\n" not in str(error.value)


def test_warmup_may_be_part_of_an_epoch():
    """Warm-up is counted in steps, so that half an epoch is possible."""
    rate = rates(ScheduleConfig("cosine", warmup_epochs=0.5))
    assert rate(25) == pytest.approx(0.05)
    assert rate(50) == pytest.approx(0.1)


def test_constant_never_moves():
    """A constant schedule without warm-up is a number, with warm-up it stays at the peak."""
    assert make_schedule(ScheduleConfig("constant"), 0.1, 10, 100) == 0.1
    rate = rates(ScheduleConfig("constant", warmup_epochs=1))
    assert rate(50) == pytest.approx(0.05)
    assert [rate(step) for step in (100, 101, 500, 1000, 1500)] == pytest.approx([0.1] * 5)


@pytest.mark.parametrize("name", ["constant", "cosine"])
@pytest.mark.parametrize("warmup", [10, 11])
def test_warmup_must_end_before_training_does(name, warmup):
    """A warm-up as long as the training never reaches its peak, and is refused."""
    with pytest.raises(BadOption, match=r"schedule\.warmup_epochs must be less than epochs=10") as error:
        rates(ScheduleConfig(name, warmup_epochs=warmup))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("weight_decay", [0.0, 0.01])
@pytest.mark.parametrize("name", optimizer_names())
def test_every_optimizer_of_keras_is_made(name, weight_decay):
    """Each optimizer is had by its name, with decay and without, and moves a weight."""
    import keras

    variable = keras.Variable(np.ones((2, 2), "float32"), name="kernel")
    optimizer = made(name=name, learning_rate=0.01, weight_decay=weight_decay, clip_norm=1.0)
    assert type(optimizer).__name__.lower() == name
    optimizer.build([variable])
    optimizer.apply([keras.ops.ones((2, 2))])
    assert not np.array_equal(variable, np.ones((2, 2)))


@pytest.mark.parametrize("name", ["SGD", "sgd", "Sgd"])
def test_case_of_the_name_does_not_matter(name):
    """Names are taken in any case, and momentum goes to those that have it."""
    optimizer = made(name=name, momentum=0.8, nesterov=False)
    assert (optimizer.momentum, optimizer.nesterov) == (0.8, False)


@pytest.mark.parametrize(
    ("name", "nearest"), [("sgdd", "sgd"), ("adamv", "adam"), ("rms_prop", "rmsprop"), *((n, "") for n in WRAPPERS)]
)
def test_unknown_optimizer_names_the_nearest(name, nearest):
    """A name that Keras does not have is refused with the nearest; helpers are no optimizers."""
    with pytest.raises(BadOption, match=f"optimizer.name='{name}'") as error:
        made(name=name)
    assert "\n" not in str(error.value)
    assert not nearest or f"Did you mean '{nearest}" in str(error.value)


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_decay_leaves_biases_and_normalization_alone(name):
    """With gradients of zero, only kernels shrink, by the learning rate times the decay."""
    import keras

    model = keras.Sequential([keras.Input((4, 4, 3)), keras.layers.Conv2D(2, 3), keras.layers.BatchNormalization()])
    model.add(keras.layers.Flatten())
    model.add(keras.layers.Dense(2))
    for variable in model.trainable_variables:
        variable.assign(keras.ops.ones(variable.shape))
    optimizer = made(name=name, learning_rate=0.1, weight_decay=0.5)
    optimizer.build(model.trainable_variables)
    optimizer.apply([keras.ops.zeros(v.shape) for v in model.trainable_variables])
    assert {v.name for v in model.trainable_variables} == {"kernel", "bias", "gamma", "beta"}
    for variable in model.trainable_variables:
        wanted = 1 - 0.1 * 0.5 if variable.name == "kernel" else 1.0
        np.testing.assert_allclose(variable, np.full(variable.shape, wanted), rtol=1e-6)


def test_decay_leaves_embeddings_and_tokens_alone():
    """Of a transformer only the kernels shrink: not its tables, its token, its scales and its norms."""
    import keras

    import zoo

    for name, options in (("encoder_tiny", {"pooling": "class", "layer_scale": 1.0}), ("transformer_tiny", {})):
        variables = zoo.get(name, **options).trainable_variables
        for variable in variables:
            variable.assign(keras.ops.ones(variable.shape))
        optimizer = made(name="adamw", learning_rate=0.1, weight_decay=0.5)
        optimizer.build(variables)
        optimizer.apply([keras.ops.zeros(v.shape) for v in variables])
        shrunk = {v.name for v in variables if float(np.asarray(v).max()) < 0.99}
        assert shrunk == {"kernel"}
        assert {v.name for v in variables} - shrunk >= {"embedding", "gamma", "beta", "bias"}


def test_moments_are_left_to_keras_unless_given():
    """beta_2 and epsilon reach the optimizer where they are given."""
    import keras

    plain, given = made(name="adam"), made(name="adam", beta_2=0.98, epsilon=1e-9)
    assert (plain.beta_2, plain.epsilon) == (keras.optimizers.Adam().beta_2, keras.optimizers.Adam().epsilon)
    assert (given.beta_2, given.epsilon) == (0.98, 1e-9)


@pytest.mark.parametrize("option", [{"beta_2": 0.9}, {"epsilon": 1e-6}])
def test_moments_of_an_optimizer_without_are_refused(option):
    """SGD has no squares to average."""
    with pytest.raises(BadOption, match=rf"sgd has no {next(iter(option))}") as error:
        made(name="sgd", **option)
    assert "\n" not in str(error.value)


def test_no_decay_by_default():
    """A decay of 0 is none."""
    assert not made(weight_decay=0.0).weight_decay


def test_clip_norm_limits_all_gradients_together():
    """The norm over all gradients is cut to the limit; 0 leaves them."""
    import keras

    def moved(clip_norm):
        variables = [keras.Variable(np.zeros(4, "float32")), keras.Variable(np.zeros(9, "float32"))]
        optimizer = made(name="sgd", learning_rate=1.0, momentum=0.0, nesterov=False, clip_norm=clip_norm)
        optimizer.build(variables)
        optimizer.apply([keras.ops.full((4,), 3.0), keras.ops.full((9,), 4.0)])
        return math.sqrt(sum(float((np.asarray(v) ** 2).sum()) for v in variables))

    norm = math.sqrt(4 * 9 + 9 * 16)
    assert moved(0.0) == pytest.approx(norm)
    assert moved(0.5) == pytest.approx(0.5)
    assert moved(2 * norm) == pytest.approx(norm)


def _apply(optimizer, weight, gradient):
    optimizer.apply([gradient], [weight])


@pytest.mark.parametrize("nesterov", [False, True])
def test_fused_sgd_equals_keras(nesterov):
    """The same weights after some steps of momentum, decay, clipping and a schedule, and really the fused operation."""
    import keras
    import tensorflow as tf

    from training._sgd import fused_sgd

    random_ = np.random.default_rng(0)
    start, gradients = random_.normal(size=(5, 3)), random_.normal(size=(6, 5, 3))
    ends = []
    ours = fused_sgd()
    for cls in (ours, keras.optimizers.SGD):
        schedule = keras.optimizers.schedules.CosineDecay(0.1, 6)
        optimizer = cls(schedule, momentum=0.9, nesterov=nesterov, weight_decay=1e-2, global_clipnorm=1.0)
        weight = keras.Variable(start.astype("float32"), name="kernel")
        optimizer.build([weight])
        step = tf.function(functools.partial(_apply, optimizer, weight))
        for gradient in gradients:
            step(tf.constant(gradient, tf.float32))
        operations = {
            op.type for op in step.get_concrete_function(tf.constant(gradients[0], tf.float32)).graph.get_operations()
        }
        assert ("ResourceApplyKerasMomentum" in operations) is (cls is ours)
        ends.append(weight.numpy())
    np.testing.assert_allclose(*ends, rtol=1e-6, atol=1e-7)
    assert np.abs(ends[0] - start).max() > 0.1
