"""Files and folders are written whole or not at all, also on a full disk and in a folder that is deleted."""

from __future__ import annotations

import contextlib
import math
import resource
import shutil
import time

import numpy as np
import pytest
from run_checks import names, refused

from training import Run
from training.checkpoints.files import _read
from zoo.common.errors import ZooError
from zoo.common.files import whole_folder, write_atomic, write_bytes, write_json
from zoo.reading.json_files import read_json


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
