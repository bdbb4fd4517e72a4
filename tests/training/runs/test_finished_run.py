"""A finished run: its files, recipe, metrics, events, environment and result; changed files are refused."""

from __future__ import annotations

import json
import math
import os
import platform
import shutil
import zipfile

import pytest
from run_checks import names, refused

import training
import zoo
from training import Run
from training.learning.evaluation import load_model
from training.recipe.recipe import recipes
from zoo.common.files import write_json

METRICS = {"loss", "accuracy", "val_loss", "val_accuracy", "learning_rate", "images_per_second", "data_wait", "seconds"}


def test_finished_run_has_its_files(digits_run):
    """A finished run has recipe, environment, metrics, events, checkpoints, model, result and no temporary files."""
    path = digits_run.path
    for name in ("recipe.json", "env.json", "metrics.jsonl", "model.keras", "done.json"):
        assert (path / name).is_file()
    assert {p.name for p in digits_run.checkpoints.iterdir()} == {
        f"{n}.safetensors" for n in ("best", "last", "previous")
    }
    assert not [name for name in names(path) if ".writing" in name or ".replaced" in name]
    assert not list(path.parent.glob(".writing*"))
    assert digits_run.finished
    # TensorFlow puts the name of the machine there.
    events = [place.name for place in digits_run.tensorboard.rglob("events*")]
    assert events
    assert not [name for name in events if platform.node() in name]


def test_recipe_in_the_run_is_the_one_that_was_trained(digits_run, quick):
    """recipe.json alone is enough to train the same model again."""
    again = Run.open(digits_run.path)
    assert again.recipe == digits_run.recipe == recipes["digits_resnet"].override(**quick)
    assert json.loads((digits_run.path / "recipe.json").read_text())["version"] == 1


def test_done_is_written_last(digits_run):
    """No file of the training is newer than done.json."""
    done = (digits_run.path / "done.json").stat().st_mtime_ns
    written = [digits_run.path / name for name in ("recipe.json", "env.json", "metrics.jsonl", "model.keras")]
    written += [*digits_run.checkpoints.iterdir(), *(p for p in digits_run.tensorboard.rglob("*") if p.is_file())]
    assert max(p.stat().st_mtime_ns for p in written) <= done


def test_metrics_have_one_row_an_epoch(digits_run):
    """Every epoch has one row with all metrics, all finite."""
    rows = digits_run.metrics()
    assert [row["epoch"] for row in rows] == list(range(1, digits_run.recipe.epochs + 1))
    for row in rows:
        assert set(row) == METRICS | {"epoch"}
        assert all(math.isfinite(value) for value in row.values())
    assert len((digits_run.path / "metrics.jsonl").read_text().splitlines()) == len(rows)
    assert rows[-1]["loss"] < rows[0]["loss"]


def test_events_are_read_by_tensorboard(digits_run):
    """TensorBoard finds each metric by epoch, with training and validation separate."""
    import tensorflow as tf
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    rows = digits_run.metrics()
    for part, wanted in (
        ("train", METRICS - {"val_loss", "val_accuracy"}),
        ("validation", {"loss", "accuracy", "misclassified"}),
    ):
        events = EventAccumulator(str(digits_run.tensorboard / part), size_guidance={"tensors": 0})
        events.Reload()
        assert set(events.Tags()["tensors"]) == wanted
        key = "accuracy" if part == "train" else "val_accuracy"
        found = events.Tensors("accuracy")
        assert [event.step for event in found] == [row["epoch"] for row in rows]
        values = [float(tf.make_ndarray(event.tensor_proto)) for event in found]
        assert values == pytest.approx([row[key] for row in rows])


def test_environment_describes_machine_and_versions(digits_run):
    """env.json has the processor, the cores and the relevant versions."""
    found = digits_run.environment()
    assert {"tensorflow", "keras", "numpy"} <= set(found["versions"])
    assert found["cores"] == os.cpu_count()
    assert found["processor"]
    assert found["python"].startswith("3.")


def test_result_has_what_export_needs(digits_run):
    """done.json holds metrics of the test split, labels, shape, preprocessing and durations."""
    result = digits_run.result()
    assert result["version"] == 1
    assert result["labels"] == list("0123456789")
    assert result["input_shape"] == [8, 8, 1]
    assert result["preprocessing"]["mean"] == [78.0]
    assert result["splits"] == {"train": 1293, "validation": 144, "test": 360}
    assert result["test"]["split"] == "test"
    assert result["test"]["examples"] == 360
    assert sum(map(sum, result["test"]["confusion"])) == 360
    correct = sum(row[i] for i, row in enumerate(result["test"]["confusion"]))
    assert result["test"]["accuracy"] == pytest.approx(correct / 360)
    assert result["seconds"] > 0
    assert (result["precision"], result["strategy"], result["replicas"]) == ("float32", "one", 1)


def rewritten(path, old, new):
    """Write the archive of a model again, whole, with another configuration."""
    with zipfile.ZipFile(path) as archive:
        members = {entry.filename: archive.read(entry) for entry in archive.infolist()}
    config = members["config.json"]
    assert old in config
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in (members | {"config.json": config.replace(old, new)}).items():
            archive.writestr(name, content)


def test_changed_files_are_refused(digits_run, tmp_path):
    """A whole model that computes something else, and other statistics; runs without digests have no such check."""
    import keras

    changed = Run.open(shutil.copytree(digits_run.path, tmp_path / "run"))
    changed.check_files()
    rewritten(changed.model_path, b'"relu"', b'"elu"')
    assert isinstance(zoo.load_model(changed.model_path), keras.Model)
    for use in (training.evaluate, load_model, lambda run: training.resume(run, overrides={"epochs": 99})):
        with refused(r"Received: .*model\.keras: it was changed after the training\. Restore the file"):
            use(changed)
    assert changed.finished
    result = {key: value for key, value in changed.result().items() if key not in ("version", "files")}
    write_json(changed.path / "done.json", {"version": 1, **result})
    changed.check_files()
    shutil.copy(digits_run.model_path, changed.model_path)
    shutil.copy(digits_run.path / "done.json", changed.path)
    changed.check_files()
    (changed.path / "data.json").write_text("{}")
    with refused(r"data\.json: it was changed"):
        changed.check_files()
