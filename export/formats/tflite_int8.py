"""LiteRT in int8: per-channel weights, activations at calibration ranges, int8 inputs and outputs."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING, Any

from export.backends.litert.options import IntegerOptions, register_litert
from export.backends.litert.quantize import StaticScheme, recipe, write_static
from export.backends.litert.rewrite import NEGATIVE, REVERSE, SQUARE, rewritten
from export.core.tolerance import INT8_TOLERANCE

if TYPE_CHECKING:
    from export.source.source import SourceModel

PLAIN = IntegerOptions()


def write(source: SourceModel, path: Path, options: IntegerOptions = PLAIN) -> dict[str, Any]:
    """Write a .tflite of int8 tensors with per-channel weights.

    Args:
        source: the model to convert; its `calibration` data gives the activation ranges.
        path: file to write.
        options: the format's options.

    Returns:
        How it was quantized, for the manifest.

    Raises:
        UnsupportedExport: LiteRT has no int8 kernel for an operator of the model.
    """
    rewrite = functools.partial(rewritten, kinds=(SQUARE, NEGATIVE, REVERSE))
    return write_static(source, path, options, StaticScheme("tflite_int8", recipe.static_wi8_ai8(), rewrite))


register_litert(
    "tflite_int8",
    write,
    tolerance=INT8_TOLERANCE,
    options=IntegerOptions,
    summary="LiteRT, per-channel int8 weights and int8 activations, calibrated; int8 (or int32 ids) in, int8 out",
    guarantees=("integer",),
)
