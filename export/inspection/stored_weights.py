"""The weights that an artifact stores, in Keras' order of axes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from export.core.artifact_graph import ArtifactGraph
from export.inspection.inspect import is_readable, read_artifact

if TYPE_CHECKING:
    import numpy as _np


def stored_weights(path: Path) -> list[_np.ndarray] | None:
    """Return the stored arrays of rank 2 to 4 with Keras' axes: input channels before output channels, both last.

    A matrix is returned twice, as it is stored and transposed, because formats store either. The groups of a
    convolution are merged into one axis.

    Args:
        path: the artifact: a file, a folder of files, or a SavedModel.

    Returns:
        The arrays as stored, quantized ones as integers; None for a kind of file without a reader.
    """
    return list(_in_keras_order(read_artifact(path).graph)) if is_readable(path) else None


def _in_keras_order(graph: ArtifactGraph) -> Iterator[Any]:
    for weight in graph.weights:
        # A sparse encoding omits the zeros, so that the positions of the values are unknown.
        if weight.array.shape != weight.shape or not 2 <= weight.array.ndim <= 5:
            continue
        # OpenVINO stores the groups of a convolution as the first axis.
        array = weight.array.reshape(-1, *weight.shape[2:]) if weight.array.ndim == 5 else weight.array
        yield array.transpose(graph.moved) if array.ndim == 4 else array
        if array.ndim == 2:
            yield array.T
