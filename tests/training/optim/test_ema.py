"""The moving average of weights: its formula, evaluation and saving, and a run that is killed."""

from __future__ import annotations

import itertools
import shutil

import keras
import numpy as np
import pytest
from safetensors.numpy import load_file

import training
from training import OptimizerConfig, Recipe, Run, ScheduleConfig
from training.learning.evaluation import load_model
from training.optim.ema import assign_averages, averaged_weights
from training.optim.optimizer import connect_optimizer, make_optimizer

# A model with batch normalization that trains in seconds.
SMALL = {
    "model.name": "resnet_tiny",
    "epochs": 2,
    "data.augment": {},
    "data.batch_size": 128,
    "schedule.name": "constant",
    "schedule.warmup_epochs": 0,
    "optimizer.ema": 0.95,
    "log.every": 0,
    "log.misclassified": 0,
}


def compiled(ema=0.9, accumulate=1, name="sgd"):
    """Return a compiled dense layer with batch normalization behind it."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((3,))
    outputs = keras.layers.BatchNormalization(momentum=0.5)(keras.layers.Dense(2, name="dense")(inputs))
    model = keras.Model(inputs, outputs)
    config = OptimizerConfig(name, learning_rate=0.1, ema=ema, accumulate=accumulate)
    recipe = Recipe("test", optimizer=config, schedule=ScheduleConfig("constant"), epochs=10)
    optimizer = make_optimizer(recipe, 10)
    connect_optimizer(optimizer, model, config)
    model.compile(optimizer, "mse", jit_compile=False)
    optimizer.build(model.trainable_variables)
    return model


def batches(count):
    """Return the same examples every time."""
    random = np.random.default_rng(0)
    return [(random.normal(size=(8, 3)).astype("float32"), random.normal(size=(8, 2))) for _ in range(count)]


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_mean_follows_the_formula(name):
    """Update t weighs the old mean by min(ema, (1 + t) / (10 + t)), for weights and normalization statistics."""
    model, means = compiled(0.3, name=name), None
    for t, (x, y) in enumerate(batches(12), start=1):
        model.train_on_batch(x, y)
        decay = min(0.3, (1 + t) / (10 + t)) if t > 1 else 0.0
        now = model.get_weights()
        means = [decay * m + (1 - decay) * w for m, w in zip(means or now, now, strict=True)]
        with averaged_weights(model):
            for found, wanted in zip(model.get_weights(), means, strict=True):
                np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)
        for found, wanted in zip(model.get_weights(), now, strict=True):
            assert found.tobytes() == wanted.tobytes()
    assert len(means) == 6
    # The control: the mean lags behind.
    assert any(np.abs(m - w).max() > 1e-3 for m, w in zip(means, now, strict=True))


def test_accumulated_steps_move_the_mean_once():
    """Between updates the mean does not change."""
    model = compiled(0.9, accumulate=3)
    data = batches(9)
    seen = []
    for x, y in data:
        model.train_on_batch(x, y)
        with averaged_weights(model):
            seen.append(np.asarray(model.get_layer("dense").kernel).copy())
    # After the first update, the third step, it is the weights; then it changes with each third step only.
    assert [np.array_equal(a, b) for a, b in itertools.pairwise(seen[2:])] == [True, True, False] * 2


def test_without_a_mean_nothing_is_swapped():
    """A model without a mean, or before its first step, retains its weights."""
    for model in (compiled(0.0), compiled(0.9)):
        before = model.get_weights()
        assign_averages(model)
        with averaged_weights(model):
            pass
        for one, other in zip(before, model.get_weights(), strict=True):
            assert one.tobytes() == other.tobytes()


def test_fit_leaves_the_last_weights_in_place():
    """Keras puts the mean into the model at the end of each fit; an epoch is a fit here, and must not do so."""
    one, other = compiled(), compiled()
    x, y = (np.concatenate(values) for values in zip(*batches(8), strict=True))
    one.fit(x, y, batch_size=8, epochs=2, shuffle=False, verbose=0)
    for epoch in range(2):
        other.fit(x, y, batch_size=8, initial_epoch=epoch, epochs=epoch + 1, shuffle=False, verbose=0)
    for a, b in zip(one.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run that saves the best mean."""
    return training.train("digits_resnet", {**SMALL, "save": "best"}, run=tmp_path_factory.mktemp("runs") / "mean")


def test_the_mean_is_evaluated_and_saved(run):
    """The saved model is the mean of the best epoch, and has the accuracy in the row of that epoch."""
    best = run.result()["best"]
    row = run.metrics()[best["epoch"] - 1]
    assert best["val_accuracy"] == row["val_accuracy"] == max(r["val_accuracy"] for r in run.metrics())
    assert training.evaluate(run, "validation").accuracy == pytest.approx(row["val_accuracy"], abs=1e-6)
    saved, last = load_model(run).get_weights()[0], load_file(run.checkpoints / "last.safetensors")
    weights = next(value for name, value in last.items() if name.startswith("model/0000/"))
    assert weights.shape == saved.shape
    assert np.abs(weights - saved).max() > 1e-4


@pytest.mark.slow
def test_killed_run_ends_the_same_to_the_bit(run, tmp_path):
    """Weights and means of a run resumed after an epoch go on unchanged: its last checkpoint is the same to the bit."""

    class Killed(Exception):
        """Stands for the end of the process."""

    def kill(row):
        if row["epoch"] == 1:
            raise Killed

    from training.fit.loop import resume_run, train_new
    from training.recipe.recipe import resolve

    recipe = resolve("digits_resnet", {**SMALL, "save": "best"}.items())
    with pytest.raises(Killed):
        train_new(recipe, tmp_path / "run", observe=kill)
    shutil.copytree(tmp_path / "run", tmp_path / "copy")
    again = resume_run(Run.open(tmp_path / "copy"))
    wanted, found = (load_file(r.checkpoints / "last.safetensors") for r in (run, again))
    assert set(wanted) == set(found)
    for name, value in wanted.items():
        np.testing.assert_array_equal(found[name], value, err_msg=name)
    for one, other in zip(load_model(run).get_weights(), load_model(again).get_weights(), strict=True):
        assert one.tobytes() == other.tobytes()
