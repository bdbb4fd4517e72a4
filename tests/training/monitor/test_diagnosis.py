"""`zoo diagnose` finds the faults of broken runs, and finds nothing in a healthy one."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pytest

import training
import zoo
from training import Run
from training.data.dataset import datasets
from zoo.common.errors import RunError, TrainingError

MLP = {"epochs": 1, "schedule.warmup_epochs": 0, "log.every": 5, "log.misclassified": 0, "data.batch_size": 128}


def faults(run):
    """Return the faults of a run."""
    return {finding.fault for finding in training.diagnose(run).findings}


# What a finished run states besides its labels and metrics.
RESULT = {
    "best": {"val_accuracy": 0.9, "epoch": 3}, "seconds": 1.0, "epochs": 3, "ended": "epochs", "parameters": 9,
    "task": "classify", "input_shape": [4], "preprocessing": {}, "splits": {"train": 9}, "precision": "float32",
    "strategy": "one",
}  # fmt: skip


def train(folder, changes, fails=False):
    """Train the perceptron of the digits with some changes; return the run, finished or not."""
    try:
        training.train("digits_mlp", {**MLP, **changes}, run=folder / "run")
    except TrainingError:
        assert fails
    else:
        assert not fails
    return Run.open(folder / "run")


@pytest.fixture
def start(tmp_path):
    """Write weights for a model of the digits, computed from each variable's name and shape."""

    def write(options, make):
        model = zoo.get("mlp", input_shape=(64,), classes=10, **options)
        for variable in model.weights:
            variable.assign(make(variable.path, variable.shape))
        zoo.save_weights(model, tmp_path / "start.safetensors")
        return {"model.options": options, "model.weights": str(tmp_path / "start.safetensors")}

    return write


@pytest.fixture
def twenty():
    """The digits with 20 training images."""

    def load(config):
        import dataclasses

        whole = datasets["digits"](config)
        few = training.Split(whole.splits["train"].examples.take(20), 20)
        return dataclasses.replace(whole, name="twenty", splits={**whole.splits, "train": few})

    training.register_dataset("twenty")(load)
    yield "twenty"
    datasets._entries.pop("twenty")
    datasets._origins.pop("twenty")


def test_healthy_run_has_no_findings(digits_run, zoo_command):
    """The control: a model that learns the digits well has no findings."""
    found = training.diagnose(digits_run)
    assert found.findings == ()
    assert found.measurements >= 3
    code, out, err = zoo_command("diagnose", digits_run.path)
    assert (code, err) == (0, "")
    assert out.startswith("No problems found in 6 epochs and ")


def test_deep_sigmoids_vanish(tmp_path):
    """In ten layers of sigmoids, the first train much less than the last, and the metrics show it."""
    run = train(tmp_path, {"model.options": {"widths": [32] * 10, "activation": "sigmoid"}})
    found = {finding.fault: finding for finding in training.diagnose(run).findings}
    assert "vanishing" in found
    assert "dense1" in found["vanishing"].metrics["share_of_largest"]
    assert "logits" not in found["vanishing"].metrics["share_of_largest"]
    assert "activation=relu" in found["vanishing"].advice
    assert not {"exploding", "dead_relu", "overfitting"} & set(found)


def test_rate_that_is_much_too_high_diverges(tmp_path, zoo_command):
    """A run stopped by a non-finite loss is unfinished, and the diagnosis reports the reason."""
    run = train(tmp_path, {"optimizer.name": "sgd", "optimizer.learning_rate": 1e30}, fails=True)
    assert not run.finished
    assert "diverged" in faults(run)
    code, out, err = zoo_command("diagnose", run.path)
    assert (code, err) == (0, "")
    assert "Training stopped: The loss became" in out
    assert "Try: lower optimizer.learning_rate" in out


def test_rate_that_is_too_high_is_named(tmp_path):
    """Steps larger than the weights are too large, whatever their result."""
    run = train(tmp_path, {"optimizer.learning_rate": 3.0, "schedule.name": "constant", "model.options": {}})
    assert {"rate_too_high", "exploding"} & faults(run)
    assert "rate_too_high" in faults(run)


def test_dead_relus_are_named(tmp_path, start):
    """Biases of -10 keep every unit of a layer at 0."""
    changes = start({"widths": [32, 16]}, lambda path, shape: np.full(shape, -10.0 if "dense1/bias" in path else 0.05))
    found = {finding.fault: finding for finding in training.diagnose(train(tmp_path, changes)).findings}
    assert found["dead_relu"].metrics["dead"]["dense1"] == 1.0


def test_zero_weights_are_named(tmp_path, start):
    """A model that starts with zeros trains only its last bias."""
    run = train(tmp_path, start({"widths": [32, 16]}, lambda _, shape: np.zeros(shape)))
    assert "zero_weights" in faults(run)


@pytest.mark.slow
@pytest.mark.parametrize("activation", ["sigmoid", "tanh"])
def test_saturated_units_are_named(tmp_path, start, activation):
    """Weights a hundred times too large saturate every unit."""
    random = np.random.default_rng(0)
    changes = start({"widths": [32, 16], "activation": activation}, lambda _, shape: random.normal(0, 30, shape))
    found = {finding.fault: finding for finding in training.diagnose(train(tmp_path, changes)).findings}
    assert found["saturated"].metrics["saturated"]["dense1"] > 0.8
    assert "dead_relu" not in found


@pytest.mark.slow
def test_overfitting_is_named(tmp_path, twenty):
    """Twenty images are memorized."""
    changes = {"data.name": twenty, "epochs": 60, "log.every": 20, "optimizer.learning_rate": 1e-2}
    found = faults(train(tmp_path, {**changes, "model.options": {"widths": [64]}}))
    assert "overfitting" in found
    assert "underfitting" not in found


@pytest.mark.slow
def test_underfitting_is_named(tmp_path):
    """One epoch at a small rate trains almost nothing, and the advice names the rate."""
    found = faults(train(tmp_path, {"epochs": 1, "optimizer.learning_rate": 1e-7, "optimizer.weight_decay": 0.0}))
    assert {"underfitting", "rate_too_low"} <= found
    assert "overfitting" not in found


@pytest.fixture
def stored(tmp_path):
    """A function that makes a run from rows and a confusion matrix."""

    def make(waits=0.0, confusion=None, **last):
        run = Run.create(training.get_recipe("digits_mlp"), tmp_path / "run")
        for epoch in (1, 2, 3):
            metrics = {"loss": 1 / epoch, "val_loss": 1 / epoch, "accuracy": 0.9, "val_accuracy": 0.9} | last
            run.add_metrics({"epoch": epoch, **metrics, "data_wait": waits})
        test = {"split": "test", "examples": 9, "loss": 0.1, "accuracy": 0.9, "confusion": confusion}
        run.finish(RESULT | {"labels": list("abcdefgh")[: len(confusion or "abc")], "test": test})
        return run

    return make


def few(right):
    """Return the confusion of classes of 4 examples each; wrong ones are taken for the first class."""
    confusion = [[0] * len(right) for _ in right]
    for i, count in enumerate(right):
        confusion[i][0] += 4 - count
        confusion[i][i] += count
    return confusion


@pytest.mark.parametrize(
    ("error", "loss", "fault"),
    [(34_884, 0.19, {"overfitting"}), (12_000, 0.02, set()), (34_884, 0.03, set()), (14_000, 0.4, set())],
)
def test_numbers_that_are_predicted_worse_are_named(tmp_path, error, loss, fault):
    """A validation error of three times the training error is overfitting, unless both are small or it is close."""
    run = Run.create(training.get_recipe("diabetes_mlp"), tmp_path / "run")
    for epoch in (1, 2):
        row = {"loss": 0.04 / epoch**2, "rmse": 10_536.0, "val_loss": loss, "val_rmse": float(error)}
        run.add_metrics({"epoch": epoch, **row, "data_wait": 0.0})
    assert faults(run) == fault


@pytest.mark.parametrize(
    ("confusion", "fault"),
    [
        ([[50, 0, 0], [3, 40, 7], [2, 8, 0]], set()),
        ([[50, 0, 0], [3, 47, 0], [2, 8, 0]], {"class_never_predicted"}),
        ([[500, 0, 0], [3, 470, 0], [8, 1, 1]], {"imbalance"}),
        ([[500, 0, 0], [3, 470, 0], [0, 1, 9]], set()),
        # Eight classes of 4 examples each: three of them missed, at an accuracy of 0.625, and two at 0.25.
        (few([4, 4, 4, 4, 4, 0, 0, 0]), {"class_never_predicted"}),
        (few([2, 2, 1, 1, 1, 1, 0, 0]), set()),
        (None, set()),
    ],
)
def test_classes_that_are_left_out_are_named(stored, confusion, fault):
    """A class that is never predicted, and a rare one that is missed; without the fault there is no finding."""
    assert faults(stored(confusion=confusion)) == fault


def test_rows_that_lack_an_entry(stored):
    """A damaged file may lack any entry of any row; nothing else changes."""
    run = stored()
    lines = [json.loads(line) for line in (run.path / "metrics.jsonl").read_text().splitlines()]
    for place, key in itertools.product(range(len(lines)), lines[0].keys() - {"epoch"}):
        rows = [{k: v for k, v in row.items() if (i, k) != (place, key)} for i, row in enumerate(lines)]
        (run.path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        assert faults(run) == set()
    (run.path / "metrics.jsonl").write_text('{"epoch": 1, "val_accuracy": 0.5}\n{"epoch": 2}\n')
    assert faults(run) == set()
    for value in ('"x"', "[1]", "{}"):
        (run.path / "metrics.jsonl").write_text(f'{{"epoch": 1, "loss": {value}}}\n')
        with pytest.raises(RunError, match=r"Expected a file of numbers\. Received: .*metrics\.jsonl with loss="):
            training.diagnose(run)


@pytest.mark.parametrize(("waits", "fault"), [(0.5, {"starving"}), (0.05, set())])
def test_waiting_for_data_is_named(stored, waits, fault):
    """Half of the time spent waiting is too much, a twentieth is not."""
    assert faults(stored(waits=waits)) == fault


def test_json_is_for_machines(stored, zoo_command):
    """`--json` has the run, the measurements, and each finding with its fault, description, advice and metrics."""
    run = stored(waits=0.5)
    code, out, err = zoo_command("diagnose", run.path, "--json")
    assert (code, err) == (0, "")
    found = json.loads(out)
    assert (found["run"], found["finished"], found["epochs"], found["measurements"]) == (str(run.path), True, 3, 0)
    (finding,) = found["findings"]
    assert set(finding) == {"fault", "what", "advice", "metrics"}


def test_run_that_has_not_trained_is_refused(tmp_path, zoo_command):
    """A run without metrics, and a folder that is no run, are refused."""
    run = Run.create(training.get_recipe("digits_mlp"), tmp_path / "run")
    with pytest.raises(RunError, match="which has no metrics"):
        training.diagnose(run)
    code, out, err = zoo_command("diagnose", tmp_path)
    assert (code, out, err.count("\n")) == (2, "", 1)
