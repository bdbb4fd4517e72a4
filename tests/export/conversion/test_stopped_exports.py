"""Exports that end by a signal, or lose their run: no process and no visible file is left."""

from __future__ import annotations

import contextlib
import shutil
import signal
import time
from pathlib import Path

import pytest

import export
from export.core.manifest import NAME
from training.runs.run import Run
from zoo.common.errors import ExportError


def writers(folder):
    """The processes that have a file below a folder open."""
    found = set()
    for handle in Path("/proc").glob("[0-9]*/fd/*"):
        with contextlib.suppress(OSError):
            if str(handle.readlink()).startswith(f"{folder}/"):
                found.add(int(handle.parts[2]))
    return found


def converting(run, python):
    """A command that exports, in the middle of a conversion: its process."""
    process = python("-m", "zoo", "export", run.path, "--format", "onnx", "tflite", warm=True)
    deadline = time.monotonic() + 120
    while not list(run.exports.glob(".writing-*/*/*")) and time.monotonic() < deadline:
        time.sleep(0.05)
    # The converter writes its messages into a file there.
    assert len(writers(run.exports)) == 2
    return process


def gone(folder, seconds=10):
    """Whether no process has files in a folder open, at once or soon."""
    deadline = time.monotonic() + seconds
    while (left := writers(folder)) and time.monotonic() < deadline:
        time.sleep(0.05)
    return not left


@pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGHUP, marks=pytest.mark.slow)])
def test_export_that_is_stopped_cleans_up(run, python, number, visible):
    """One line, the exit code of the signal, no process and no file left."""
    process = converting(run, python)
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (128 + number, f"zoo: Stopped by {number.name}\n")
    assert [name for name in visible(run) if not (run.exports / name / NAME).is_file()] == []
    assert gone(run.exports)


def test_export_killed_leaves_nothing_visible(run, python, their_formats, visible):
    """kill -9 while the child converts: only a hidden folder, which the next export removes.

    A converter that takes its process down is named with the signal, and leaves nothing either.
    """
    process = converting(run, python)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert gone(run.exports), "the converter of a killed command goes on"
    assert all(name.startswith(".") or (run.exports / name / NAME).is_file() for name in visible(run))
    with pytest.raises(ExportError, match=r"killed by signal 6"):
        export.convert(run, ["onnx", "their_dying"])
    assert visible(run) == ["onnx"]


@pytest.mark.slow
def test_a_run_that_is_deleted_does_not_come_back(run, python, tmp_path):
    """The export ends in one line, and no folder is there afterwards."""
    copy = shutil.copytree(run.path, tmp_path / "copy", ignore=shutil.ignore_patterns("exports"))
    process = converting(Run.open(copy), python)
    shutil.rmtree(copy)
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err.count("\n")) == (2, 1)
    assert "a folder that was removed meanwhile" in err
    assert not copy.exists()
