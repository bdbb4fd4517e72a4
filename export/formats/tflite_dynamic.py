"""LiteRT with int8 weights, whose activations the runtime quantizes as it goes; nothing is calibrated."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from export.backends.litert.options import FloatOptions, register_litert
from export.backends.litert.quantize import recipe, write_weights
from export.core.format import INTEGER

if TYPE_CHECKING:
    from export.source.source import Source

PLAIN = FloatOptions()


def write(source: Source, path: Path, options: FloatOptions = PLAIN) -> None:
    """Write a .tflite whose weights are int8 by channel; the runtime quantizes activations as it goes.

    Args:
        source: what to export.
        path: file to write.
        options: what was asked for.
    """
    write_weights(source, path, options, recipe.dynamic_wi8_afp32())


register_litert(
    "tflite_dynamic",
    write,
    tolerance=INTEGER,
    options=FloatOptions,
    summary="LiteRT, int8 weights by channel, activations quantized as it runs, float32 in and out",
    guarantees=("int8_weights",),
)
