"""Removal of whole branches that end in a sum, as in residual networks: those that add least.

Huang et al. 2016, arXiv:1603.09382, found that residual networks tolerate missing branches. Removing their layers
removes calls, which cost small models more time than their multiply-adds.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from export.core.keras_graph import Call, Change, calls, readers, rebuild
from zoo.common.lazy import keras, np

if TYPE_CHECKING:
    import keras as _keras
    import numpy as _np


@dataclasses.dataclass(frozen=True)
class Branch:
    """One of the two inputs of a sum, with the layers that only this input needs.

    Args:
        join: name of the layer that adds.
        place: index of the input.
        layers: names of the layers of the branch.
        importance: mean magnitude of the branch, relative to the other input of the sum.
    """

    join: str
    place: int
    layers: frozenset[str]
    importance: float = 0.0


def find_branches(model: _keras.Model, cost: Callable[[Call], int], examples: _np.ndarray) -> list[Branch]:
    """Return the removable branches, least important first: for each sum of two inputs the more expensive one.

    Args:
        model: a functional model.
        cost: cost of a call; a branch without cost is not removable.
        examples: inputs (n, *shape) to measure the importance on.
    """
    graph, read = calls(model), readers(model)
    sums = [call for call in graph if type(call.layer).__name__ == "Add" and len(call.inputs) == 2]
    branches, tensors = [], []
    for call in sums:
        sides = [_calls_of_input(graph, read, call, place) for place in (0, 1)]
        costs = [sum(map(cost, side)) for side in sides]
        place = costs.index(max(costs))
        names = frozenset(one.layer.name for one in sides[place])
        # A layer with other calls stays.
        shared = sum(one.layer.name in names for one in graph) > len(sides[place])
        same_shape = tuple(call.inputs[0].shape) == tuple(call.inputs[1].shape)
        if costs[place] and same_shape and not shared:
            branches.append(Branch(call.layer.name, place, names))
            tensors += [call.inputs[place], call.inputs[1 - place]]
    sizes = _magnitudes(model, tensors, examples)
    importance = [size / (rest + 1e-12) for size, rest in zip(sizes[::2], sizes[1::2], strict=True)]
    ranked = [dataclasses.replace(one, importance=value) for one, value in zip(branches, importance, strict=True)]
    return sorted(ranked, key=lambda branch: branch.importance)


def _calls_of_input(graph: Sequence[Call], read: dict[int, list[Any]], join: Call, place: int) -> list[Call]:
    """Return the calls that only one input of a sum needs."""
    tensor, found, inside = join.inputs[place], [], set()
    if len(read[id(tensor)]) > 1:
        return []
    for call in reversed(graph):
        known = [one and _key(one) for output in call.outputs for one in read.get(id(output), [])]
        last = call.outputs[0] is tensor
        if call.inputs and (known == [_key(join)] if last else known and inside.issuperset(known)):
            found.append(call)
            inside.add(_key(call))
    return found


def _key(call: Call) -> int:
    """Return the identity of a call: that of its output."""
    return id(call.outputs[0])


def _magnitudes(model: Any, tensors: list[Any], examples: Any) -> list[float]:
    """Return the mean magnitude of tensors of a model."""
    if not tensors:
        return []
    values = keras.Model(model.input, tensors)(examples, training=False)
    return [float(np.abs(np.asarray(value)).mean()) for value in values]


def without_branches(model: _keras.Model, removed: Sequence[Branch]) -> _keras.Model:
    """Return a copy of the model without some branches; their sums pass on the other input."""
    changes = {name: Change() for branch in removed for name in branch.layers}
    changes |= {branch.join: Change(passes=1 - branch.place) for branch in removed if branch.join not in changes}
    return rebuild(model, changes)


def remove_branches(
    model: _keras.Model, cost: Callable[[Call], int], examples: _np.ndarray, fraction: float
) -> _keras.Model:
    """Return the model without its least important branches, with at least a fraction of its cost left.

    Args:
        model: a functional model; it is not changed.
        cost: cost of a call.
        examples: inputs (n, *shape) to measure the importance on.
        fraction: minimum fraction of the cost that is left, 0 to 1.
    """
    graph = calls(model)
    total = left = sum(map(cost, graph))
    removed: list[Branch] = []
    layers: set[str] = set()
    for branch in find_branches(model, cost, examples):
        saved = sum(cost(call) for call in graph if call.layer.name in branch.layers - layers)
        if branch.join not in layers and left - saved >= fraction * total:
            removed.append(branch)
            layers |= branch.layers
            left -= saved
    return without_branches(model, removed) if removed else model
