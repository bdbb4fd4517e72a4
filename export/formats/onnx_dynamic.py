"""ONNX with int8 weights in its matrix products, whose activations ONNX Runtime quantizes as it goes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from export.backends.onnx import passes
from export.backends.onnx.convert import files_of, finish
from export.backends.onnx.external import is_external
from export.backends.onnx.options import PLAIN, OnnxOptions, register_onnx
from export.backends.onnx.quantize import quantizing
from export.core.format import INTEGER
from zoo.common.lazy import LazyModule

if TYPE_CHECKING:
    from export.source.source import Source

onnx = LazyModule("onnx")


def write(source: Source, path: Path, options: OnnxOptions = PLAIN) -> None:
    """Write ONNX whose matrix products have int8 weights by channel; the runtime quantizes activations as it goes.

    Convolutions stay float32: ONNX Runtime's dynamic ones took ten times as long as those in a ResNet-50. Activations
    have one range for a whole batch, so that an answer depends a little on what else is asked at once.

    Args:
        source: what to export.
        path: file to write; the folder of a network that writes sequences.
        options: what was asked for.

    Raises:
        UnsupportedExport: the model has an operator that ONNX lacks.
    """
    floating = dict(files_of(source, source.shared("onnx")))
    for part, file in files_of(source, path):
        model = onnx.load(str(floating[part]))
        outside = is_external(model, options.external)
        with quantizing(model, file.parent, outside) as (tool, given, quantized):
            tool.quantize_dynamic(
                given,
                quantized,
                op_types_to_quantize=["MatMul", "Gemm", "Gather"],
                weight_type=tool.QuantType.QInt8,
                per_channel=True,
                use_external_data_format=outside,
                extra_options={"MatMulConstBOnly": True},
            )
            model = onnx.load(quantized)
        passes.drop_unused(model)
        finish(model, source, file, options)


register_onnx(
    "onnx_dynamic",
    write,
    INTEGER,
    "ONNX for transformers, int8 weights by channel in matrix products, activations quantized as it runs",
    guarantees=("int8_matrices",),
)
