"""ONNX with int8 weights in matrix products; ONNX Runtime quantizes their activations at run time."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from export.backends.onnx import blocks, passes
from export.backends.onnx.convert import files_of, finish
from export.backends.onnx.external import is_external
from export.backends.onnx.options import Int8Options, register_onnx
from export.backends.onnx.quantize import quantizing
from export.backends.onnx.smoothing import has_attention, smooth
from export.backends.onnx.tables import quantize_tables
from export.core.options import REMEDY
from export.core.tolerance import INT8_TOLERANCE
from zoo.common.errors import BadOption
from zoo.common.lazy import LazyModule

if TYPE_CHECKING:
    from export.source.source import SourceModel

onnx = LazyModule("onnx")


BATCH_SIZE = 8  # of calibration data: all activations of a batch are in memory
SMALLEST_BLOCK = 16  # of ONNX Runtime


@dataclasses.dataclass(frozen=True)
class DynamicOptions(Int8Options):
    """Options of the ONNX format with int8 weights and activations that are quantized at run time.

    Args:
        block: quantize blocks of so many inputs of a matrix product with a scale each, a power of two: the error is a
            third, and ONNX Runtime takes longer than in float32 for all but short texts. Sets opset=21. 0 for a scale
            for each output.
    """

    block: int = dataclasses.field(default=0, metadata={REMEDY: 32})

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.block and (self.block < SMALLEST_BLOCK or self.block & (self.block - 1)):
            raise BadOption(
                f"block must be a power of two of at least {SMALLEST_BLOCK}, or 0. Received: block={self.block}"
            )

    def check(self, metadata: Mapping[str, Any]) -> None:
        """Raise BadOption for options that do not apply together."""
        super().check(metadata)
        if self.block and self.reduce_range:
            raise BadOption(f"block needs all 8 bits. Received: block={self.block}, reduce_range=true. Leave one out.")


PLAIN = DynamicOptions()


def write(source: SourceModel, path: Path, options: DynamicOptions = PLAIN) -> None:
    """Write ONNX with per-channel int8 weights in matrix products; the runtime quantizes activations.

    Convolutions stay float32: ONNX Runtime's dynamic ones took ten times as long in a ResNet-50. Activations have one
    range per batch, so that a prediction depends slightly on the other examples in the batch; with blocks they have
    one for each block of each token.

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
        lookups = quantize_tables(model)
        if has_attention(model):
            smooth(model, source.feeds(part, BATCH_SIZE), file.parent)
        if options.block:
            model = passes.raise_opset(model, blocks.OPSET)
            blocks.quantize_blocks(model, options.block)
        passes.drop_unused(model)
        external = is_external(model, options.external)
        with quantizing(model, file.parent, external) as (quantization, float_path, quantized_path):
            quantization.quantize_dynamic(
                float_path,
                quantized_path,
                op_types_to_quantize=["MatMul", "Gemm", "Gather"],
                weight_type=quantization.QuantType.QInt8,
                per_channel=True,
                reduce_range=options.reduce_range,
                nodes_to_exclude=lookups,
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
    options=DynamicOptions,
)
