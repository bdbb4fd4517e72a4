"""ONNX that computes in float16 and takes and gives float32, for processors that have such arithmetic."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import TYPE_CHECKING

from export.backends.onnx import passes
from export.backends.onnx.convert import files_of, finish
from export.backends.onnx.external import is_external
from export.backends.onnx.float16 import halve, too_large
from export.backends.onnx.options import PLAIN, OnnxOptions, register_onnx
from export.core.format import HALF
from zoo.common.errors import UnsupportedExport
from zoo.common.lazy import LazyModule

if TYPE_CHECKING:
    from export.source.source import Source

onnx = LazyModule("onnx")

LOOKED_AT = 16, 2  # batches of calibration data, and examples in each, for all activations of a batch are kept


def write(source: Source, path: Path, options: OnnxOptions = PLAIN) -> None:
    """Write ONNX with float16 weights and activations, half the size.

    What scales the raw values stays float32, and so does every operator that reads or gives values beyond float16 on
    the calibration data.

    Args:
        source: what to export; its calibration data tells which values are too large.
        path: file to write; the folder of a network that writes sequences.
        options: what was asked for.

    Raises:
        UnsupportedExport: the model has an operator that ONNX lacks, or weights of two gigabytes and more.
    """
    count, size = LOOKED_AT
    floating = dict(files_of(source, source.shared("onnx")))
    for part, file in files_of(source, path):
        model = onnx.load(str(floating[part]))
        if is_external(model):
            raise UnsupportedExport(
                "ONNX Runtime's converter to float16 takes weights of less than two gigabytes. "
                f"Received: model={source.metadata['model']}. Use onnx."
            )
        excluded = too_large(model, itertools.islice(source.feeds(part, size), count))
        model = halve(model, {*excluded, *passes.normalization(model)})
        finish(model, source, file, options)


register_onnx(
    "onnx_fp16",
    write,
    HALF,
    "ONNX, float16 weights and arithmetic, float32 in and out; for GPUs and NPUs, a processor gains the size alone",
    guarantees=("float16_weights",),
)
