"""LiteRT with int8 weights; the runtime quantizes activations. Needs no calibration."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from export.backends.litert.options import FloatOptions, register_litert
from export.backends.litert.quantize import recipe, write_weights
from export.core.tolerance import INT8_TOLERANCE

if TYPE_CHECKING:
    from export.source.source import SourceModel

PLAIN = FloatOptions()


def write(source: SourceModel, path: Path, options: FloatOptions = PLAIN) -> None:
    """Write a .tflite with per-channel int8 weights; the runtime quantizes activations.

    Args:
        source: the model to convert.
        path: file to write.
        options: the format's options.
    """
    write_weights(source, path, options, recipe.dynamic_wi8_afp32())


register_litert(
    "tflite_dynamic",
    write,
    tolerance=INT8_TOLERANCE,
    options=FloatOptions,
    summary="LiteRT, per-channel int8 weights, activations quantized at run time, float32 inputs and outputs",
    guarantees=("int8_weights",),
)
