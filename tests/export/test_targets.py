"""The formats of a platform: those of a model, and those of a Keras file, of which nothing is known yet."""

from __future__ import annotations

import dataclasses
import importlib.util

import pytest

import zoo
from export.core.format import formats
from export.targets import TARGETS, every_format, formats_for


@pytest.fixture
def without_onnx(monkeypatch):
    """The format onnx needs a package that is not installed."""
    monkeypatch.setitem(formats._entries, "onnx", dataclasses.replace(formats["onnx"], packages=("no_such_package",)))


@pytest.mark.parametrize("model", [None, "resnet_tiny"])
def test_formats_without_their_package_are_left_out(without_onnx, model):
    """With the reason, of a file as of a registered model."""
    spec = zoo.spec(model) if model else None
    found, reasons = formats_for(spec, "browser")
    assert found == [name for name in TARGETS["browser"].formats if name != "onnx"]
    assert reasons == {"onnx": "it needs the package 'no_such_package', which is not installed"}
    assert every_format(spec)[1] == reasons


def test_a_package_that_is_not_installed(monkeypatch):
    """OpenVINO itself, whose formats check for it: both are left out, and the others stay."""
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *more: None if name == "openvino" else find(name, *more)
    )
    for spec in (None, zoo.spec("resnet_tiny")):
        found, reasons = formats_for(spec, "intel")
        assert found == ["onnx", "onnx_int8"]
        assert reasons.keys() == {"openvino", "openvino_int8"}


def test_a_file_is_asked_for_every_format():
    """What a model of it does not support is known when it is converted."""
    assert every_format(None) == (formats.names(), {})
