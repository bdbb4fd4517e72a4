"""LiteRT with int8 weights and int16 activations, for DSPs and microcontrollers if int8 loses too much accuracy.

On x86 LiteRT has reference kernels only, which are far slower than float32. The square root of layer normalization, one
value per token, stays float32.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING, Any

from export.backends.litert.options import Int16Options, register_litert
from export.backends.litert.quantize import StaticScheme, recipe, write_static
from export.backends.litert.rewrite import NEGATIVE, REVERSE, SQUARE, SQUARED, rewritten
from export.core.tolerance import INT16_TOLERANCE

if TYPE_CHECKING:
    from export.source.source import SourceModel

PLAIN = Int16Options()
# Headroom of the calibration ranges; not a power of two, because LiteRT's int16 SUB refuses such scales.
MARGIN = 3.0
# LiteRT's int16 RSQRT is a table of 512 steps, too few for variances: the error of a vision transformer was 0.37 of the
# largest logit with it, and is 0.009 with float32.
FLOAT_OPERATORS = ("RSQRT",)


def write(source: SourceModel, path: Path, options: Int16Options = PLAIN) -> dict[str, Any]:
    """Write a .tflite of int16 tensors with per-channel int8 weights, except square roots.

    Args:
        source: the model to convert; its `calibration` data gives the activation ranges.
        path: file to write.
        options: the format's options.

    Returns:
        How it was quantized, for the manifest.

    Raises:
        UnsupportedExport: LiteRT has no int16 kernel for an operator of the model.
    """
    rewrite = functools.partial(rewritten, kinds=(SQUARED, SQUARE, NEGATIVE, REVERSE))
    scheme = StaticScheme(
        "tflite_int16x8", recipe.static_wi8_ai16(), rewrite, MARGIN, FLOAT_OPERATORS, output_margin=1.0
    )
    return write_static(source, path, options, scheme)


register_litert(
    "tflite_int16x8",
    write,
    tolerance=INT16_TOLERANCE,
    options=Int16Options,
    summary="LiteRT, per-channel int8 weights and int16 activations, calibrated; accurate, slow on x86",
    guarantees=("int8",),
)
