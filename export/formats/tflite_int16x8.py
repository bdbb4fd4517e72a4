"""LiteRT with int8 weights and int16 activations, for DSPs and microcontrollers, where int8 loses too much.

On x86 LiteRT has reference kernels only: it is far slower there than float32. The root in layer normalization, one
number for each token, stays in float32.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from export.backends.litert.options import WideOptions, register_litert
from export.backends.litert.quantize import Static, recipe, write_static
from export.backends.litert.rewrite import multiply_differences
from export.core.format import Tolerance

if TYPE_CHECKING:
    from export.source.source import Source

PLAIN = WideOptions()
# For what calibration data did not show; no power of two, for LiteRT's int16 SUB refuses scales that are such.
MARGIN = 3.0
# LiteRT's int16 root is a table of 512 steps, too few for variances: it cost 0.37 of a vision transformer's largest
# logit, which is 0.009 so.
FLOATING = ("RSQRT",)
WIDE = Tolerance(relative=0.05, agreement=0.99, drop=0.006)


def write(source: Source, path: Path, options: WideOptions = PLAIN) -> None:
    """Write a .tflite of int16 tensors with int8 weights by channel, but for roots.

    Args:
        source: what to export; its `calibration` gives the ranges of the activations.
        path: file to write.
        options: what was asked for.

    Raises:
        UnsupportedExport: the model has an operator that LiteRT cannot run in int16.
    """
    how = Static("tflite_int16x8", recipe.static_wi8_ai16(), multiply_differences, MARGIN, FLOATING, headroom=1.0)
    write_static(source, path, options, how)


register_litert(
    "tflite_int16x8",
    write,
    tolerance=WIDE,
    options=WideOptions,
    summary="LiteRT, int8 weights by channel and int16 activations, calibrated; accurate, and slow on x86",
    guarantees=("int8",),
)
