"""ONNX in float32, run in ONNX Runtime."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from export.backends.onnx.convert import convert, files_of, finish
from export.backends.onnx.options import PLAIN, OnnxOptions, register_onnx
from export.core.tolerance import FLOAT32_TOLERANCE

if TYPE_CHECKING:
    from export.source.source import SourceModel


def write(source: SourceModel, path: Path, options: OnnxOptions = PLAIN) -> None:
    """Write float32 ONNX with standard operators only.

    Args:
        source: the model to convert.
        path: file to write; a folder for sequence-to-sequence models.
        options: the format's options.

    Raises:
        UnsupportedExport: ONNX lacks an operator of the model.
    """
    for part, file in files_of(source, path):
        model = convert(part, source.metadata["model"], file.parent, options.external)
        finish(model, source, file, options)


register_onnx(
    "onnx",
    write,
    FLOAT32_TOLERANCE,
    "ONNX, float32, dynamic batch; runs in ONNX Runtime, OpenVINO, TensorRT and others",
)
