"""Training at another size than evaluation and the saved model."""

from __future__ import annotations

import numpy as np
import pytest

import training
from training.learning.evaluation import load_model
from zoo.common.errors import BadOption

SIZES = {"data.image_size": [16, 16], "data.train_size": [12, 12], "epochs": 2, "schedule.warmup_epochs": 0}
QUICK = {"data.augment": {}, "log.every": 0, "log.misclassified": 0}


def test_model_is_evaluated_and_saved_in_its_own_size(tmp_path):
    """Validation, the saved model and evaluation use image_size, with the weights trained at train_size."""
    run = training.train("digits_resnet", {"model.name": "resnet_tiny", **SIZES, **QUICK}, run=tmp_path / "run")
    assert run.result()["input_shape"] == [16, 16, 1]
    assert load_model(run).input_shape == (None, 16, 16, 1)
    assert training.evaluate(run).accuracy == run.result()["test"]["accuracy"]
    # The saved weights are the last ones, which the last row evaluates.
    found = training.evaluate(run, "validation").accuracy
    assert found == pytest.approx(run.metrics()[-1]["val_accuracy"], abs=1e-6)
    assert found > 0.15
    assert all(np.isfinite(np.asarray(weight)).all() for weight in load_model(run).weights)


def test_model_that_depends_on_the_size_is_refused(tmp_path):
    """A ViT has positions of its patches; the run is not created."""
    with pytest.raises(BadOption, match=r"positions.*Leave it empty") as error:
        training.train("digits_vit", {**SIZES}, run=tmp_path / "run")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "run").exists()
