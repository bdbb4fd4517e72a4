"""LiteRT with 4-bit weights in dense layers, which it has kernels for, and int8 weights in convolutions."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from export.backends.litert.options import FloatOptions, register_litert
from export.backends.litert.quantize import qtyping, recipe, write_weights
from export.core.tolerance import INT4_TOLERANCE

if TYPE_CHECKING:
    from export.source.source import SourceModel

PLAIN = FloatOptions()
# 4-bit convolutions took over 20 times as long as int8 ones.
INT4_OPERATORS = ("FULLY_CONNECTED", "EMBEDDING_LOOKUP")


def write(source: SourceModel, path: Path, options: FloatOptions = PLAIN) -> None:
    """Write a .tflite with per-channel 4-bit weights in dense layers; the runtime quantizes activations.

    Args:
        source: the model to convert.
        path: file to write.
        options: the format's options.
    """
    (rule,) = recipe.dynamic_wi4_afp32()
    rules = [{**rule, "operation": qtyping.TFLOperationName(name)} for name in INT4_OPERATORS]
    write_weights(source, path, options, [*recipe.dynamic_wi8_afp32(), *rules])


register_litert(
    "tflite_int4",
    write,
    tolerance=INT4_TOLERANCE,
    options=FloatOptions,
    summary="LiteRT, per-channel 4-bit weights in dense layers, int8 in convolutions, float32 inputs and outputs",
    guarantees=("int4_weights",),
    # One wrong token changes those after it: a Transformer lost 7.5 of 100 sequences.
    sequences=False,
)
