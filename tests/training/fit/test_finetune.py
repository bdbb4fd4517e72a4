"""Fine-tuning: an interrupted model ends like an uninterrupted one."""

from __future__ import annotations

import numpy as np
import pytest

import zoo
from training.data.pipeline.opening import open_pipeline
from training.fit.finetune import finetune, shorten
from training.recipe.recipe import resolve
from zoo.common.lazy import keras

EPOCHS = 2


class Killed(Exception):
    """Stands for the end of a process in the middle of training."""


CASES = [("digits_mlp", "mlp_tiny"), pytest.param(("digits_resnet", "resnet_tiny"), marks=pytest.mark.slow)]


@pytest.fixture(scope="module", params=CASES, ids=["mlp", "resnet"])
def short(request):
    """A recipe with few epochs, and its data."""
    name, model = request.param
    recipe = resolve(name, {"model.name": model, "model.options": {}, "data.augment.rotate": 0}.items())
    return shorten(recipe, EPOCHS, 0.5), open_pipeline(recipe, zoo.spec(model))


def build(recipe, pipeline):
    """Return the same model each time."""
    keras.utils.set_random_seed(1)
    return zoo.get(recipe.model.name, input_shape=pipeline.shape)


def killer(steps):
    """Return a callback that ends training after so many steps."""

    class Kill(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if int(self.model.optimizer.iterations.numpy()) == steps:
                raise Killed

    return Kill()


def test_shorten():
    """Fewer epochs at a lower rate, with a warm-up of at most a tenth of them."""
    recipe = resolve("digits_resnet", ())
    found = shorten(recipe, 10, 0.25)
    assert (found.epochs, found.optimizer.learning_rate) == (10, 0.25 * recipe.optimizer.learning_rate)
    assert found.schedule.warmup_epochs == 1
    assert found.loss == recipe.loss


def test_killed_fine_tuning_resumes_to_the_same_end(short, tmp_path):
    """An interrupted epoch is repeated from the state before it."""
    recipe, pipeline = short
    whole = build(recipe, pipeline)
    metrics = finetune(whole, recipe, pipeline, state=tmp_path / "whole.safetensors")
    assert metrics["accuracy"] > 0.2
    halved, state = build(recipe, pipeline), tmp_path / "halved.safetensors"
    with pytest.raises(Killed):
        finetune(halved, recipe, pipeline, state=state, callbacks=[killer(pipeline.steps_per_epoch + 3)])
    again = build(recipe, pipeline)
    finetune(again, recipe, pipeline, state=state)
    for one, other in zip(whole.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-4)
    # The control: the interrupted weights differ from the final ones.
    assert any(not np.allclose(a, b, 1e-3, 1e-4) for a, b in zip(whole.weights, halved.weights, strict=True))
