"""LiteRT with float16 weights, half the size; the runtime converts them to float32 on load."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from export.backends.litert.options import FloatOptions, register_litert
from export.backends.litert.quantize import qtyping, quantizer, write_weights
from export.core.tolerance import FLOAT16_TOLERANCE

if TYPE_CHECKING:
    from export.source.source import SourceModel

PLAIN = FloatOptions()


def write(source: SourceModel, path: Path, options: FloatOptions = PLAIN) -> None:
    """Write a .tflite with float16 weights and float32 arithmetic, half the size.

    Args:
        source: the model to convert.
        path: file to write.
        options: the format's options.
    """
    config = qtyping.OpQuantizationConfig(
        weight_tensor_config=qtyping.TensorQuantizationConfig(num_bits=16, dtype=qtyping.TensorDataType.FLOAT),
        compute_precision=qtyping.ComputePrecision.FLOAT,
        explicit_dequantize=True,
    )
    rule = {
        "regex": ".*",
        "operation": qtyping.TFLOperationName.ALL_SUPPORTED,
        "algorithm_key": quantizer.AlgorithmName.FLOAT_CASTING,
        "op_config": config.to_dict(),
    }
    write_weights(source, path, options, [rule])


register_litert(
    "tflite_fp16",
    write,
    tolerance=FLOAT16_TOLERANCE,
    options=FloatOptions,
    summary="LiteRT, float16 weights and float32 arithmetic, half the size",
    guarantees=("float16_weights",),
)
