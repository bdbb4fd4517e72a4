"""ONNX in float32, run in ONNX Runtime."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from export.backends.onnx.convert import convert, files_of, finish
from export.backends.onnx.options import PLAIN, OnnxOptions, register_onnx
from export.core.format import FLOAT

if TYPE_CHECKING:
    from export.source.source import Source


def write(source: Source, path: Path, options: OnnxOptions = PLAIN) -> None:
    """Write float32 ONNX with standard operators only.

    Args:
        source: what to export.
        path: file to write; the folder of a network that writes sequences.
        options: what was asked for.

    Raises:
        UnsupportedExport: the model has an operator that ONNX lacks.
    """
    for part, file in files_of(source, path):
        model = convert(part, source.metadata["model"], file.parent, options.external)
        finish(model, source, file, options)


register_onnx(
    "onnx",
    write,
    FLOAT,
    "ONNX, float32, free batch; runs in ONNX Runtime, OpenVINO, TensorRT and others",
)
