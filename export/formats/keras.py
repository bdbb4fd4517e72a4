"""The Keras format: a float32 `.keras` file with preprocessing inside, for fine-tuning, other backends and archives.

A file with Keras layers only opens without this package. For other files the manifest lists the modules to import
first under "required_modules".
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from export.backends.keras.file import KerasGenerator, KerasRuntime, write_file
from export.core.format import Backend, register
from export.core.tolerance import FLOAT32_TOLERANCE

if TYPE_CHECKING:
    from export.source.source import SourceModel


def write(source: SourceModel, path: Path) -> None:
    """Write the model from raw values or ids to logits; a sequence-to-sequence model as a whole, with both inputs.

    Args:
        source: the model to convert.
        path: file to write.
    """
    write_file(source.model, path, source.metadata)


register(
    "keras",
    file="model.keras",
    write=write,
    load=KerasRuntime,
    tolerance=FLOAT32_TOLERANCE,
    summary="Keras, float32, dynamic batch; opens without this package if all layers are Keras layers",
    generate=Backend("model.keras", write, KerasGenerator, FLOAT32_TOLERANCE),
    any_input=True,
)
