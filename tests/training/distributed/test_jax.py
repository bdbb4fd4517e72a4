"""Training with KERAS_BACKEND=jax: any number of devices, resumed runs, and verified exports."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

import export
from export.source.backend_parity import require_same_logits
from training import Run
from training.checkpoints.files import _read
from training.learning.evaluation import load_model
from zoo.common.errors import ParityError, RunError

# In one process, which has four devices: runs on some of them, and, if asked, one that is stopped by SIGTERM in its
# second epoch and resumed.
TRAIN = """
import os, signal, sys
from pathlib import Path
import training
from training.common.stopping import Stopped
from zoo.common.errors import BadOption

folder, recipe, changes = Path(sys.argv[1]), sys.argv[2], eval(sys.argv[3])
for devices in map(int, sys.argv[6:]):
    training.train(recipe, {**changes, "replicas": devices}, run=folder / str(devices))

def stop(row):
    os.kill(os.getpid(), signal.SIGTERM)

if sys.argv[5] == "stop":
    try:
        training.train(recipe, changes, run=folder / "broken", observe=stop)
    except Stopped as stopped:
        assert stopped.code == 143, stopped.code
    assert not (folder / "broken/done.json").exists()
    training.resume(folder / "broken")

with open(folder / "refused.txt", "w") as file:
    for key, value in eval(sys.argv[4]).items():
        try:
            training.train("digits_resnet", {"strategy": "auto", key: value}, run=folder / "nowhere")
        except BadOption as error:
            print(error, file=file)
"""
FOUR = {"KERAS_BACKEND": "jax", "XLA_FLAGS": "--xla_force_host_platform_device_count=4"}
# 1,293 training images are 20 steps of 64, and 144 validation images no whole number of them.
CHANGES = {
    "data.batch_size": 64,
    "epochs": 2,
    "schedule.warmup_epochs": 0,
    "precision": "float32",
    "strategy": "auto",
    "loss.label_smoothing": 0.1,
    "optimizer.clip_norm": 1.0,
    "optimizer.accumulate": 2,
    "log.misclassified": 0,
    "log.every": 8,
}
# A corner, as in ReLU, turns a rounding error into another gradient.
SMOOTH = {"model.options.activation": "silu", "model.options.dropout": 0.1}
# Each option that JAX does not support.
REFUSED = {
    "optimizer.name": "lbfgs",
    "optimizer.ema": 0.9,
    "optimizer.layer_decay": 0.8,
    "regularize.spectral_norm": True,
    "teacher.model": "resnet_tiny",
    "log.profile": [1, 2],
    "data.augment.place": "device",
    "finetune": {"stages": ["head"], "views": 1},
    "replicas": 8,
    "data.batch_size": 33,
}


def trained(python, folder, recipe, changes, devices, then="stop"):
    """Train as `TRAIN` does, and return the folder of the runs."""
    changes = repr({**CHANGES, **SMOOTH, **changes})
    process = python("-c", TRAIN, folder, recipe, changes, repr(REFUSED), then, *devices, env=FOUR)
    _, err = process.communicate(timeout=400)
    assert process.returncode == 0, err
    return folder


DENSE = {"model.options.widths": [24], "optimizer.learning_rate": 0.02}
# Compiling takes seconds for each run.
PLAIN = {"epochs": 1, "data.batch_size": 128, "optimizer.accumulate": 1, "optimizer.clip_norm": 0.0, "log.every": 0}


@pytest.fixture(scope="module")
def short(python, tmp_path_factory):
    """A short run of a small dense model on two devices."""
    return trained(python, tmp_path_factory.mktemp("jax"), "digits_mlp", {**DENSE, **PLAIN}, (2,), "end")


@pytest.fixture(scope="module")
def runs(python, tmp_path_factory):
    """Runs of a small dense model."""
    return trained(python, tmp_path_factory.mktemp("jax"), "digits_mlp", DENSE, (1, 4))


def state(run):
    """Return the content of the last checkpoint of a run."""
    return _read(run / "checkpoints/last.safetensors")[0]


def assert_alike(runs, devices):
    """Compare runs with that on one device: each variable within 1e-4 of its norm, each metric of each epoch."""
    alone, rows = state(runs / "1"), Run.open(runs / "1").metrics()
    for count in map(str, devices):
        for name, value in state(runs / count).items():
            norm = np.linalg.norm(alone[name].astype("float64"))
            assert np.linalg.norm(value.astype("float64") - alone[name]) <= 1e-4 * norm, (count, name)
        for row, other in zip(rows, Run.open(runs / count).metrics(), strict=True):
            for metric in ("loss", "val_loss", "val_accuracy"):
                assert other[metric] == pytest.approx(row[metric], rel=1e-4), (count, metric)


def assert_resumed(runs):
    """Compare the stopped run with the uninterrupted one: every variable to the bit, every metric."""
    whole, broken = state(runs / "4"), state(runs / "broken")
    assert [name for name in whole if whole[name].tobytes() != broken[name].tobytes()] == []
    rows = [Run.open(runs / name).metrics() for name in ("4", "broken")]
    for row in (*rows[0], *rows[1]):
        del row["seconds"], row["images_per_second"], row["data_wait"]
    assert rows[0] == rows[1]
    results = [json.loads((runs / name / "done.json").read_text())["test"] for name in ("4", "broken")]
    assert results[0] == results[1]


def test_two_devices_train(short):
    """Training on two devices is better than chance, and the result reports them."""
    run = Run.open(short / "2")
    assert (run.result()["replicas"], run.result()["backend"], run.environment()["backend"]) == (2, "jax", "jax")
    assert run.result()["test"]["accuracy"] > 0.2


@pytest.mark.slow
def test_devices_change_nothing(runs):
    """One device and four train the same, with dropout, label smoothing, clipping by norm and accumulation."""
    assert_alike(runs, [4])
    facts = {name: Run.open(runs / name).result() for name in ("1", "4")}
    assert [facts[name]["replicas"] for name in ("1", "4")] == [1, 4]
    assert {facts[name]["backend"] for name in facts} == {"jax"} == {Run.open(runs / "4").environment()["backend"]}
    # Training changes the weights, and all devices compute: their sums differ in the last bits.
    assert facts["1"]["test"]["accuracy"] > 0.5
    one, four = state(runs / "1"), state(runs / "4")
    assert any(one[name].tobytes() != four[name].tobytes() for name in one)


@pytest.mark.slow
def test_stopped_and_resumed(runs):
    """A run that SIGTERM stopped after a step ends like an uninterrupted run, with the same measurements."""
    assert_resumed(runs)
    whole, broken = (Run.open(runs / name).diagnostics() for name in ("4", "broken"))
    assert whole == broken
    assert [row["step"] for row in whole] == [2, 8, 16, 24, 32, 40]
    assert all(row["gradient_norm"] > 0 for row in whole)


def test_resumed_on_its_own_backend_only(short, tmp_path):
    """Another backend would draw other random numbers."""
    shutil.copytree(short / "2", tmp_path / "run")
    (tmp_path / "run/done.json").unlink()
    import training

    with pytest.raises(RunError, match="KERAS_BACKEND=jax"):
        training.resume(tmp_path / "run")


@pytest.mark.slow
def test_exported_through_tensorflow(runs, monkeypatch):
    """The child process that converts uses TensorFlow, whatever its parent uses, and compares the logits first."""
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    (artifact,) = export.convert(Run.open(runs / "4"), ["tflite"])
    assert artifact.parity["passed"]


def test_other_logits_refused(short, tmp_path):
    """A model with other logits than the run saved is refused, with the error; the run's own model is not."""
    shutil.copytree(short / "2", tmp_path / "run")
    run = Run.open(tmp_path / "run")
    model = load_model(run)
    require_same_logits(run, model)
    kernel = model.trainable_variables[0]
    kernel.assign(kernel.value * 1.001)
    with pytest.raises(ParityError, match=r"on TensorFlow differs from the model trained on jax: max error \d"):
        require_same_logits(run, model)


def test_refused_before_anything_is_built(short):
    """One line names what JAX does not support, and no run directory is created."""
    lines = (short / "refused.txt").read_text().splitlines()
    for key, line in zip(REFUSED, lines, strict=True):
        assert "Received: " in line
        assert key.rpartition(".")[2].replace("model", "teacher") in line.replace("a batch of", "batch_size")
    assert not (short / "nowhere").exists()


@pytest.mark.slow
def test_convolutions_on_devices(python, tmp_path):
    """The same for a model with batch normalization, with statistics of the whole batch."""
    runs = trained(python, tmp_path, "digits_resnet", {"model.name": "resnet_tiny"}, (1, 2, 4))
    assert_alike(runs, (2, 4))
    assert_resumed(runs)


EPOCH = """
import sys
import training

run = training.train(sys.argv[1], eval(sys.argv[2]), run=sys.argv[3])
print(run.result()["precision"])
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("recipe", "changes"),
    [
        ("digits_resnet", {"model.name": "resnet_tiny", "precision": "mixed_bfloat16", "data.train_size": [12, 12]}),
        ("diabetes_mlp", {}),
        ("iris_mlp", {"precision": "mixed_float16"}),
    ],
)
def test_other_recipes(python, tmp_path, recipe, changes):
    """Mixed precision, another training size and regression: trained on two devices and exported."""
    more = {"epochs": 2, "strategy": "auto", "replicas": 2, "schedule.warmup_epochs": 0, **changes}
    process = python("-c", EPOCH, recipe, repr(more), tmp_path / "run", env=FOUR)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    assert out.strip() == changes.get("precision", Run.open(tmp_path / "run").recipe.precision)
    (artifact,) = export.convert(Run.open(tmp_path / "run"), ["tflite"])
    assert artifact.parity["passed"]


RANGE = """
from training.tuning.lr_finder import range_test
from training.recipe.recipe import resolve

recipe = resolve("digits_mlp", {"optimizer.name": "sgd", "strategy": "auto"}.items())
found = range_test(recipe, low=1e-3, high=1e4, steps=40)
print(len(found.rates), found.losses[0], min(found.losses), found.losses[-1])
"""


@pytest.mark.slow
def test_range_test(python):
    """The rates of a range test are those of its steps: the loss falls, then diverges, and the test ends there."""
    process = python("-c", RANGE, env=FOUR)
    out, err = process.communicate(timeout=200)
    assert process.returncode == 0, err
    count, first, least, last = map(float, out.split())
    assert count < 40
    assert least < 0.8 * first < last
