"""ONNX with int8 weights and uint8 activations, at ranges seen on calibration data."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from export.backends.onnx import passes
from export.backends.onnx.convert import files_of, finish
from export.backends.onnx.external import is_external
from export.backends.onnx.options import PLAIN, OnnxOptions, register_onnx
from export.backends.onnx.quantize import quantizing
from export.core.format import INTEGER
from zoo.common.lazy import LazyModule

if TYPE_CHECKING:
    import numpy as np
    from onnx import ModelProto

    from export.source.source import Source

onnx = LazyModule("onnx")

# Left in float32: operators that lose accuracy in 8 bits, or whose conversions cost more than they save.
QUANTIZED = (
    "Conv", "ConvTranspose", "Gemm", "MatMul", "Add", "Mul", "Relu", "Clip", "LeakyRelu", "MaxPool", "AveragePool",
    "GlobalAveragePool", "Concat", "Pad", "Resize", "Flatten", "Reshape", "Squeeze", "Transpose",
)  # fmt: skip
CALIBRATED = 8  # examples at once, for all activations of a batch are kept


def write(source: Source, path: Path, options: OnnxOptions = PLAIN) -> None:
    """Write ONNX whose weights are int8 by channel and whose activations are uint8, as Q/DQ pairs.

    Args:
        source: what to export; its calibration data gives the ranges of the activations.
        path: file to write; the folder of a network that writes sequences.
        options: what was asked for.

    Raises:
        UnsupportedExport: the model has an operator that ONNX lacks.
    """
    floating = dict(files_of(source, source.shared("onnx")))
    for part, file in files_of(source, path):
        model = onnx.load(str(floating[part]))
        passes.convolve_batch_norms(model)
        passes.drop_unused(model)
        model = _quantize(model, source.feeds(part, CALIBRATED), file.parent, options)
        passes.keep_logits_float(model)
        passes.drop_unused(model)
        finish(model, source, file, options)


def _quantize(
    model: ModelProto, feeds: Iterator[dict[str, np.ndarray]], folder: Path, options: OnnxOptions
) -> ModelProto:
    """Return the model with Q/DQ pairs at the ranges seen on the calibration data."""
    # Attention loses accuracy in 8 bits and gains no time between its products: there those with weights alone are
    # quantized, and give float32.
    attention = any(node.op_type == "Softmax" for node in model.graph.node)
    left = {"OpTypesToExcludeOutputQuantization": list(passes.WEIGHTED)} if attention else {}
    outside = is_external(model, options.external)
    with quantizing(model, folder, outside) as (tool, floating, quantized):
        tool.quantize_static(
            floating,
            quantized,
            _reader(feeds),
            quant_format=tool.QuantFormat.QDQ,
            op_types_to_quantize=list(passes.WEIGHTED if attention else QUANTIZED),
            # uint8 with int8 is what ONNX Runtime has its fastest x86 kernels for.
            activation_type=tool.QuantType.QUInt8,
            weight_type=tool.QuantType.QInt8,
            per_channel=True,
            nodes_to_exclude=[*passes.normalization(model), *passes.products(model)],
            calibrate_method=tool.CalibrationMethod.MinMax,
            use_external_data_format=outside,
            extra_options=left,
        )
        return onnx.load(quantized)


def _reader(feeds: Iterator[dict[str, np.ndarray]]) -> Any:
    """Return a calibration reader of batches."""
    base = importlib.import_module("onnxruntime.quantization").CalibrationDataReader

    class Reader(base):
        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(feeds, None)

    return Reader()


register_onnx(
    "onnx_int8",
    write,
    INTEGER,
    "ONNX, int8 weights by channel and uint8 activations (Q/DQ), calibrated; float32 in and out",
    guarantees=("int8",),
)
