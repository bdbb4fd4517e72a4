"""Exports that are refused, or whose artifacts are wrong: one error, and nothing left of them."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

import export
import training
from export.core.manifest import NAME
from training.runs.run import Run
from zoo.common.errors import ExportError, ParityError, RunError, UnsupportedExport
from zoo.common.files import write_json
from zoo.reading.json_files import read_json


def test_wrong_artifacts_are_refused_and_leave_nothing(run, their_formats, zoo_command, visible):
    """One line and exit code 2 for all of them; the other format is exported and printed all the same.

    One kernel is negated, the labels have another order (wrong predictions with correct metrics), a converter raises.
    """
    wrong = ("their_broken", "their_renamed", "their_raising")
    code, out, err = zoo_command("export", run.path, "--format", *wrong, "onnx")
    assert (code, err.count("\n")) == (2, 1)
    header, row = out.splitlines()
    assert (header.split()[0], row.split()[0]) == ("format", "onnx")
    message = (
        r"their_broken of .* failed verification on 360 examples: max error \S+ \(tolerance 0\.0001\), "
        r"top-1 agreement \S+ % \(minimum 100 %\), accuracy \S+ % \(source \S+ %, largest drop 0 points\)"
    )
    assert re.search(message, err)
    assert "The metadata in the artifact must equal its source's" in err
    assert "their_raising could not be converted: ValueError: no such operator: Fancy" in err
    assert visible(run) == ["onnx"]


def test_the_error_has_the_artifacts_of_other_formats(run, their_formats):
    """`completed` has those that passed, and is empty where one format alone was asked for."""
    with pytest.raises(ExportError, match="no such operator") as caught:
        export.convert(run, ["their_raising", "keras"])
    assert [artifact.name for artifact in caught.value.completed] == ["keras"]
    export.verify(caught.value.completed[0].path)
    with pytest.raises(ExportError, match="no such operator") as caught:
        export.convert(run, "their_raising")
    assert caught.value.completed == ()


@pytest.mark.slow
def test_remedies_are_tried_in_order(run, their_formats, zoo_command, visible):
    """One line for each attempt; the manifest has the refused ones, and without --auto the first error ends it."""
    command = ("export", run.path, "--format", "their_repairable")
    code, _, err = zoo_command(*command)
    assert code == 2
    assert 'Try, in this order: --format "their_repairable:better=true"; --format "their_repairable:better=true,' in err
    assert visible(run) == []
    code, _, err = zoo_command(*command, "--auto")
    lines = [line for line in err.splitlines() if " is refused: accuracy lower by " in line]
    assert code == 0
    assert [line.split(" is refused")[0] for line in lines] == [
        "zoo: their_repairable", 'zoo: --format "their_repairable:better=true"',
    ]  # fmt: skip
    assert visible(run) == ["their_repairable+better=true+whole=true"]
    manifest = read_json(run.exports / visible(run)[0] / NAME)
    assert [attempt["tried"] for attempt in manifest["attempts"]] == [line.split(" is")[0][5:] for line in lines]
    assert all("accuracy" in attempt["failed"] for attempt in manifest["attempts"])
    export.verify(run.exports / visible(run)[0])


@pytest.mark.slow
def test_all_remedies_fail(run, their_formats, visible):
    """The first error, with what was tried; a float format has nothing to try."""
    lines = []
    tried = r"failed verification.* Tried without success: .*better=true.*; .*better=true,whole=true"
    with pytest.raises(ParityError, match=tried):
        export.convert(run, "their_hopeless", auto=lines.append)
    assert len(lines) >= 3
    lines.clear()
    with pytest.raises(ParityError, match="failed verification"):
        export.convert(run, "their_broken", auto=lines.append)
    assert lines == []
    assert visible(run) == []


@pytest.mark.slow
@pytest.mark.parametrize(("name", "error", "message"), [
    ("their_broken", ParityError, "failed verification"),
    ("their_renamed", ParityError, "metadata"),
    ("their_raising", ExportError, "no such operator: Fancy"),
])  # fmt: skip
def test_a_wrong_artifact_is_refused(run, their_formats, name, error, message, visible):
    """Each alone has its own error."""
    with pytest.raises(error, match=message):
        export.convert(run, name)
    assert visible(run) == []


def test_unsupported_format_is_refused_before_anything_runs(run, monkeypatch):
    """A spec that rules a format out gives its reason."""
    import dataclasses

    from zoo.specs.registry import models

    model = models["resnet_tiny"]
    spec = dataclasses.replace(model.spec, unsupported=(("tflite", "it has a layer that phones lack"),))
    monkeypatch.setitem(models._entries, "resnet_tiny", dataclasses.replace(model, spec=spec))
    with pytest.raises(UnsupportedExport, match="a layer that phones lack"):
        export.convert(run, "tflite")


@pytest.mark.slow
def test_rebuild_that_is_another_function_is_refused(run, visible):
    """If the recipe builds another model than model.keras, nothing is exported."""
    changed = read_json(run.path / "recipe.json")
    changed["recipe"]["model"]["name"] = "resnet20"
    write_json(run.path / "recipe.json", changed)
    with pytest.raises(RunError, match=r"Expected a readable model\. Received: .*model\.keras"):
        export.convert(run.path, "onnx")
    assert visible(run) == []


@pytest.mark.slow
def test_second_export_replaces_the_first(run, visible):
    """The same format again: still one whole artifact."""
    export.convert(run, "onnx")
    export.convert(run, "onnx")
    assert visible(run) == ["onnx"]
    export.verify(run.exports / "onnx")


def test_a_run_in_training_is_not_exported(run):
    """A run in use is not exported."""
    with run.lock():
        command = [sys.executable, "-m", "zoo", "export", run.path, "--format", "onnx"]
        done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2
    assert "which is locked" in done.stderr


@pytest.mark.parametrize("arguments", [
    ("export", "{run}", "--format", "tflite_int9"),
    ("export", "{run}"),
    ("export", "{run}/nowhere", "--format", "onnx"),
    ("verify", "{run}"),
    ("verify", "{run}/nowhere"),
    ("report", "{run}/nowhere"),
])  # fmt: skip
def test_bad_input_is_one_line(zoo_command, run, arguments, visible):
    """Exit code 2, one line on standard error, nothing on standard output, nothing left."""
    code, out, err = zoo_command(*(a.format(run=run.path) for a in arguments))
    assert (code, out, err.count("\n")) == (2, "", 1), err
    assert visible(run) == []


def test_unfinished_run_is_refused(tmp_path):
    """A run without done.json has no model yet."""
    run = Run.create(training.get_recipe("digits_mlp"), tmp_path / "run")
    with pytest.raises(RunError, match="--resume"):
        export.convert(run, "onnx")
