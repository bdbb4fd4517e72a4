"""Extending a run: it goes on exactly, with the schedule that it says, and refuses what is no extension."""

from __future__ import annotations

import json

import numpy as np
import pytest

import training
from training import Run
from training.learning.evaluation import load_model
from zoo.common.errors import BadOption

CONSTANT = training.get_recipe("iris_mlp").override(
    **{"epochs": 2, "schedule.name": "constant", "schedule.warmup_epochs": 0, "optimizer.learning_rate": 0.01}
)


@pytest.fixture(scope="module")
def twice(tmp_path_factory):
    """A run of two epochs that was extended to four, what was said, and a run of four."""
    folder = tmp_path_factory.mktemp("runs")
    run = training.train(CONSTANT, run=folder / "two")
    with pytest.warns(UserWarning, match="Extended") as said:
        extended = training.resume(run, overrides={"epochs": 4})
    return extended, str(said[0].message), training.train(CONSTANT.override(epochs=4), run=folder / "four")


def test_an_extended_run_is_the_longer_run(twice):
    """To the bit, with a constant learning rate; metrics and result are those of all epochs."""
    extended, _, whole = twice
    for one, two in zip(load_model(extended).get_weights(), load_model(whole).get_weights(), strict=True):
        assert np.array_equal(one, two)
    assert [row["epoch"] for row in extended.metrics()] == [1, 2, 3, 4]
    assert extended.result()["epochs"] == Run.open(extended.path).recipe.epochs == 4
    assert extended.result()["test"] == whole.result()["test"]
    stored = json.loads((extended.path / "recipe.json").read_text())
    assert stored["epochs_before"] == [2]


def test_the_line_says_how_it_goes_on(twice):
    """From which epoch, and with which learning rate."""
    extended, said, _ = twice
    assert said == (
        f"Extended {extended.path} from 2 to 4 epochs: goes on after epoch 2 with the learning rate that constant over "
        "4 epochs has there, from 0.01 at the end before."
    )


@pytest.mark.slow
def test_a_schedule_is_that_of_all_epochs(tmp_path):
    """A cosine that has ended rises again to where a cosine over all epochs is."""
    cosine = CONSTANT.override(**{"schedule.name": "cosine"})
    run = training.train(cosine, run=tmp_path / "run")
    ended = run.metrics()[-1]["learning_rate"]
    with pytest.warns(UserWarning, match="cosine over 6 epochs"):
        extended = training.resume(run, overrides={"epochs": 6})
    whole = training.train(cosine.override(epochs=6), run=tmp_path / "whole")
    found, wanted = ([row["learning_rate"] for row in one.metrics()] for one in (extended, whole))
    np.testing.assert_allclose(found[2:], wanted[2:], rtol=1e-6)
    assert found[2] > 100 * ended


REFUSED = {
    "another key": (
        {"epochs": 9, "optimizer.learning_rate": 0.1},
        r"optimizer.learning_rate=0.1.*model.weights=.*keras",
    ),
    "as many": ({"epochs": 4}, r"more epochs than the run has. Received: epochs=4"),
    "fewer": ({"epochs": 1}, r"with 4 of 4 trained"),
    "no number": ({"epochs": "many"}, r"epochs must be a whole number"),
}


@pytest.mark.parametrize(("overrides", "message"), REFUSED.values(), ids=REFUSED)
def test_what_is_no_extension_is_refused(overrides, message, twice):
    """With the way to what is meant; the run stays as it is."""
    extended, _, _ = twice
    with pytest.raises(BadOption, match=message) as error:
        training.resume(extended, overrides=overrides)
    assert "\n" not in str(error.value)
    assert extended.finished


def test_a_run_that_was_out_of_patience(tmp_path):
    """It would end at once; without patience it goes on."""
    patient = CONSTANT.override(**{"regularize.patience": 1, "optimizer.learning_rate": 1e-12, "epochs": 5})
    run = training.train(patient, run=tmp_path / "run")
    assert run.result()["ended"] == "patience"
    with pytest.raises(BadOption, match=r"ended early, after 1 epochs.*Add: --set regularize.patience=0"):
        training.resume(run, overrides={"epochs": 6})
    with pytest.warns(UserWarning, match="Extended"):
        extended = training.resume(run, overrides={"epochs": 5, "regularize.patience": 0})
    assert [row["epoch"] for row in extended.metrics()] == [1, 2, 3, 4, 5]


def test_command(twice, zoo_command):
    """zoo train --resume RUN --set epochs=N extends; a finished run without it is returned."""
    extended, _, _ = twice
    code, out, _ = zoo_command("train", "--resume", extended.path, "--quiet")
    assert (code, str(extended.path) in out) == (0, True)
    code, _, err = zoo_command("train", "--resume", extended.path, "--set", "epochs=2")
    assert code == 2
    assert "Expected more epochs" in err
