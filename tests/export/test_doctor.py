"""`zoo doctor` tries every converter and runtime here, and says what is broken and what mends it."""

from __future__ import annotations

import json

import pytest

import export
from export.core.compression import compressions
from export.core.format import formats
from export.doctor import BROKEN, MISSING, WORKS, _installed, _version, diagnose


@pytest.fixture(scope="module")
def found():
    """What the doctor says of this environment."""
    return {result.name: result for result in diagnose()}


@pytest.mark.slow
def test_everything_that_is_installed_works(found):
    """Every format and every compression, each with its versions and how long it took."""
    assert found.keys() == {*export.list_formats(exclude="their_*"), *export.list_compressions(exclude="their_*")}
    assert {name: r.reason for name, r in found.items() if r.state == BROKEN} == {}
    for name in ("onnx", "tflite_int8", "saved_model", "qat"):
        assert found[name].state == WORKS, found[name].reason
        assert found[name].seconds > 0
        assert all(found[name].versions.values())


def test_a_broken_runtime_is_named(zoo_command, monkeypatch):
    """With ONNX Runtime hidden from the trial: its formats are broken, the others are not; exit code 2."""
    import export.inspection.commands as commands

    def hide(**_):
        return diagnose(["onnxruntime"], names=["onnx", "tflite"])

    monkeypatch.setattr(commands, "diagnose", hide)
    code, out, err = zoo_command("doctor", "--json")
    found = {result["name"]: result for result in json.loads(out)}
    assert code == 2
    assert err.strip() == "zoo: 1 of 2 do not work here: onnx"
    assert found["onnx"]["state"] == BROKEN
    assert "onnxruntime" in found["onnx"]["reason"]
    assert "pip install" in found["onnx"]["reason"]
    assert found["tflite"]["state"] == WORKS


def test_what_is_not_installed_is_no_fault():
    """It is named with what installs it."""
    result = _installed("mine", "format", ("numpy", "no_such_module"))
    assert result.state == MISSING
    assert "pip install no-such-module" in result.reason
    assert result.versions == {"numpy": _version("numpy"), "no-such-module": None}


def test_needs_are_known():
    """What each of ours needs is installed where all is tested, under the name that it is installed by."""
    for registry in (formats, compressions):
        for name in registry.names(exclude="their_*"):
            assert all(_version(module) not in (None, "unknown") for module in registry[name].packages), name
