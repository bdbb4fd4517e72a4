"""The weights that are stored in an artifact, read from its file, whatever its format."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from export.core.artifact_graph import ArtifactGraph
from export.inspection.inspect import knows, look

if TYPE_CHECKING:
    import numpy as _np


def constants(path: Path) -> list[_np.ndarray] | None:
    """Return the stored arrays of rank 2 to 4 in Keras' layout: inputs before outputs, both last.

    A matrix may be stored either way round; it is given both ways. Groups of a convolution are brought together.

    Args:
        path: the artifact; a file, or the folder of several or of a SavedModel.

    Returns:
        Arrays as they are stored, quantized ones as integers; None where this kind of file is not known.
    """
    return list(_both_ways(look(path).stored)) if knows(path) else None


def _both_ways(stored: ArtifactGraph) -> Iterator[Any]:
    for weight in stored.weights:
        # Where zeros are left out, the values have lost their places.
        if weight.array.shape != weight.shape or not 2 <= weight.array.ndim <= 5:
            continue
        # OpenVINO gives the groups of a convolution an axis of their own.
        array = weight.array.reshape(-1, *weight.shape[2:]) if weight.array.ndim == 5 else weight.array
        yield array.transpose(stored.moved) if array.ndim == 4 else array
        if array.ndim == 2:
            yield array.T
