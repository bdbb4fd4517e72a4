"""L-BFGS: fewer passes than Adam, convergence, and options that it does not support."""

from __future__ import annotations

import itertools
import shutil

import keras
import numpy as np
import pytest
from safetensors import safe_open

import training
from training import Run
from training.checkpoints.files import _read, _write
from training.fit.loop import resume_run, train_new
from training.learning.evaluation import load_model
from training.recipe.recipe import resolve
from zoo.common.errors import BadOption

EPOCHS = 8
FULL = {
    "model.options": {"widths": [16]},
    "optimizer.name": "lbfgs",
    "optimizer.weight_decay": 0.0,
    "data.batch_size": 1293,
    "epochs": EPOCHS,
    "save": "last",
    "log.every": 0,
    "log.misclassified": 0,
    "loss.label_smoothing": 0.0,
}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run on all digits at once."""
    return training.train("digits_mlp", FULL, run=tmp_path_factory.mktemp("runs") / "lbfgs")


def test_each_iteration_is_an_epoch(run):
    """Each iteration has a row with a lower loss, and the saved model is that of the last one."""
    rows = run.metrics()
    assert [row["epoch"] for row in rows] == list(range(1, EPOCHS + 1))
    losses = [row["loss"] for row in rows]
    assert all(b < a for a, b in itertools.pairwise(losses))
    assert (run.result()["ended"], run.result()["precision"]) == ("epochs", "float32")
    assert training.evaluate(run, "validation").accuracy == pytest.approx(rows[-1]["val_accuracy"], abs=1e-6)
    # The loss of the row is that over all training examples.
    assert training.evaluate(run, "train").loss == pytest.approx(losses[-1], rel=1e-3)


@pytest.mark.slow
def test_it_takes_fewer_passes_than_adam(tmp_path):
    """Adam on all examples takes more passes to the loss that L-BFGS reaches, at any of three rates."""
    run = training.train("digits_mlp", {**FULL, "epochs": 25}, run=tmp_path / "lbfgs")
    passes, loss = sum(row["passes"] for row in run.metrics()), run.metrics()[-1]["loss"]
    assert passes < 60
    for rate in (0.003, 0.01, 0.03):
        options = {**FULL, "optimizer.name": "adam", "optimizer.learning_rate": rate, "epochs": passes}
        options |= {"schedule.name": "constant", "schedule.warmup_epochs": 0}
        adam = training.train("digits_mlp", options, run=tmp_path / f"adam{rate}")
        assert min(row["loss"] for row in adam.metrics()) > loss


class Killed(Exception):
    """Stands for the end of the process."""


@pytest.fixture(scope="module")
def broken(tmp_path_factory):
    """The same run, interrupted after its fourth iteration."""

    def kill(row):
        if row["epoch"] == 4:
            raise Killed

    path = tmp_path_factory.mktemp("runs") / "broken"
    with pytest.raises(Killed):
        train_new(resolve("digits_mlp", FULL.items()), path, observe=kill)
    return path


@pytest.mark.slow
def test_stopped_run_resumes_to_the_same_end(broken, run, tmp_path):
    """The history of earlier iterations is saved: all that follows is equal to the bit."""
    shutil.copytree(broken, tmp_path / "run")
    again = resume_run(Run.open(tmp_path / "run"))
    (ours, _), (theirs, _) = (_read(r.checkpoints / "last.safetensors") for r in (again, run))
    assert [name for name in theirs if ours[name].tobytes() != theirs[name].tobytes()] == []
    assert [(row["loss"], row["passes"]) for row in again.metrics()] == [
        (row["loss"], row["passes"]) for row in run.metrics()
    ]


@pytest.mark.slow
def test_resuming_without_the_saved_history_ends_elsewhere(broken, run, tmp_path):
    """A checkpoint without the history resumes to a lower loss, but on another path."""
    shutil.copytree(broken, tmp_path / "run")
    path = tmp_path / "run/checkpoints/last.safetensors"
    with safe_open(path, "numpy") as file:
        rest = {name: file.get_tensor(name) for name in file.keys() if not name.startswith("search/")}  # noqa: SIM118
        progress = file.metadata()["progress"]
    _write(path, {name: keras.Variable(array, dtype=array.dtype.name) for name, array in rest.items()}, progress)
    rows = resume_run(Run.open(tmp_path / "run")).metrics()
    assert rows[4]["loss"] < rows[3]["loss"]
    assert rows[4]["loss"] != run.metrics()[4]["loss"]
    assert rows[-1]["loss"] < 0.9 * rows[3]["loss"]


@pytest.mark.slow
def test_it_stops_when_converged(tmp_path):
    """A convex problem, one layer on pixels with L2, is solved: the gradient is almost 0."""
    options = {**FULL, "model.options": {"widths": []}, "model.name": "perceptron", "regularize.l2": 0.1, "epochs": 400}
    run = training.train("digits_mlp", options, run=tmp_path / "run")
    assert run.result()["ended"] == "converged"
    assert len(run.metrics()) < 400
    assert all(np.isfinite(w).all() for w in load_model(run).get_weights())


@pytest.mark.parametrize(
    ("recipe", "overrides", "message"),
    [
        ("digits_mlp", {"data.batch_size": 64}, "data.batch_size=64 of 1293 training examples"),
        ("digits_mlp", {"optimizer.ema": 0.9}, "optimizer.ema"),
        ("digits_mlp", {"optimizer.clip_norm": 1.0}, "optimizer.clip_norm"),
        ("digits_mlp", {"model.options": {"widths": [8], "dropout": 0.1}}, "dropout changes the loss"),
        ("digits_mlp", {"regularize.l1": 0.1}, "needs a smooth loss"),
        ("digits_mlp", {"regularize.spectral_norm": True}, "has no constraints"),
        ("digits_mlp", {"precision": "mixed_bfloat16"}, "needs float32"),
        ("digits_resnet", {"model.options": {}}, "data.augment"),
        ("digits_resnet", {"model.options": {}, "data.augment": {}}, "batch normalization"),
    ],
)
def test_what_cannot_go_with_it_is_refused(recipe, overrides, message, tmp_path):
    """One line names the reason before training."""
    with pytest.raises(BadOption, match=message) as error:
        training.train(recipe, {**FULL, **overrides}, run=tmp_path / "run")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "run").exists()
