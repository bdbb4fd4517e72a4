"""Named sets of formats for a platform: `zoo export RUN --for android`."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

from export.conversion.pipeline import unsupported_reason
from export.core.format import formats, parse_format
from training.runs.run import Run
from zoo.specs.registry import ModelSpec


@dataclasses.dataclass(frozen=True)
class Target:
    """A platform for artifacts.

    Args:
        why: the reason for these formats, one sentence.
        formats: the formats, with options if needed.
    """

    why: str
    formats: tuple[str, ...]


TARGETS = {
    "android": Target(
        "LiteRT is part of Google Play services: float32 for the GPU, float16 for half the download, int8 for CPUs and "
        "NPUs.",
        ("tflite", "tflite_fp16", "tflite_dynamic", "tflite_int8"),
    ),
    "ios": Target(
        "LiteRT's Metal and Core ML delegates run float files, its CPU kernels int8; ONNX Runtime Mobile supports Core "
        "ML too.",
        ("tflite", "tflite_fp16", "tflite_int8", "onnx"),
    ),
    "browser": Target(
        "ONNX Runtime Web runs float32 and float16 on WebGPU and int8 on WebAssembly; LiteRT.js runs the float file.",
        ("onnx", "onnx_fp16", "onnx_int8", "tflite"),
    ),
    "server": Target(
        "TensorFlow Serving loads the SavedModel; Triton and ONNX Runtime load the ONNX files, int8 for CPU servers.",
        ("saved_model", "onnx", "onnx_int8", "onnx_dynamic"),
    ),
    "intel": Target(
        "OpenVINO runs on Intel CPUs, GPUs and NPUs; ONNX Runtime's int8 uses the CPU's VNNI instructions.",
        ("openvino", "openvino_int8", "onnx", "onnx_int8"),
    ),
}


def formats_for(run: Run | ModelSpec | None, target: str) -> tuple[list[str], dict[str, str]]:
    """Return a target's formats that a run or model supports, and the reason against each of the others.

    None is a model of which nothing is known before it is opened.
    """
    return _supported(run, TARGETS[target].formats)


def every_format(run: Run | ModelSpec | None) -> tuple[list[str], dict[str, str]]:
    """Return all formats that a run or model supports here, and the reasons as in `formats_for`."""
    return _supported(run, formats.names())


def _supported(run: Run | ModelSpec | None, names: Iterable[str]) -> tuple[list[str], dict[str, str]]:
    reasons = {text: reason for text in names if (reason := _reason(run, text))}
    return [text for text in names if text not in reasons], reasons


def _reason(run: Run | ModelSpec | None, text: str) -> str:
    """Return why a format is not supported, "" if it is."""
    request = parse_format(text)
    missing = _missing_package(request.format.name)
    # Without its package a format cannot check a run.
    return missing if missing or run is None else unsupported_reason(run, request)


def _missing_package(name: str) -> str:
    """Return which package of a format is not installed, "" if all are."""
    package = formats[name].missing
    return f"it needs the package {package!r}, which is not installed" if package else ""
