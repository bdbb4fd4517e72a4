"""The public API of `export`: names, results and explicit arguments."""

from __future__ import annotations

import dataclasses
import inspect
import types

import pytest

import export
from export.core.metadata import model_metadata
from export.core.tolerance import INT8_TOLERANCE, Tolerance
from export.verification.artifact import Artifact

FUNCTIONS = sorted(name for name in export.__all__ if inspect.isfunction(getattr(export, name)))


def test_functions_are_not_shadowed_by_modules():
    """No sub-package or module has the name of a public function."""
    assert {"convert", "inspect", "load", "pick", "report", "verify"} <= set(FUNCTIONS)
    assert not [name for name in export.__all__ if isinstance(getattr(export, name), types.ModuleType)]


@pytest.mark.parametrize("name", ["Artifact", "Inspection", "Pick", "Report"])
def test_results_are_frozen_and_json_safe(name):
    """Dataclasses that nobody can change, with `to_json`."""
    result = getattr(export, name)
    assert dataclasses.is_dataclass(result)
    assert result.__dataclass_params__.frozen
    assert callable(result.to_json)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_arguments_are_explicit(name):
    """No `**options`, but for the fields of a format's own dataclass; every argument and result has a type."""
    signature = inspect.signature(getattr(export, name))
    keywords = [p for p in signature.parameters.values() if p.kind is inspect.Parameter.VAR_KEYWORD]
    assert not keywords or name == "register_format"
    assert all(p.annotation is not inspect.Parameter.empty for p in signature.parameters.values())
    assert signature.return_annotation is not inspect.Signature.empty
    assert inspect.getdoc(getattr(export, name))


def test_artifacts_to_json():
    """The manifest with the artifact's path."""
    from pathlib import Path

    manifest = {"format": "onnx", "artifact": "model.onnx", "parity": {"passed": True}}
    artifact = Artifact(Path("exports/onnx/model.onnx"), manifest)
    assert artifact.to_json() == {"path": "exports/onnx/model.onnx", **manifest}
    assert (artifact.name, artifact.format, artifact.folder) == ("onnx", "onnx", Path("exports/onnx"))


def test_tolerance_of_sequences_and_drops():
    """Integers may move attention; a user's `max_drop` replaces the format's own."""
    assert INT8_TOLERANCE.for_sequences() == dataclasses.replace(INT8_TOLERANCE, relative=1.0)
    assert INT8_TOLERANCE.with_max_drop(1.6) == Tolerance(
        0.5, pytest.approx(0.96), 0.016, pytest.approx(7.5, abs=0.01), True
    )
    assert INT8_TOLERANCE.with_max_drop(None) is INT8_TOLERANCE


def test_metadata_names_the_output_by_task():
    """Values for regression, tokens for sequences, logits else."""
    outputs = {task: model_metadata("m", task, ("ids", "int32", (4,)), [])["output"] for task in ("regress", "tag")}
    assert outputs == {"regress": "values", "tag": "logits"}
