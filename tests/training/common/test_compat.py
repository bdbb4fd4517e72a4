"""Each private API that training uses exists and does what `training.common.compat` documents; a failure names it."""

from __future__ import annotations

import inspect

import numpy as np
import pytest

from training.common import compat


@pytest.fixture
def weight():
    """A kernel of ones."""
    import keras

    return keras.Variable(np.ones((2, 2), "float32"), name="kernel")


def built(optimizer, *variables):
    """Return an optimizer that is built on variables."""
    optimizer.build(list(variables))
    return optimizer


@pytest.mark.parametrize(
    ("owner", "name"),
    [
        ("SGD", compat.APPLY_WEIGHT_DECAY),
        ("SGD", compat.ALL_REDUCE_GRADIENTS),
        ("SGD", compat.APPLY_GRADIENTS),
        ("SGD", compat.UPDATE_AVERAGES),
        ("Muon", compat.USE_ADAMW),
        ("Muon", "zeropower_via_newtonschulz5"),
        ("Muon", "lr_adjust"),
    ],
)
def test_methods_that_subclasses_override_exist(owner, name):
    """keras.optimizers.Optimizer calls the methods that our subclasses override."""
    import keras

    cls = getattr(keras.optimizers, owner)
    assert callable(getattr(cls, name, None)), f"keras.optimizers.{owner}.{name} is gone"
    sources = "".join(inspect.getsource(base) for base in cls.__mro__ if base is not object)
    assert sources.count(f"self.{name}(") >= 1, f"Keras no longer calls keras.optimizers.{owner}.{name}"


def test_collective_key_base_is_an_attribute_of_mirrored_strategy():
    """tf.distribute.MirroredStrategy reads the first key of its collective operations from its class."""
    import tensorflow as tf

    assert isinstance(getattr(tf.distribute.MirroredStrategy, compat.COLLECTIVE_KEY_BASE, None), int)


def test_step_count_counts_steps_not_updates(weight):
    """keras.optimizers.Optimizer._iterations counts each step of an accumulation; `iterations` counts updates."""
    import keras

    optimizer = built(keras.optimizers.SGD(0.1, gradient_accumulation_steps=2), weight)
    optimizer.apply([keras.ops.ones((2, 2))], [weight])
    assert (int(compat.step_count(optimizer).numpy()), int(optimizer.iterations)) == (1, 0)


def test_step_count_of_a_scaled_loss(weight):
    """keras.optimizers.LossScaleOptimizer._iterations stays 0; the inner optimizer counts."""
    import keras

    optimizer = built(keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.1)), weight)
    for step in (1, 2):
        optimizer.apply([keras.ops.ones((2, 2))], [weight])
        assert int(compat.step_count(optimizer).numpy()) == step
    assert int(optimizer._iterations) == 0


def test_variable_index_is_the_position(weight):
    """keras.optimizers.Optimizer._get_variable_index takes a variable of Keras or of TensorFlow."""
    import keras

    other = keras.Variable(np.ones(3, "float32"), name="bias")
    optimizer = built(keras.optimizers.SGD(0.1), weight, other)
    assert [compat.variable_index(optimizer, v) for v in (weight, other, other.value)] == [0, 1, 1]


def test_adam_moments_have_the_shape_of_the_variable(weight):
    """keras.optimizers.Adam._momentums and ._velocities have one variable for each weight."""
    import keras

    moments = compat.adam_moments(built(keras.optimizers.Adam(0.1), weight), weight)
    assert [tuple(moment.shape) for moment in moments] == [(2, 2), (2, 2)]


def test_is_decayed_knows_excluded_variables(weight):
    """keras.optimizers.Optimizer._use_weight_decay follows exclude_from_weight_decay."""
    import keras

    bias = keras.Variable(np.ones(3, "float32"), name="bias")
    optimizer = keras.optimizers.SGD(0.1, weight_decay=0.1)
    optimizer.exclude_from_weight_decay(var_names=["bias"])
    built(optimizer, weight, bias)
    assert compat.is_decayed(optimizer, weight)
    assert not compat.is_decayed(optimizer, bias)


def test_weight_averages_pair_weights_with_averages(weight):
    """keras.optimizers.Optimizer._model_variables_moving_average is in the order of ._trainable_variables."""
    import keras

    ((variable, average),) = compat.weight_averages(built(keras.optimizers.SGD(0.1, use_ema=True), weight))
    assert variable is weight
    assert tuple(average.shape) == (2, 2)


def test_gradients_are_summed_and_applied(weight):
    """_accumulated_gradients, _backend_increment_gradient_accumulators and the four methods of an update."""
    import keras

    optimizer = built(keras.optimizers.SGD(0.5, gradient_accumulation_steps=2), weight)
    (total,) = sums = compat.gradient_sums(optimizer, [weight])
    compat.add_gradients(optimizer, [keras.ops.ones((2, 2))], sums)
    assert np.all(np.asarray(total) == 1.0)
    compat.update_weights(optimizer, [keras.ops.ones((2, 2))], [weight])
    assert np.all(np.asarray(weight) == 0.5)
    assert np.all(np.asarray(total) == 0.0)


def test_compiled_metrics_have_variables_at_once():
    """keras.Model._compile_metrics and ._compile_loss are built by labels and outputs."""
    import keras

    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(3)])
    model.compile("sgd", "mse", metrics=["mae"])
    before = len(model.metrics_variables)
    compat.build_compiled(model, keras.ops.zeros((1, 3)), keras.ops.zeros((1, 3)))
    assert len(model.metrics_variables) > before


def test_slurm_hosts_are_expanded():
    """expand_hostlist and expand_tasks_per_node of TensorFlow's slurm_cluster_resolver."""
    assert compat.slurm_hosts("n[1-2],m3", "2(x2),1") == [("n1", 2), ("n2", 2), ("m3", 1)]
    with pytest.raises(ValueError, match="zip"):
        compat.slurm_hosts("n[1-2]", "2")


def test_lbfgsb_finds_the_minimum_of_a_parabola():
    """scipy.optimize._lbfgsb.setulb takes its state as arrays, and continues from them."""
    from training.optim.lbfgs import EVALUATE, MEMORY, _initial_state

    state = _initial_state(2)
    state["x"] = np.array([3.0, -2.0])
    for _ in range(50):
        compat.lbfgsb_step(state, memory=MEMORY, tolerances=(1e7, 1e-5), trials=20)
        if state["task"][0] == EVALUATE:
            state["f"], state["g"] = np.sum((state["x"] - 1) ** 2), 2 * (state["x"] - 1)
    np.testing.assert_allclose(state["x"], [1.0, 1.0], atol=1e-4)


def test_trial_is_resumed_by_its_identifier():
    """optuna.trial.FrozenTrial._trial_id makes a trial that can be reported to."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study()
    study.ask()
    (frozen,) = study.get_trials()
    compat.resume_trial(study, frozen).report(0.5, 1)
    assert study.get_trials()[0].intermediate_values == {1: 0.5}


def test_decoupled_decay_shrinks_weights(weight):
    """keras.optimizers.Adam._apply_weight_decay subtracts rate x decay x weight."""
    import keras

    optimizer = built(keras.optimizers.SGD(0.5, weight_decay=0.1), weight)
    compat.decoupled_decay()(optimizer, [weight])
    np.testing.assert_allclose(weight, 0.95, rtol=1e-6)
