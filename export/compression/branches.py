"""Branches that end in a sum, as those of residual networks: the ones that add least can go as a whole.

Huang et al. 2016, arXiv:1603.09382, found that residual networks hardly miss a branch. With its layers go its calls,
which cost small networks more time than their multiply-adds.
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
    """One of the two inputs of a sum, and what is only there for it.

    Args:
        join: name of the layer that adds.
        place: which of its inputs.
        layers: names of the layers that nothing but this input needs.
        worth: mean magnitude of what it adds, as a share of that of what it is added to.
    """

    join: str
    place: int
    layers: frozenset[str]
    worth: float = 0.0


def branches(network: _keras.Model, cost: Callable[[Call], int], examples: _np.ndarray) -> list[Branch]:
    """Return the branches that could go, the least worth first: of each sum of two the input that costs more.

    Args:
        network: a functional network.
        cost: of a call; a branch that costs nothing stays.
        examples: inputs (n, *shape) on which worth is measured.
    """
    graph, read = calls(network), readers(network)
    sums = [call for call in graph if type(call.layer).__name__ == "Add" and len(call.inputs) == 2]
    found, tensors = [], []
    for call in sums:
        sides = [_only_for(graph, read, call, place) for place in (0, 1)]
        prices = [sum(map(cost, side)) for side in sides]
        place = prices.index(max(prices))
        names = frozenset(one.layer.name for one in sides[place])
        # A layer that is called elsewhere too stays.
        again = sum(one.layer.name in names for one in graph) > len(sides[place])
        same = tuple(call.inputs[0].shape) == tuple(call.inputs[1].shape)
        if prices[place] and same and not again:
            found.append(Branch(call.layer.name, place, names))
            tensors += [call.inputs[place], call.inputs[1 - place]]
    sizes = _sizes(network, tensors, examples)
    worth = [size / (rest + 1e-12) for size, rest in zip(sizes[::2], sizes[1::2], strict=True)]
    made = [dataclasses.replace(branch, worth=value) for branch, value in zip(found, worth, strict=True)]
    return sorted(made, key=lambda branch: branch.worth)


def _only_for(graph: Sequence[Call], read: dict[int, list[Any]], join: Call, place: int) -> list[Call]:
    """Return the calls that nothing but one input of a sum needs."""
    given, found, inside = join.inputs[place], [], set()
    if len(read[id(given)]) > 1:
        return []
    for call in reversed(graph):
        known = [one and _key(one) for tensor in call.outputs for one in read.get(id(tensor), [])]
        if call.inputs and (known == [_key(join)] if call.outputs[0] is given else known and inside.issuperset(known)):
            found.append(call)
            inside.add(_key(call))
    return found


def _key(call: Call) -> int:
    """Return what tells a call from others: what it makes."""
    return id(call.outputs[0])


def _sizes(network: Any, tensors: list[Any], examples: Any) -> list[float]:
    """Return the mean magnitude of tensors of a network."""
    if not tensors:
        return []
    values = keras.Model(network.input, tensors)(examples, training=False)
    return [float(np.abs(np.asarray(value)).mean()) for value in values]


def without(network: _keras.Model, gone: Sequence[Branch]) -> _keras.Model:
    """Return a copy of the network without some branches: of their sums the other input is left."""
    changes = {name: Change() for branch in gone for name in branch.layers}
    changes |= {branch.join: Change(passes=1 - branch.place) for branch in gone if branch.join not in changes}
    return rebuild(network, changes)


def shorten(network: _keras.Model, cost: Callable[[Call], int], examples: _np.ndarray, share: float) -> _keras.Model:
    """Return the network without the branches that are worth least, as many as leave at least a share of its cost.

    Args:
        network: a functional network; it stays as it is.
        cost: of a call.
        examples: inputs (n, *shape) on which worth is measured.
        share: of the cost, at least so much stays.
    """
    graph = calls(network)
    whole = left = sum(map(cost, graph))
    gone: list[Branch] = []
    lost: set[str] = set()
    for branch in branches(network, cost, examples):
        saved = sum(cost(call) for call in graph if call.layer.name in branch.layers - lost)
        if branch.join not in lost and left - saved >= share * whole:
            gone.append(branch)
            lost |= branch.layers
            left -= saved
    return without(network, gone) if gone else network
