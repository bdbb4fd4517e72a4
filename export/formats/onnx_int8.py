"""ONNX with int8 weights and uint8 activations, by static quantization with calibration data."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from export.backends.onnx import passes
from export.backends.onnx.convert import files_of, finish
from export.backends.onnx.external import is_external
from export.backends.onnx.histograms import Feeds, activation_ranges
from export.backends.onnx.options import PLAIN_STATIC, StaticOptions, register_onnx
from export.backends.onnx.quantize import quantizing
from export.backends.onnx.runtime import OnnxRuntime
from export.backends.onnx.smoothing import has_attention, smooth
from export.backends.onnx.tables import quantize_tables
from export.core.layer_names import matching
from export.core.tolerance import INT8_TOLERANCE
from export.quantization.options import LEARNED, MINMAX
from export.quantization.write import Chosen, write_quantized
from zoo.common.lazy import LazyModule, np

if TYPE_CHECKING:
    import numpy as _np
    from onnx import ModelProto

    from export.source.source import SourceModel

onnx = LazyModule("onnx")

# Others stay float32: they lose accuracy in 8 bits, or their conversions cost more than they save.
QUANTIZED = (
    "Conv", "ConvTranspose", "Gemm", "MatMul", "Add", "Mul", "Relu", "Clip", "LeakyRelu", "MaxPool", "AveragePool",
    "GlobalAveragePool", "Concat", "Pad", "Resize", "Flatten", "Reshape", "Squeeze", "Transpose",
)  # fmt: skip
BATCH_SIZE = 8  # of calibration data: all activations of a batch are in memory


def write(source: SourceModel, path: Path, options: StaticOptions = PLAIN_STATIC) -> dict[str, Any]:
    """Write ONNX with per-channel int8 weights and uint8 activations, as Q/DQ pairs.

    Args:
        source: the model to convert; its calibration data gives the activation ranges.
        path: file to write; a folder for sequence-to-sequence models.
        options: the format's options.

    Returns:
        How it was quantized, for the manifest.

    Raises:
        UnsupportedExport: ONNX lacks an operator of the model.
    """

    def write(source: SourceModel, path: Path, chosen: Chosen) -> None:
        _write(source, path, options, chosen)

    return write_quantized(write, OnnxRuntime, source, path, options)


def _write(source: SourceModel, path: Path, options: StaticOptions, chosen: Chosen) -> None:
    """Write the files with what was chosen on the calibration data."""
    float_files = dict(files_of(source, source.artifact_path("onnx")))
    for part, file in files_of(source, path):
        model = onnx.load(str(float_files[part]))
        passes.convolve_batch_norms(model)
        passes.drop_unused(model)
        feeds = functools.partial(source.feeds, part, BATCH_SIZE)
        if has_attention(model):
            quantize_tables(model)
            if options.rounding != LEARNED:  # whose kernels must stay on their grid
                smooth(model, feeds(), file.parent)
            passes.drop_unused(model)
        model = _quantize(model, feeds, file.parent, options, chosen)
        passes.keep_logits_float(model)
        passes.keep_weights_float(model)
        passes.drop_unused(model)
        finish(model, source, file, options)


def _quantize(model: ModelProto, feeds: Feeds, folder: Path, options: StaticOptions, chosen: Chosen) -> ModelProto:
    """Return the model with Q/DQ pairs at the calibration ranges."""
    # Attention loses accuracy in 8 bits and gains no time between its products: models with attention have quantized
    # operators with weights only, and these have float32 outputs.
    attention = has_attention(model)
    kinds = list(passes.WEIGHTED if attention else QUANTIZED)
    extra: dict[str, Any] = {"OpTypesToExcludeOutputQuantization": list(passes.WEIGHTED)} if attention else {}
    extra |= _overrides(model, feeds, kinds, folder, chosen)
    floats = matching([node.name for node in model.graph.node], chosen.excluded, chosen.layers)
    external = is_external(model, options.external)
    with quantizing(model, folder, external) as (quantization, float_path, quantized_path):
        quantization.quantize_static(
            float_path,
            quantized_path,
            _reader(feeds()),
            quant_format=quantization.QuantFormat.QDQ,
            op_types_to_quantize=kinds,
            # ONNX Runtime's fastest x86 kernels are those for uint8 activations with int8 weights.
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
            per_channel=options.per_channel,
            reduce_range=options.reduce_range,
            nodes_to_exclude=[*passes.preprocessing_nodes(model), *passes.activation_products(model), *floats],
            calibrate_method=quantization.CalibrationMethod.MinMax,
            use_external_data_format=external,
            extra_options=extra,
        )
        return onnx.load(quantized_path)


def _overrides(model: ModelProto, feeds: Feeds, kinds: list[str], folder: Path, chosen: Chosen) -> dict[str, Any]:
    """Return the option of the quantizer with the ranges of a calibration method other than its own."""
    if chosen.calibration == MINMAX:
        return {}
    found = activation_ranges(model, feeds, kinds, folder)(chosen.calibration)
    ranges = {name: [{"rmin": np.float32(low), "rmax": np.float32(high)}] for name, (low, high) in found.items()}
    return {"TensorQuantOverrides": ranges}


def _reader(feeds: Iterator[dict[str, _np.ndarray]]) -> Any:
    """Return a calibration reader of batches."""
    base = importlib.import_module("onnxruntime.quantization").CalibrationDataReader

    class Reader(base):
        def get_next(self) -> dict[str, _np.ndarray] | None:
            return next(feeds, None)

    return Reader()


register_onnx(
    "onnx_int8",
    write,
    INT8_TOLERANCE,
    "ONNX, per-channel int8 weights and uint8 activations (Q/DQ), calibrated; float32 inputs and outputs",
    guarantees=("int8",),
    options=StaticOptions,
)
