"""Interrupted and resumed training ends exactly where uninterrupted training does."""

from __future__ import annotations

import contextlib
import json
import shutil
import signal
import time

import pytest

import training
from training import Run
from training.checkpoints.files import _read
from training.data.readers.loading import load_dataset
from zoo.common.errors import RunError

# What has a state: moments, dropout, a schedule, the best epoch so far.
SMALL = {
    "recipe": "digits_mlp",
    "model.options.widths": [16],
    "epochs": 2,
    "data.batch_size": 16,
    "save": "best",
    "log.misclassified": 0,
}
# In addition momentum, batch norm and augmentation.
LARGE = {
    "recipe": "digits_resnet",
    "model.name": "resnet_tiny",
    "model.options.dropout": 0.2,
    "epochs": 3,
    "schedule.warmup_epochs": 1,
    "data.batch_size": 16,
    "data.augment.flip": True,
    "save": "best",
}
# The signals of each epoch.
STOPS = {"SIGTERM": signal.SIGTERM, "SIGKILL": signal.SIGKILL, "SIGINT": signal.SIGINT}


def command(*arguments, **changes):
    """Return the arguments of Python for `zoo train`."""
    pairs = [f"--set={key}={json.dumps(value)}" for key, value in changes.items()]
    return ["-m", "zoo", "train", *arguments, *pairs, "--quiet"]


def last(run):
    """Return the path of the last checkpoint."""
    return run / "checkpoints/last.safetensors"


def when_at(run, process, epoch, step):
    """Wait until the last checkpoint of a run is at a step of an epoch, or later."""
    until = time.monotonic() + 180
    while process.poll() is None and time.monotonic() < until:
        with contextlib.suppress(RunError):
            progress = _read(last(run))[1]
            if (progress.epoch, progress.step) >= (epoch, step):
                return
        time.sleep(0.01)
    process.kill()
    pytest.fail(f"Never came to epoch {epoch}, step {step}: {process.communicate()}")


def ended(process):
    """Wait for a process; return its exit code, standard output and standard error."""
    try:
        out, err = process.communicate(timeout=180)
    finally:
        process.kill()
    return process.returncode, out, err


def stop(python, run, arguments, number, at):
    """Start training, send a signal at (epoch, step), and return how it ended."""
    process = python(*arguments)
    when_at(run, process, *at)
    process.send_signal(number)
    return ended(process)


@pytest.fixture(scope="module", params=[SMALL, pytest.param(LARGE, marks=pytest.mark.slow)], ids=["small", "large"])
def story(request, tmp_path_factory, python):
    """An uninterrupted run, and one that is stopped in each epoch, by SIGTERM, kill -9 and SIGINT, and resumed.

    Returns the two runs, a copy of the second as SIGTERM left it, and the result of each stop.
    """
    folder = tmp_path_factory.mktemp("resume")
    whole, broken, copy = folder / "whole", folder / "broken", folder / "copy"
    recipe, changes = request.param["recipe"], {key: value for key, value in request.param.items() if key != "recipe"}
    load_dataset(training.DataConfig("digits"))
    stops, places = {}, {}
    # A checkpoint after each step, so that kill -9 always finds one.
    arguments = command(recipe, "--run", broken, **changes, checkpoint_seconds=0)
    for epoch, (name, number) in zip(range(changes["epochs"]), STOPS.items()):  # noqa: B905
        stops[name] = stop(python, broken, arguments, number, (epoch, 10))
        places[name] = _read(last(broken))[1]
        arguments = command("--resume", broken)
        if not epoch:
            shutil.copytree(broken, copy)
    # What kill -9 leaves if it interrupts the save of a checkpoint.
    (broken / "checkpoints/.writing-999999-last.safetensors").write_bytes(b"half")
    stops["end"] = ended(python(*arguments))
    training.train(recipe, changes, run=whole)
    return {"whole": whole, "broken": broken, "copy": copy, "stops": stops, "places": places}


def assert_equal(one, two):
    """Compare two finished runs: every variable to the bit, every metric of every epoch, the result."""
    for name in ("last", "best"):
        (arrays1, progress1), (arrays2, progress2) = (
            _read(run / f"checkpoints/{name}.safetensors") for run in (one, two)
        )
        assert len(arrays1) == len(arrays2)
        pairs = zip(sorted(arrays1.items()), sorted(arrays2.items()), strict=True)
        assert [key for (key, a), (_, b) in pairs if a.tobytes() != b.tobytes()] == []
        assert (progress1.epoch, progress1.best) == (progress2.epoch, progress2.best)
    rows = [Run.open(run).metrics() for run in (one, two)]
    for row in (*rows[0], *rows[1]):
        del row["seconds"], row["images_per_second"], row["data_wait"]
    assert rows[0] == rows[1]
    assert len(rows[0]) == Run.open(one).recipe.epochs
    results = [Run.open(run).result() for run in (one, two)]
    for key in ("test", "best", "preprocessing", "splits", "parameters"):
        assert results[0][key] == results[1][key]


def test_interrupted_run_finishes(story):
    """It succeeds, and prints one line with the result."""
    code, out, err = story["stops"]["end"]
    assert (code, err) == (0, "")
    assert "accuracy" in out


def test_signal_saves_and_prints_how_to_resume(story):
    """SIGTERM and SIGINT stop after the step: exit code 128 + n, and one line with the command that resumes."""
    for name in story["places"].keys() - {"SIGKILL"}:
        code, out, err = story["stops"][name]
        assert code == 128 + STOPS[name], err
        assert (out, err.count("\n")) == ("", 1)
        assert f"zoo train --resume {story['broken']}" in err
        place = story["places"][name]
        assert f"epoch {place.epoch}, step {place.step}" in err


def test_stops_are_in_the_middle_of_epochs(story):
    """The control: each stop is in the middle of an epoch."""
    assert story["stops"]["SIGKILL"][0] == -9
    recipe = Run.open(story["broken"]).recipe
    for place in story["places"].values():
        assert 0 < place.step < 1293 // recipe.data.batch_size
    assert [place.epoch for place in story["places"].values()] == list(range(recipe.epochs))


def test_resumed_run_equals_the_uninterrupted_one(story):
    """After SIGTERM, kill -9 and SIGINT, weights, moments, averages and metrics equal the uninterrupted run's."""
    assert_equal(story["whole"], story["broken"])


def test_resumed_run_leaves_no_temporary_files(story):
    """Files that kill -9 left half written are gone when the run has finished."""
    assert [p.name for p in story["broken"].rglob(".writing*")] == []


@pytest.mark.slow
def test_resuming_in_a_process_that_built_other_models_before(story):
    """The Python API resumes in a process with other models, and ends in the same place."""
    import zoo

    zoo.get("mlp_tiny", dropout=0.5)
    run = training.resume(story["copy"])
    assert run.finished
    assert_equal(story["whole"], story["copy"])


def test_resuming_a_finished_run_returns_at_once(story, zoo_command):
    """Resuming a finished run returns it, and changes nothing in it."""
    run = story["whole"]
    before = {p: p.stat().st_mtime_ns for p in run.rglob("*")}
    start = time.monotonic()
    code, out, err = zoo_command("train", "--resume", run)
    assert (code, err) == (0, "")
    assert str(run) in out
    assert training.resume(run).path == run
    assert time.monotonic() - start < 2
    assert {p: p.stat().st_mtime_ns for p in run.rglob("*")} == before


@pytest.fixture
def damaged(story, tmp_path):
    """A copy of an unfinished run with a wrong bit in its last checkpoint."""
    shutil.copytree(story["whole"], tmp_path / "run")
    for name in ("done.json", "model.keras", "metrics.jsonl"):
        (tmp_path / "run" / name).unlink()
    shutil.copy(story["whole"] / "metrics.jsonl", tmp_path / "run")
    flip(last(tmp_path / "run"))
    return tmp_path / "run"


def flip(path):
    """Flip a bit in the middle of a file."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)


def test_damaged_checkpoint_resumes_from_the_previous_one(story, damaged, zoo_command, recwarn):
    """One line reports it, and the last epoch is trained again with the same result."""
    code, out, _ = zoo_command("train", "--resume", damaged, "--quiet")
    assert code == 0
    assert "accuracy" in out
    messages = [str(w.message) for w in recwarn if "safetensors" in str(w.message)]
    assert len(messages) == 1
    assert "\n" not in messages[0]
    assert "does not match the checksum: the file is damaged. Resuming from the previous checkpoint" in messages[0]
    assert f"{damaged}/checkpoints/previous.safetensors" in messages[0]
    assert [row["damaged"] for row in Run.open(damaged).diagnostics() if "damaged" in row] == messages
    assert_equal(story["whole"], damaged)
    assert training.diagnose(damaged).measurements > 0


def test_two_damaged_checkpoints_are_refused(damaged, zoo_command):
    """The error has one line; training does not start anew silently."""
    flip(damaged / "checkpoints/previous.safetensors")
    before = {p: p.read_bytes() for p in damaged.rglob("*.safetensors")}
    code, out, err = zoo_command("train", "--resume", damaged)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert err.startswith("zoo: Expected one readable checkpoint.")
    assert "last.safetensors" in err
    assert "previous.safetensors" in err
    assert {p: p.read_bytes() for p in damaged.rglob("*.safetensors")} == before


def test_damaged_best_checkpoint_is_refused(story, tmp_path, zoo_command):
    """The best weights are also read from a file with a checksum."""
    shutil.copytree(story["whole"], tmp_path / "run")
    (tmp_path / "run/done.json").unlink()
    flip(tmp_path / "run/checkpoints/best.safetensors")
    code, out, err = zoo_command("train", "--resume", tmp_path / "run")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "best.safetensors" in err


def test_run_that_was_killed_before_its_result_is_finished_by_resume(story, tmp_path):
    """If only the model and the result are missing, resuming writes them, the same as before."""
    shutil.copytree(story["whole"], tmp_path / "run")
    wanted = Run.open(story["whole"]).result()
    for name in ("done.json", "model.keras"):
        (tmp_path / "run" / name).unlink()
    run = training.resume(tmp_path / "run")
    assert run.result()["test"] == wanted["test"]
    assert run.result()["best"] == wanted["best"]
