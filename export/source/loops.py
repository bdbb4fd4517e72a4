"""Recurrent layers without loops, for formats that have none."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from export.source.copies import copied
from zoo.common import compat
from zoo.common.lazy import keras

if TYPE_CHECKING:
    import keras as _keras

LONGEST = 512  # steps; each is a copy of the layer's operators


def unroll(model: _keras.Model) -> _keras.Model:
    """Return a model with all steps of its recurrent layers side by side, and with weights of its own.

    Raises:
        BadOption: see `copied`.
        ValueError: a layer has a free number of steps, or more than `LONGEST`.
    """
    if any(steps > LONGEST for steps in _steps(model)):
        raise ValueError(f"more than {LONGEST} steps")
    return copied(model, unroll=True)


def _steps(model: _keras.Model) -> Iterator[int]:
    """Yield the number of steps of each call of a recurrent layer."""
    for layer in compat.flatten_layers(model, include_self=False):
        if isinstance(layer, (keras.layers.RNN, keras.layers.Bidirectional)):
            for node in compat.inbound_nodes(layer):
                yield node.input_tensors[0].shape[1] or LONGEST + 1
