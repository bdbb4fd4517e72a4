"""Named sets of formats: what to ship to a place, `zoo export RUN --for android`."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

from export.core.format import formats, parse_format
from export.pipeline import ruled_out
from training.runs.run import Run
from zoo.specs.registry import ModelSpec


@dataclasses.dataclass(frozen=True)
class Target:
    """A place that artifacts go to.

    Args:
        why: a sentence for people.
        formats: what to export for it, with options where they are needed.
    """

    why: str
    formats: tuple[str, ...]


TARGETS = {
    "android": Target(
        "LiteRT is part of Google Play services: float32 for the GPU, float16 at half the download, int8 for "
        "processors and NPUs.",
        ("tflite", "tflite_fp16", "tflite_dynamic", "tflite_int8"),
    ),
    "ios": Target(
        "LiteRT's Metal and Core ML delegates take float files, its processor kernels int8; ONNX Runtime Mobile has "
        "Core ML too.",
        ("tflite", "tflite_fp16", "tflite_int8", "onnx"),
    ),
    "browser": Target(
        "ONNX Runtime Web runs float32 and float16 on WebGPU and int8 on WebAssembly; LiteRT.js takes the float file.",
        ("onnx", "onnx_fp16", "onnx_int8", "tflite"),
    ),
    "server": Target(
        "TensorFlow Serving takes the SavedModel, Triton and ONNX Runtime the ONNX files, int8 where processors serve.",
        ("saved_model", "onnx", "onnx_int8", "onnx_dynamic"),
    ),
    "intel": Target(
        "OpenVINO for Intel processors, GPUs and NPUs; ONNX Runtime's int8 uses the processors' VNNI.",
        ("openvino", "openvino_int8", "onnx", "onnx_int8"),
    ),
}


def formats_for(run: Run | ModelSpec, target: str) -> tuple[list[str], dict[str, str]]:
    """Return what to export a run or model to for a target, and why what else belongs there is left out, by format."""
    return _divided(run, TARGETS[target].formats)


def every_format(run: Run | ModelSpec) -> tuple[list[str], dict[str, str]]:
    """Return the formats that a run or model can be had in here, and why the others cannot be, by format."""
    return _divided(run, formats.names())


def _divided(run: Run | ModelSpec, names: Iterable[str]) -> tuple[list[str], dict[str, str]]:
    left = {text: reason for text in names if (reason := _reason(run, text))}
    return [text for text in names if text not in left], left


def _reason(run: Run | ModelSpec, text: str) -> str:
    """Return why a format cannot be had, "" if it can."""
    wanted = parse_format(text)
    return _lacking(wanted.format.name) or ruled_out(run, wanted)


def _lacking(name: str) -> str:
    """Return what is not installed that a format needs, "" if nothing is."""
    package = formats[name].missing
    return f"it needs the package {package!r}, which is not installed" if package else ""
