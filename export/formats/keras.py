"""The float32 `.keras` file, preprocessing inside: for further training, for Keras on other backends, for archives.

A file of a network whose layers are all Keras' own opens where this package is not installed. Others say in their
manifest, under "needs", what has to be imported before.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from export.backends.keras.file import KerasRuntime, KerasWriter, write_file
from export.core.format import FLOAT, Backend, register

if TYPE_CHECKING:
    from export.source.source import Source


def write(source: Source, path: Path) -> None:
    """Write the network from raw values or ids to logits; of one that writes sequences the whole, from both inputs.

    Args:
        source: what to export.
        path: file to write.
    """
    write_file(source.model, path, source.metadata)


register(
    "keras",
    file="model.keras",
    write=write,
    load=KerasRuntime,
    tolerance=FLOAT,
    summary="Keras, float32, free batch; opens without this package where all layers are Keras' own",
    generate=Backend("model.keras", write, KerasWriter, FLOAT),
)
