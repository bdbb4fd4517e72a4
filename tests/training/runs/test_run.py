"""The run directory: its files, refused runs, its lock, and a full disk."""

from __future__ import annotations

import contextlib
import json
import math
import os
import platform
import resource
import shutil
import subprocess
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest

import training
import zoo
from training import DataConfig, Recipe, Run
from training.checkpoints.files import _read
from training.learning.evaluation import load_model
from training.recipe.recipe import recipes, resolve
from zoo.common.errors import RunError, ZooError
from zoo.common.files import whole_folder, write_atomic, write_bytes, write_json
from zoo.reading.json_files import read_json

RECIPE = Recipe("test", data=DataConfig("digits", batch_size=32))
METRICS = {"loss", "accuracy", "val_loss", "val_accuracy", "learning_rate", "images_per_second", "data_wait", "seconds"}


@contextlib.contextmanager
def refused(match, error=RunError):
    """Expect an error with one line."""
    with pytest.raises(error, match=match) as caught:
        yield
    assert "\n" not in str(caught.value)


def names(folder):
    """Return the names of all files and folders below a folder."""
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*"))


@pytest.fixture
def run(tmp_path):
    """A new run directory."""
    return Run.create(RECIPE, tmp_path / "runs" / "one")


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


def test_recipe_in_the_run_has_no_folder_of_the_user(tmp_path, monkeypatch):
    """Paths are relative in the file, absolute in the recipe, from any directory and after the project has moved."""
    (tmp_path / "project/photos").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "project")
    recipe = resolve(RECIPE, {"data.path": "photos"}.items())
    assert recipe.data.path == str(tmp_path / "project/photos")
    run = Run.create(recipe, Path("runs/one"))
    assert str(tmp_path) not in (run.path / "recipe.json").read_text()
    monkeypatch.chdir("/")
    assert Run.open(run.path).recipe == recipe
    (tmp_path / "project").rename(tmp_path / "moved")
    assert Run.open(tmp_path / "moved/runs/one").recipe.data.path == str(tmp_path / "moved/photos")


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


def test_new_run_goes_below_runs(tmp_path, monkeypatch):
    """Without a path, each run gets a new folder runs/<recipe>/<time>-<4 hex>."""
    monkeypatch.chdir(tmp_path)
    one, two = Run.create(RECIPE), Run.create(RECIPE)
    assert one.path.parent == two.path.parent
    assert one.path.resolve().parent == tmp_path / "runs/test"
    assert one.path.name[15:16] == "-"
    assert int(one.path.name[16:], 16) < 1 << 16
    assert one.path != two.path


def test_new_run_in_an_empty_folder(tmp_path):
    """An empty folder is accepted."""
    assert Run.open(Run.create(RECIPE, tmp_path).path).recipe == RECIPE
    assert sorted(p.name for p in tmp_path.iterdir()) == ["env.json", "recipe.json"]


def test_new_run_in_the_current_folder(tmp_path, monkeypatch):
    """A dot is the current folder."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    Run.create(RECIPE, ".")
    assert (tmp_path / "here/recipe.json").is_file()


def test_folder_that_holds_something_is_refused(tmp_path):
    """A file, or a folder with content, is refused before anything is written or computed."""
    (tmp_path / "notes.txt").write_text("mine")
    for place in (tmp_path, tmp_path / "notes.txt"):
        with refused(r"empty or missing folder for a new run.*zoo train --resume"):
            Run.create(RECIPE, place)
        with refused(r"empty or missing folder for a new run"):
            training.train("folder_resnet18", {"data.path": "nowhere"}, run=place)
    assert names(tmp_path) == ["notes.txt"]


def test_missing_run(tmp_path):
    """A path without a run is refused, with how to make one."""
    for place in (tmp_path, tmp_path / "nowhere"):
        with refused(r"Expected a run directory.*zoo train RECIPE"):
            Run.open(place)


@pytest.mark.parametrize("version", [0, 2, None, "1"])
def test_other_version_is_refused(run, version):
    """A run of another format version is refused."""
    content = json.loads((run.path / "recipe.json").read_text()) | {"version": version}
    (run.path / "recipe.json").write_text(json.dumps(content))
    with refused(f"version 1. Received: .* of version {version}"):
        Run.open(run.path)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b'{"version": 1, "recipe": {"na',
        b"\xff\xfe\x00",
        b'{"version": 1}',
        b'{"version": 1, "recipe": {"name": "x", "epochz": 3}}',
        b'{"version": 1, "recipe": {"name": "x", "epochs": "three"}}',
        b"[1]",
        b"null",
    ],
)
def test_damaged_recipe_is_refused(run, content):
    """An unreadable recipe.json gives one line that names the run."""
    (run.path / "recipe.json").write_bytes(content)
    with refused(str(run.path)):
        Run.open(run.path)


def test_unfinished_run_has_no_result(run):
    """Without done.json there is no result, and the message explains how to get one."""
    assert not run.finished
    with refused(rf"zoo train --resume {run.path}"):
        run.result()
    with refused("no done.json"):
        training.evaluate(run)


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


def test_metrics_survive_a_truncated_line(run):
    """A truncated last line is dropped, and the next row starts a new line."""
    for epoch in (1, 2):
        run.add_metrics({"epoch": epoch, "loss": 1.0 / epoch})
    with open(run.path / "metrics.jsonl", "a") as file:
        file.write('{"epoch": 3, "lo')
    assert [row["epoch"] for row in run.metrics()] == [1, 2]
    run.add_metrics({"epoch": 3, "loss": 0.1})
    assert [row["epoch"] for row in run.metrics()] == [1, 2, 3]
    assert len((run.path / "metrics.jsonl").read_text().splitlines()) == 3


def test_rows_from_before_a_resume_are_replaced(run):
    """The row of an epoch replaces those of this epoch and later."""
    for epoch in (1, 2, 3):
        run.add_metrics({"epoch": epoch, "loss": 1.0})
    run.add_metrics({"epoch": 2, "loss": 2.0})
    assert [(row["epoch"], row["loss"]) for row in run.metrics()] == [(1, 1.0), (2, 2.0)]


def test_no_metrics_yet(run):
    """A new run has no rows."""
    assert run.metrics() == []


HOLD = """
import sys
import training
with training.Run.open(sys.argv[1]).lock():
    print("held", flush=True)
    sys.stdin.read()
"""


def test_second_process_is_refused(run, python, zoo_command):
    """Only one process can train in a run; the lock ends with the process, even after kill -9."""
    process = python("-c", HOLD, run.path, stdin=subprocess.PIPE, warm=True)
    try:
        assert process.stdout.readline() == "held\n"
        with refused("no other command that trains or exports"), run.lock():
            pass
        before = names(run.path)
        code, out, err = zoo_command("train", "--resume", run.path)
        assert (code, out, err.count("\n")) == (2, "", 1)
        assert "no other command that trains or exports" in err
        assert names(run.path) == before
    finally:
        process.kill()
        process.communicate()
    with run.lock():
        pass


def failing(content):
    """Return a function that writes a part and then fails as on a full disk."""

    def write(path):
        path.write_bytes(content)
        raise OSError(28, "No space left on device")

    return write


def test_write_atomic_leaves_the_old_content(tmp_path):
    """If writing fails, the old content stays, and no temporary file is left."""
    path = tmp_path / "file.bin"
    write_bytes(path, b"old")
    with refused(r"Could not write .*file\.bin: No space left on device.*unchanged"):
        write_atomic(path, failing(b"ne"))
    assert path.read_bytes() == b"old"
    with pytest.raises(KeyError):
        write_atomic(path, lambda temporary: temporary.write_bytes(b"n") and {}["x"])
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["file.bin"]


def test_write_atomic_makes_folders_and_replaces(tmp_path):
    """Missing folders are created, and an existing file is replaced."""
    for content in (b"1", b"22"):
        write_bytes(tmp_path / "a/b/c.bin", content)
    assert (tmp_path / "a/b/c.bin").read_bytes() == b"22"
    assert names(tmp_path) == ["a", "a/b", "a/b/c.bin"]


def test_whole_folder_is_whole_or_not_there(tmp_path):
    """A folder appears with all its files or not at all; an old one stays until the new one is complete."""
    place = tmp_path / "deep" / "folder"
    with pytest.raises(ZeroDivisionError), whole_folder(place) as temporary:  # noqa: PT012 - it fails half way
        (temporary / "a").write_text("x")
        assert not place.exists()
        raise ZeroDivisionError
    assert names(tmp_path) == ["deep"]
    with whole_folder(place) as temporary:
        (temporary / "a").write_text("old")
    with refused("Could not write .*No space left"), whole_folder(place) as temporary:
        (temporary / "a").write_text("new")
        raise OSError(28, "No space left on device")
    assert (place / "a").read_text() == "old"
    with whole_folder(place) as temporary:
        (temporary / "b").write_text("new")
    assert names(tmp_path) == ["deep", "deep/folder", "deep/folder/b"]
    assert place.stat().st_mode & 0o777 == 0o755


def test_json_is_strict(tmp_path):
    """Numbers that are not finite become null, and invalid JSON is refused."""
    write_json(tmp_path / "a.json", {"nan": math.nan, "list": [math.inf, (1.5, "é")]})
    assert "NaN" not in (tmp_path / "a.json").read_text()
    assert read_json(tmp_path / "a.json") == {"nan": None, "list": [None, [1.5, "é"]]}
    (tmp_path / "b.json").write_text("{")
    for name in ("b.json", "none.json"):
        with refused(name):
            read_json(tmp_path / name)


@contextlib.contextmanager
def largest_file(size):
    """Limit the size of the files that this process writes, as a full disk does."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_model_that_finds_the_disk_full(digits_run, tmp_path):
    """A model that cannot be written completely leaves the old one, no temporary files, and one line."""
    import keras

    model = keras.saving.load_model(digits_run.model_path, compile=False)
    path = tmp_path / "model.keras"
    shutil.copy(digits_run.model_path, path)
    with largest_file(20_000), refused(r"Could not write .*model\.keras"):
        write_atomic(path, model.save)
    assert path.read_bytes() == digits_run.model_path.read_bytes()
    assert names(tmp_path) == ["model.keras"]


def checkpointed(run, epoch, process):
    """Wait until the last checkpoint of a run is at an epoch or later."""
    path = run / "checkpoints/last.safetensors"
    until = time.monotonic() + 120
    while time.monotonic() < until and process.poll() is None:
        with contextlib.suppress(ZooError):
            progress = _read(path)[1]
            if progress.epoch >= epoch:
                return
        time.sleep(0.02)
    pytest.fail(f"No checkpoint of epoch {epoch}: {process.communicate(timeout=10)}")


@pytest.mark.slow
def test_a_run_that_is_deleted_does_not_come_back(tmp_path, python):
    """The training ends in one line; at most TensorBoard's writer makes its own folder again."""
    run = tmp_path / "run"
    changes = [f"--set={pair}" for pair in ("epochs=2000", "model.options.widths=[16]", "log.every=0")]
    process = python("-m", "zoo", "train", "digits_mlp", *changes, "--run", run, "--quiet")
    checkpointed(run, 1, process)
    shutil.rmtree(run, ignore_errors=True)
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err.count("\n")) == (2, 1)
    assert "/run" in err
    assert {path.name for path in run.glob("*")} <= {"tensorboard"}


def test_full_disk_stops_training_in_one_line(tmp_path, python):
    """On a full disk, the command reports it in one line, and the last checkpoint is intact."""
    run = tmp_path / "run"
    changes = [f"--set={pair}" for pair in ("epochs=2000", "model.options.widths=[16]", "log.every=0")]
    process = python("-m", "zoo", "train", "digits_mlp", *changes, "--run", run, "--quiet")
    try:
        checkpointed(run, 1, process)
        # A checkpoint is larger than this, so the next save fails.
        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (4000, resource.RLIM_INFINITY))
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
        process.communicate()
    assert process.returncode == 2, err
    assert out == ""
    assert len(err.splitlines()) == 1
    assert "File too large" in err
    assert not [name for name in names(run) if ".writing" in name]
    arrays, progress = _read(run / "checkpoints/last.safetensors")
    assert progress.epoch >= 1
    assert all(np.isfinite(value).all() for value in arrays.values())
    assert {row["epoch"] for row in Run.open(run).metrics()} >= set(range(1, progress.epoch + 1))


REFUSED = {
    "unknown recipe": (["digit_mlp"], "Did you mean 'digits_mlp'"),
    "no recipe": ([], "either RECIPE"),
    "recipe and resume": (["digits_mlp", "--resume", "x"], "either RECIPE"),
    "resume with a directory": (["--resume", "x", "--run", "y"], "Expected --resume alone"),
    "resume nothing": (["--resume", "nowhere"], "Expected a run directory"),
    "no such option": (["digits_mlp", "--epochs", "3"], "--epochs"),
    "no value": (["digits_mlp", "--set", "epochs"], "key=value"),
    "unknown key": (["digits_mlp", "--set", "epoch=3"], "Did you mean 'epochs'"),
    "below an option": (["digits_mlp", "--set", "model.options.a.b=3"], "model.options"),
    "empty part": (["digits_mlp", "--set", "model.=3"], "model."),
    "wrong type": (["digits_mlp", "--set", "epochs=many"], "a whole number"),
    "out of range": (["digits_mlp", "--set", "epochs=0"], "epochs must be from 1"),
    "negative seed": (["digits_mlp", "--set", "seed=-1"], "seed"),
    "large seed": (["digits_resnet", "--set", "seed=99999999999999999999999"], "seed"),
    "unknown model": (["digits_mlp", "--set", "model.name=resnet_20"], "Did you mean 'resnet20'"),
    "unknown model option": (["digits_mlp", "--set", "model.options.dropot=0.1"], "Did you mean 'dropout'"),
    "impossible model option": (["digits_mlp", "--set", "model.options.dropout=2"], "dropout must be"),
    "image too small": (["digits_resnet", "--set", "model.name=resnet50"], "at least 32x32"),
    "unknown data": (["digits_mlp", "--set", "data.name=digit"], "Did you mean 'digits'"),
    "odd data": (["digits_mlp", "--set", "data.name=mnist:9.9.9"], "mnist:9.9.9"),
    "no folder": (["digits_mlp", "--set", "data.name=folder"], "data.path"),
    "two channels": (["digits_resnet", "--set", "data.channels=2"], "data.channels"),
    "no mean": (["digits_mlp", "--set", "data.preprocessing.mean=[]"], "mean"),
    "two deviations": (["digits_mlp", "--set", "data.preprocessing.std=[1,2]"], "channels"),
    "unknown optimizer": (["digits_mlp", "--set", "optimizer.name=sgdd"], "Did you mean 'sgd'"),
    "wrapping optimizer": (["digits_mlp", "--set", "optimizer.name=multioptimizer"], "optimizer.name"),
    "long warm-up": (["digits_mlp", "--set", "epochs=1"], "schedule.warmup_epochs must be less than"),
    "one with two": (["digits_mlp", "--set", "replicas=2"], "strategy=mirrored"),
    "more replicas than rows": (
        ["digits_mlp", "--set", "strategy=mirrored", "--set", "replicas=8", "--set", "data.batch_size=4"],
        "multiple of the number of replicas",
    ),
    "name that leads elsewhere": (
        ["digits_mlp", "--set", "name=../x", "--set", "epochs=1", "--set", "schedule.warmup_epochs=0"],
        "name",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_command_refuses_in_one_line_and_leaves_nothing(case, tmp_path, monkeypatch, zoo_command):
    """A run that cannot be trained gives exit code 2 and one line with the reason; no run directory is created."""
    arguments, message = REFUSED[case]
    monkeypatch.chdir(tmp_path)
    code, out, err = zoo_command("train", *arguments)
    assert (code, out) == (2, "")
    assert err.count("\n") == 1
    assert err.startswith("zoo: ")
    assert message in err
    assert list(tmp_path.iterdir()) == []


def test_commands_refuse_a_run_that_is_not_finished(run, zoo_command):
    """Evaluating an unfinished run gives one line with how to finish it."""
    code, out, err = zoo_command("evaluate", run.path)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert f"zoo train --resume {run.path}" in err
