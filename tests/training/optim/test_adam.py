"""Fused Adam: the same weights as with Keras' optimizer."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from training import OptimizerConfig, Recipe, ScheduleConfig
from training.optim.adam import fused_adam
from training.optim.optimizer import make_optimizer

OPTIONS = [
    {"learning_rate": 0.01},
    {"learning_rate": 0.1, "beta_1": 0.5, "beta_2": 0.9, "epsilon": 1e-2},
    {"learning_rate": 0.01, "weight_decay": 0.5},
    {"learning_rate": 0.01, "global_clipnorm": 0.5, "use_ema": True},
    {"learning_rate": 0.01, "amsgrad": True},
    {"learning_rate": keras.optimizers.schedules.ExponentialDecay(0.1, 2, 0.5)},
]


def trained(optimizer, dtype="float32", steps=5):
    """Return the weights and the optimizer's state after some steps, in a compiled step and outside of one."""
    draw = np.random.default_rng(0)
    variables = [keras.Variable(draw.standard_normal(shape), dtype=dtype) for shape in ((3, 4), (5,))]
    compiled = tf.function(lambda gradients: optimizer.apply(gradients, variables))
    optimizer.build(variables)
    for step in range(steps):
        gradients = [tf.constant(draw.standard_normal(v.shape), v.dtype) for v in variables]
        compiled(gradients) if step % 2 else optimizer.apply(gradients, variables)
    return [np.asarray(tf.cast(v.value, "float64")) for v in (*variables, *optimizer.variables)]


def operations(optimizer):
    """Return the names of the operations of one step."""
    variable = keras.Variable(np.ones((3, 4), "float32"))
    optimizer.build([variable])
    step = tf.function(lambda gradient: optimizer.apply([gradient], [variable]))
    graph = step.get_concrete_function(tf.TensorSpec((3, 4))).graph
    return {operation.type for operation in graph.get_operations()}


@pytest.mark.parametrize("name", ["Adam", "AdamW"])
@pytest.mark.parametrize("options", OPTIONS, ids=map(str, range(len(OPTIONS))))
def test_same_weights_as_keras(name, options):
    """Weights, momenta and velocities are those of Keras' optimizer."""
    ours, theirs = trained(fused_adam(name)(**options)), trained(getattr(keras.optimizers, name)(**options))
    for actual, expected in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(actual, expected, rtol=2e-5, atol=1e-6)


def test_other_dtypes_and_sparse_gradients_use_keras():
    """Keras handles what the fused operation does not support."""
    for actual, expected in zip(
        trained(fused_adam("Adam")(0.01), "float64"), trained(keras.optimizers.Adam(0.01), "float64"), strict=True
    ):
        np.testing.assert_array_equal(actual, expected)
    moved = []
    for optimizer in (fused_adam("Adam")(0.01), keras.optimizers.Adam(0.01)):
        table = keras.Variable(np.ones((4, 2), "float32"))
        optimizer.build([table])
        optimizer.apply([tf.IndexedSlices(tf.ones((2, 2)), tf.constant([1, 3]), tf.constant([4, 2]))], [table])
        moved.append(table.numpy())
    np.testing.assert_array_equal(*moved)
    assert (moved[0][0] == 1).all()
    assert (moved[0][1] < 1).all()


@pytest.mark.parametrize("name", ["adam", "adamw"])
def test_recipes_take_the_fused_step(name):
    """The optimizer of a recipe moves each variable by one operation; Keras' own does not."""
    recipe = Recipe("test", optimizer=OptimizerConfig(name), schedule=ScheduleConfig("constant"))
    assert "ResourceApplyAdam" in operations(make_optimizer(recipe, 5))
    assert "ResourceApplyAdam" not in operations(keras.optimizers.AdamW())


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw"])
def test_switch_turns_fused_steps_off(name, monkeypatch):
    """With ZOO_FUSED=0 the optimizer is Keras' own; both end at the same weights."""
    import keras
    import tensorflow as tf

    ends = []
    for switch in ("1", "0"):
        monkeypatch.setenv("ZOO_FUSED", switch)
        config = OptimizerConfig(name, learning_rate=0.01)
        recipe = Recipe("test", optimizer=config, schedule=ScheduleConfig("constant"), epochs=1)
        optimizer, variable = make_optimizer(recipe, 5), keras.Variable(np.ones((3, 2), "float32"), name="kernel")
        own = next(cls for cls in type(optimizer).__mro__ if cls.__module__.startswith("keras."))
        fused = [
            cls for cls in type(optimizer).__mro__ if cls.__module__ in ("training.optim.adam", "training.optim.sgd")
        ]
        assert bool(fused) == (switch == "1")
        assert own.__name__.lower() == name
        optimizer.build([variable])
        for step in range(5):
            optimizer.apply([tf.fill((3, 2), 0.1 * (step + 1))], [variable])
        ends.append(variable.numpy())
    np.testing.assert_allclose(*ends, rtol=1e-5)
