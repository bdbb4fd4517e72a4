"""ONNX with int8 weights in matrix products; ONNX Runtime quantizes their activations at run time."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from export.backends.onnx import passes
from export.backends.onnx.convert import files_of, finish
from export.backends.onnx.external import is_external
from export.backends.onnx.options import PLAIN_INT8, Int8Options, register_onnx
from export.backends.onnx.quantize import quantizing
from export.core.tolerance import INT8_TOLERANCE
from zoo.common.lazy import LazyModule

if TYPE_CHECKING:
    from export.source.source import SourceModel

onnx = LazyModule("onnx")


def write(source: SourceModel, path: Path, options: Int8Options = PLAIN_INT8) -> None:
    """Write ONNX with per-channel int8 weights in matrix products; the runtime quantizes activations.

    Convolutions stay float32: ONNX Runtime's dynamic ones took ten times as long in a ResNet-50. Activations have one
    range per batch, so that a prediction depends slightly on the other examples in the batch.

    Args:
        source: the model to convert.
        path: file to write; a folder for sequence-to-sequence models.
        options: the format's options.

    Raises:
        UnsupportedExport: ONNX lacks an operator of the model.
    """
    float_files = dict(files_of(source, source.artifact_path("onnx")))
    for part, file in files_of(source, path):
        model = onnx.load(str(float_files[part]))
        external = is_external(model, options.external)
        with quantizing(model, file.parent, external) as (quantization, float_path, quantized_path):
            quantization.quantize_dynamic(
                float_path,
                quantized_path,
                op_types_to_quantize=["MatMul", "Gemm", "Gather"],
                weight_type=quantization.QuantType.QInt8,
                per_channel=True,
                reduce_range=options.reduce_range,
                use_external_data_format=external,
                extra_options={"MatMulConstBOnly": True},
            )
            model = onnx.load(quantized_path)
        passes.drop_unused(model)
        finish(model, source, file, options)


register_onnx(
    "onnx_dynamic",
    write,
    INT8_TOLERANCE,
    "ONNX for transformers, per-channel int8 weights in matrix products, activations quantized at run time",
    guarantees=("int8_matrices",),
    options=Int8Options,
)
