"""ONNX in float16 with float32 inputs and outputs, for hardware with float16 arithmetic."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import TYPE_CHECKING

from export.backends.onnx import passes
from export.backends.onnx.convert import files_of, finish
from export.backends.onnx.external import is_external
from export.backends.onnx.float16 import halve, too_large
from export.backends.onnx.options import PLAIN, OnnxOptions, register_onnx
from export.core.tolerance import FLOAT16_TOLERANCE
from zoo.common.errors import UnsupportedExport
from zoo.common.lazy import LazyModule

if TYPE_CHECKING:
    from export.source.source import SourceModel

onnx = LazyModule("onnx")

# Calibration batches, and examples in each: all activations of a batch are in memory.
BATCHES, BATCH_SIZE = 16, 2


def write(source: SourceModel, path: Path, options: OnnxOptions = PLAIN) -> None:
    """Write ONNX with float16 weights and activations, half the size.

    The preprocessing stays float32, and so does every operator with inputs or outputs outside the float16 range on the
    calibration data.

    Args:
        source: the model to convert; its calibration data shows which values are too large.
        path: file to write; a folder for sequence-to-sequence models.
        options: the format's options.

    Raises:
        UnsupportedExport: ONNX lacks an operator of the model, or its weights have two gigabytes or more.
    """
    float_files = dict(files_of(source, source.artifact_path("onnx")))
    for part, file in files_of(source, path):
        model = onnx.load(str(float_files[part]))
        if is_external(model):
            raise UnsupportedExport(
                "ONNX Runtime's float16 converter supports weights below two gigabytes. "
                f"Received: model={source.metadata['model']}. Use onnx."
            )
        excluded = too_large(model, itertools.islice(source.feeds(part, BATCH_SIZE), BATCHES))
        model = halve(model, {*excluded, *passes.preprocessing_nodes(model)})
        finish(model, source, file, options)


register_onnx(
    "onnx_fp16",
    write,
    FLOAT16_TOLERANCE,
    "ONNX, float16 weights and arithmetic, float32 inputs and outputs; for GPUs and NPUs, on CPUs only smaller",
    guarantees=("float16_weights",),
)
