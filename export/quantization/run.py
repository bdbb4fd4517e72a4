"""Runs a functional model layer by layer, and holds only the tensors that are still read."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from export.core.keras_graph import calls
from zoo.common import compat
from zoo.common.lazy import keras

if TYPE_CHECKING:
    import keras as _keras

# Memory for the tensors that are alive at a time, in bytes, and how many of the largest ones they are.
MEMORY, ALIVE = 1 << 30, 4
EXAMPLES, FEWEST = 64, 8  # at most and at least


class _Held:
    """A tensor that is dropped after the last layer has read it."""

    def __init__(self, value: Any, reads: float) -> None:
        self._value, self._reads = value, reads

    def read(self) -> Any:
        value, self._reads = self._value, self._reads - 1
        if self._reads <= 0:
            self._value = None
        return value


def run_layers(model: _keras.Model, inputs: Any, run: Callable[..., Any]) -> Any:
    """Return the outputs of a functional model in inference.

    Args:
        model: the model.
        inputs: its inputs.
        run: `run(layer, *inputs, **options)` returns the outputs of a layer.
    """
    graph = calls(model)
    names = Counter(call.layer.name for call in graph)
    reads = Counter(id(tensor) for call in graph for tensor in call.inputs)
    reads.update(id(tensor) for tensor in model.outputs)
    # The outputs of a layer that is called again may be of any of its calls.
    by_name = {call.layer.name: [reads[id(t)] for t in call.outputs] for call in graph if names[call.layer.name] == 1}

    def operation(layer: Any) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            arguments, options = keras.tree.map_structure(_read, (arguments, options))
            if compat.has_training_argument(layer):
                options["training"] = False
            outputs = run(layer, *arguments, **options)
            found = keras.tree.flatten(outputs)
            counts = by_name.get(layer.name, [math.inf] * len(found))
            return keras.tree.pack_sequence_as(outputs, list(map(_Held, found, counts)))

        return call

    return keras.tree.map_structure(_read, compat.run_graph(model, inputs, operation))


def _read(value: Any) -> Any:
    return value.read() if isinstance(value, _Held) else value


def examples_in_memory(model: _keras.Model, most: int = EXAMPLES) -> int:
    """Return how many examples to run a model on."""
    sizes = sorted(4 * math.prod(tensor.shape[1:]) for call in calls(model) for tensor in call.outputs)
    return max(FEWEST, min(most, MEMORY // max(1, 2 * sum(sizes[-ALIVE:]))))
