"""LiteRT with 4-bit weights in dense layers, where it has kernels for them, and int8 weights in convolutions."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from export.backends.litert.options import FloatOptions, register_litert
from export.backends.litert.quantize import qtyping, recipe, write_weights
from export.core.format import Tolerance

if TYPE_CHECKING:
    from export.source.source import Source

PLAIN = FloatOptions()
# Networks of few weights lose up to 1.7 points where eight bits lose none.
NARROW = Tolerance(relative=0.5, agreement=0.95, drop=0.02)
# Four bits in a convolution took over 20 times as long as eight.
PACKED = ("FULLY_CONNECTED", "EMBEDDING_LOOKUP")


def write(source: Source, path: Path, options: FloatOptions = PLAIN) -> None:
    """Write a .tflite whose dense layers have 4-bit weights by channel; the runtime quantizes activations as it goes.

    Args:
        source: what to export.
        path: file to write.
        options: what was asked for.
    """
    (narrow,) = recipe.dynamic_wi4_afp32()
    rules = [{**narrow, "operation": qtyping.TFLOperationName(name)} for name in PACKED]
    write_weights(source, path, options, [*recipe.dynamic_wi8_afp32(), *rules])


register_litert(
    "tflite_int4",
    write,
    tolerance=NARROW,
    options=FloatOptions,
    summary="LiteRT, 4-bit weights by channel in dense layers, int8 ones in convolutions, float32 in and out",
    guarantees=("int4_weights",),
    # One wrong token spoils those behind it: a Transformer lost 7.5 of 100 sequences.
    writes=False,
)
