"""`zoo doctor` checks every converter and runtime, and reports what is broken and how to fix it."""

from __future__ import annotations

import functools
import json
import subprocess

import pytest

import export
from export.core.compression import compressions
from export.core.format import formats
from export.doctor import BROKEN, MISSING, WORKS, _installed, _version, check_installation


@pytest.fixture(scope="module")
def found():
    """The results of all checks in this environment."""
    return {result.name: result for result in check_installation()}


@pytest.mark.slow
def test_everything_that_is_installed_works(found):
    """Every format and every compression, each with its versions and duration."""
    assert found.keys() == {*export.list_formats(exclude="their_*"), *export.list_compressions(exclude="their_*")}
    assert {name: r.reason for name, r in found.items() if r.status == BROKEN} == {}
    for name in ("onnx", "tflite_int8", "saved_model", "qat"):
        assert found[name].status == WORKS, found[name].reason
        assert found[name].seconds > 0
        assert all(found[name].versions.values())


def test_a_broken_runtime_is_named(zoo_command, monkeypatch):
    """With ONNX Runtime hidden, its formats are broken and the others are not; exit code 2."""
    import export.inspection.commands as commands

    monkeypatch.setattr(subprocess, "Popen", functools.partial(subprocess.Popen, warm=True))

    def hide(**_):
        return check_installation(["onnxruntime"], names=["onnx", "tflite"])

    monkeypatch.setattr(commands, "check_installation", hide)
    code, out, err = zoo_command("doctor", "--json")
    found = {result["name"]: result for result in json.loads(out)}
    assert code == 2
    assert err.strip() == "zoo: 1 of 2 do not work here: onnx"
    assert found["onnx"]["status"] == BROKEN
    assert "onnxruntime" in found["onnx"]["reason"]
    assert "pip install" in found["onnx"]["reason"]
    assert found["tflite"]["status"] == WORKS


def test_a_missing_package_is_no_failure():
    """It is reported with the command that installs it."""
    result = _installed("mine", "format", ("numpy", "no_such_module"))
    assert result.status == MISSING
    assert "pip install no-such-module" in result.reason
    assert result.versions == {"numpy": _version("numpy"), "no-such-module": None}


def test_required_packages_are_known():
    """Every required module is installed here, under the name of its package."""
    for registry in (formats, compressions):
        for name in registry.names(exclude="their_*"):
            assert all(_version(module) not in (None, "unknown") for module in registry[name].packages), name
