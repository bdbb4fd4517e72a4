"""Complete runs on texts: their results and commands, one that is interrupted, and the accuracy of full recipes."""

from __future__ import annotations

import contextlib
import json
import signal
import time

import pytest
from text_tasks import KINDS, LENGTHS, recipe

import training
from training import DataConfig, LogConfig, LossConfig, Run
from training.checkpoints.files import _read
from training.learning.evaluation import load_model
from zoo.common.errors import RunError


@pytest.fixture(
    scope="module", params=[pytest.param(task, marks=[pytest.mark.slow] * (task != "tag")) for task in KINDS]
)
def finished(request, tmp_path_factory):
    """A finished run of a task: one epoch in large batches."""
    config = DataConfig(KINDS[request.param][1], batch_size=500, length=LENGTHS[request.param])
    made = recipe(request.param, data=config, loss=LossConfig(label_smoothing=0.1), log=LogConfig(0, 0, 0))
    return request.param, training.train(made, run=tmp_path_factory.mktemp("tasks") / "run")


def test_result_describes_the_task(finished):
    """done.json has the task, its labels and its metrics; another evaluation gives the same metrics."""
    task, run = finished
    result = run.result()
    assert result["task"] == task
    assert result["input_shape"] == list(LENGTHS[task])
    assert bool(result["labels"]) == (task != "generate")
    assert ("token_accuracy" in result["test"]) == (task == "generate")
    assert (result["test"]["confusion"] is None) == (task == "generate")
    again = training.evaluate(run).to_json()
    assert again.pop("loss") == pytest.approx(result["test"].pop("loss"), rel=1e-5)
    assert again == result["test"]
    assert {"loss", "accuracy", "val_loss", "val_accuracy", "images_per_second"} <= set(run.metrics()[0])


def test_commands_evaluate_every_task(finished, zoo_command):
    """`zoo evaluate` prints the metrics of every task, and the name of its examples."""
    _, run = finished
    code, out, err = zoo_command("evaluate", run.path, "--split", "validation")
    assert (code, err) == (0, "")
    assert "examples" in out
    code, out, err = zoo_command("evaluate", run.path, "--json")
    assert json.loads(out)["accuracy"] == run.result()["test"]["accuracy"]
    code, out, err = zoo_command("train", "--resume", run.path)
    assert (code, err) == (0, "")
    assert f"on the {run.result()['test']['examples']} examples of the test split" in out


def when_in_the_middle(path, process):
    """Wait until a run has taken some steps."""
    until = time.monotonic() + 180
    while process.poll() is None and time.monotonic() < until:
        with contextlib.suppress(RunError):
            if _read(path)[1].step >= 3:
                return
        time.sleep(0.01)
    process.kill()
    pytest.fail(f"Never came to step 3: {process.communicate()}")


@pytest.mark.slow
@pytest.mark.parametrize("task", ["classify", "generate"])
def test_interrupted_run_on_texts_ends_where_another_does(task, python, tmp_path):
    """A run stopped within an epoch and resumed equals an uninterrupted one: every variable and metric, to the bit."""
    name = {"classify": "word_order_encoder", "generate": "reverse_transformer"}[task]
    changes = {
        "epochs": 1,
        "schedule.warmup_epochs": 0.5,
        "data.batch_size": 200,
        "model.options": {"attention_dropout": 0.1, "projection_dropout": 0.1},
    }
    options = [f"--set={key}={json.dumps(value)}" for key, value in {**changes, "checkpoint_seconds": 0}.items()]
    process = python("-m", "zoo", "train", name, "--quiet", "--run", tmp_path / "broken", *options)
    when_in_the_middle(tmp_path / "broken/checkpoints/last.safetensors", process)
    process.send_signal(signal.SIGTERM)
    assert process.wait(180) == 143, process.communicate()
    broken, whole = Run.open(tmp_path / "broken"), training.train(name, changes, run=tmp_path / "whole")
    place = _read(broken.checkpoints / "last.safetensors")[1]
    assert (place.epoch, broken.finished) == (0, False)
    assert place.step > 0
    training.resume(broken)
    (one, _), (two, _) = (_read(run.checkpoints / "last.safetensors") for run in (broken, whole))
    assert {n: a.tobytes() for n, a in one.items()} == {n: a.tobytes() for n, a in two.items()}
    pairs = zip(load_model(broken).get_weights(), load_model(whole).get_weights(), strict=True)
    assert all(a.tobytes() == b.tobytes() for a, b in pairs)
    assert broken.result()["test"]["accuracy"] == whole.result()["test"]["accuracy"]
    assert broken.text() == whole.text()
    # The model loads in a process that has built none.
    out, err = python("-m", "zoo", "evaluate", broken.path).communicate(timeout=180)
    assert (f"accuracy {broken.result()['test']['accuracy']:.4f}" in out, err) == (True, "")


# The minimum of each recipe on its test split.
REACHED = {"word_order_encoder": 0.95, "word_roles_tagger": 0.98, "reverse_transformer": 0.99}


@pytest.mark.slow
@pytest.mark.parametrize("name", REACHED)
def test_full_recipe_on_texts_reaches_its_accuracy(name, tmp_path):
    """A full recipe run is as good as expected: labels that need the order of words, exact sequences."""
    assert training.train(name, run=tmp_path / "run").result()["test"]["accuracy"] >= REACHED[name]
