"""Initial weights: from a file, all or all but the head, and not read again when a run is resumed."""

from __future__ import annotations

import numpy as np
import pytest

import training
import zoo
from training import Run
from training.data.pipeline.opening import open_pipeline
from training.fit.loop import resume_run, train_new
from training.learning.build import build_training_model
from training.recipe.recipe import resolve
from zoo.common.errors import BadOption

QUICK = {"model.name": "resnet_tiny", "epochs": 2, "schedule.warmup_epochs": 0, "log.every": 0, "log.misclassified": 0}


def start(**overrides):
    """Return the model as a recipe starts it."""
    recipe = resolve("digits_resnet", {**QUICK, **overrides}.items())
    return build_training_model(recipe, open_pipeline(recipe, zoo.spec(recipe.model.name)), start=True)


def equal(one, two):
    """Return by layer whether two models have the same weights."""
    pairs = {a.name: (a.get_weights(), two.get_layer(a.name).get_weights()) for a in one.layers if a.weights}
    return {name: all(np.array_equal(x, y) for x, y in zip(*both, strict=True)) for name, both in pairs.items()}


@pytest.mark.parametrize("suffix", [".safetensors", ".keras"])
def test_training_starts_from_a_file(tmp_path, suffix):
    """Every weight is that of the file; without a file it is drawn from the seed."""
    given = zoo.get("resnet_tiny", input_shape=(8, 8, 1))
    path = tmp_path / f"given{suffix}"
    (given.save if suffix == ".keras" else lambda p: zoo.save_weights(given, p))(path)
    assert all(equal(start(**{"model.weights": str(path)}), given).values())
    assert not any(value for name, value in equal(start(), given).items() if not name.endswith("norm"))


@pytest.mark.parametrize("suffix", [".safetensors", ".keras"])
def test_head_of_another_size_is_new(tmp_path, suffix):
    """All but the classifier of a model for three classes is loaded."""
    given = zoo.get("resnet_tiny", input_shape=(8, 8, 1), classes=3)
    path = tmp_path / f"given{suffix}"
    (given.save if suffix == ".keras" else lambda p: zoo.save_weights(given, p))(path)
    model = start(**{"model.weights": str(path)})
    assert model.output_shape == (None, 10)
    found = {
        a.name: np.array_equal(a.get_weights()[0], given.get_layer(a.name).get_weights()[0])
        for a in model.layers
        if a.weights and a.name != "logits"
    }
    assert found
    assert all(found.values())


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"model.weights": "imagenet"}, "None are published"),
        ({"model.weights": "missing.safetensors"}, "path of an existing file"),
        ({"model.weights": "HERE", "model.options": {"width": 4}}, "made with width=8"),
        ({"model.weights": "HERE", "model.name": "resnet20"}, "made for resnet_tiny"),
    ],
)
def test_weights_that_do_not_fit_are_refused(overrides, message, tmp_path):
    """The error has one line, and no run is created."""
    zoo.save_weights(zoo.get("resnet_tiny", input_shape=(8, 8, 1)), tmp_path / "given.safetensors")
    overrides = {k: str(tmp_path / "given.safetensors") if v == "HERE" else v for k, v in overrides.items()}
    with pytest.raises(BadOption, match=message) as error:
        training.train("digits_resnet", {**QUICK, **overrides}, run=tmp_path / "run")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_resume_does_not_ask_for_the_weights_again(tmp_path):
    """The file may be missing when a run is resumed; its trained weights stay."""

    class Killed(Exception):
        """Stands for the end of the process."""

    def kill(_):
        raise Killed

    path = tmp_path / "given.safetensors"
    zoo.save_weights(zoo.get("resnet_tiny", input_shape=(8, 8, 1)), path)
    recipe = resolve("digits_resnet", {**QUICK, "model.weights": str(path)}.items())
    whole = train_new(recipe, tmp_path / "whole")
    with pytest.raises(Killed):
        train_new(recipe, tmp_path / "run", observe=kill)
    path.unlink()
    again = resume_run(Run.open(tmp_path / "run"))
    assert again.metrics()[-1]["val_loss"] == pytest.approx(whole.metrics()[-1]["val_loss"], rel=1e-4)
    assert training.evaluate(again).loss == pytest.approx(training.evaluate(whole).loss, rel=1e-4)
