"""LiteRT in int8: weights by channel, activations by ranges seen on training examples, int8 in and out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from export.backends.litert.options import IntegerOptions, register_litert
from export.backends.litert.quantize import Static, recipe, write_static
from export.core.format import INTEGER

if TYPE_CHECKING:
    from export.source.source import Source

PLAIN = IntegerOptions()


def write(source: Source, path: Path, options: IntegerOptions = PLAIN) -> None:
    """Write a .tflite of int8 tensors, with int8 weights by channel.

    Args:
        source: what to export; its `calibration` gives the ranges of the activations.
        path: file to write.
        options: what was asked for.

    Raises:
        UnsupportedExport: the model has an operator that LiteRT cannot run in int8.
    """
    write_static(source, path, options, Static("tflite_int8", recipe.static_wi8_ai8()))


register_litert(
    "tflite_int8",
    write,
    tolerance=INTEGER,
    options=IntegerOptions,
    summary="LiteRT, int8 weights by channel and int8 activations, calibrated; int8 (or int32 ids) in and int8 out",
    guarantees=("integer",),
)
