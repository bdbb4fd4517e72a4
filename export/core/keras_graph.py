"""A functional Keras network as a graph that can be read call by call and rebuilt with other layers."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from zoo.common.errors import ExportError, UnsupportedExport
from zoo.common.lazy import keras, np
from zoo.layers.lazy import layers

if TYPE_CHECKING:
    import keras as _keras
    import numpy as _np


@dataclasses.dataclass(frozen=True)
class Call:
    """One use of a layer.

    Args:
        layer: the layer, or the operation of keras.ops.
        inputs: the symbolic tensors that it takes.
        outputs: the symbolic tensors that it gives.
    """

    layer: Any
    inputs: tuple[Any, ...]
    outputs: tuple[Any, ...]


@dataclasses.dataclass(frozen=True)
class Change:
    """What becomes of a layer in a rebuilt network.

    Args:
        layer: the new layer; None passes the input on.
        weights: its weights in the order of `layer.get_weights()`; None leaves those that it starts with.
        passes: which input is passed on where there are several.
    """

    layer: Any = None
    weights: Sequence[_np.ndarray] | None = None
    passes: int | None = None


def calls(network: _keras.Model) -> list[Call]:
    """Return the calls of a functional network in an order in which it can run, its inputs first.

    Raises:
        UnsupportedExport: the network is not functional.
    """
    if not hasattr(network, "_nodes_by_depth"):
        raise UnsupportedExport(
            "Only functional networks can be rebuilt, those made by keras.Model(inputs, outputs). "
            f"Received: {type(network).__name__}"
        )
    nodes = [node for _, group in sorted(network._nodes_by_depth.items(), reverse=True) for node in group]
    return [Call(node.operation, tuple(node.input_tensors), tuple(node.output_tensors)) for node in nodes]


def readers(network: _keras.Model) -> dict[int, list[Call]]:
    """Return the calls that read each tensor, by the tensor's id; an output of the network counts as read by None."""
    found: dict[int, list[Any]] = {}
    for call in calls(network):
        for tensor in call.inputs:
            found.setdefault(id(tensor), []).append(call)
    for tensor in network.outputs:
        found.setdefault(id(tensor), []).append(None)
    return found


def rebuild(network: _keras.Model, changes: Mapping[str, Change]) -> _keras.Model:
    """Return a copy of a functional network in which some layers are others.

    Args:
        network: what to copy; it stays as it is.
        changes: what becomes of layers, by name; all others are copied with their weights.

    Returns:
        A network of its own, with inputs and outputs of the same names and structure.
    """
    others = {id(c.layer) for name, c in changes.items() if type(c.layer) is not type(network.get_layer(name))}

    def call(layer: Any, *arguments: Any, **options: Any) -> Any:
        if isinstance(layer, _Passed):
            return layer.of(arguments[0])
        # What a call was given beside its inputs means nothing to a layer of another kind.
        return layer(*arguments) if id(layer) in others else layer(*arguments, **options)

    made = keras.models.clone_model(
        # Keras would compile the copy of a compiled network anew.
        keras.Model(network.input, network.output, name=network.name),
        input_tensors=keras.tree.map_structure(_input_like, network.input),
        clone_function=lambda old: _cloned(old, changes),
        call_function=call,
    )
    for layer in network.layers:
        change = changes.get(layer.name)
        if change is None:
            made.get_layer(layer.name).set_weights(layer.get_weights())
        elif change.layer is not None and change.weights is not None:
            change.layer.set_weights([np.asarray(w) for w in change.weights])
    return made


def copy(network: _keras.Model) -> _keras.Model:
    """Return a network of the same function with weights of its own."""
    return rebuild(network, {})


def _input_like(tensor: Any) -> Any:
    """Return a new input of the same name; a tensor of an unnamed one is not called like its layer."""
    return keras.Input(batch_shape=tensor.shape, dtype=tensor.dtype, name=tensor._keras_history.operation.name)


@dataclasses.dataclass(frozen=True)
class _Passed:
    """Stands for a layer that is left out.

    It passes on its input, or the one at a place of several, as often as the layer had outputs.
    """

    place: int | None = None
    count: int = 1

    def of(self, given: Any) -> Any:
        """Return what is passed on."""
        found = given if self.place is None else given[self.place]
        return found if self.count == 1 else keras.tree.flatten(found)[:1] * self.count


def _cloned(layer: Any, changes: Mapping[str, Change]) -> Any:
    """Return what takes a layer's place."""
    change = changes.get(layer.name)
    if change is not None:
        count = len(layer._inbound_nodes[0].output_tensors)
        return _Passed(change.passes, count) if change.layer is None else change.layer
    return _kind(layer).from_config(layer.get_config())


def _kind(layer: Any) -> Any:
    """Return the class of a layer, the zoo's for one of Keras' own: a file gives back Keras', which exports less."""
    kind = type(layer)
    ours = getattr(layers, kind.__name__, kind)
    return ours if issubclass(ours, kind) else kind


def like(layer: Any, **changed: Any) -> Any:
    """Return a new layer of the same kind, name and options but for those `changed`."""
    return _kind(layer).from_config({**layer.get_config(), **changed})


def layers_under(network: _keras.Model) -> Iterator[Any]:
    """Yield every layer that has no layers of its own, those inside others included."""
    for layer in network._flatten_layers(include_self=False):
        if not list(layer._flatten_layers(include_self=False, recursive=False)):
            yield layer


def check_same(before: Callable[..., Any], after: Callable[..., Any], inputs: Any, allowed: float) -> float:
    """Compare two networks.

    Args:
        before: what is to be reproduced, a callable on `inputs`.
        after: what reproduces it.
        inputs: examples (n, *shape).
        allowed: the largest difference, as a share of the largest output.

    Returns:
        The largest difference as such a share.

    Raises:
        ExportError: it is larger than allowed.
    """
    expected, found = np.asarray(before(inputs)), np.asarray(after(inputs))
    difference = float(np.abs(found - expected).max() / (np.abs(expected).max() + 1e-12))
    if not difference <= allowed:
        raise ExportError(
            f"The rebuilt network differs from the one it was made from by {difference:.2g} of the largest output; "
            f"{allowed:g} is allowed"
        )
    return difference


def probe(network: _keras.Model, count: int = 4) -> _np.ndarray:
    """Return random examples (count, *shape) that a network of one input takes, the same each time."""
    shape = tuple(network.input_shape[1:])
    return np.random.default_rng(0).normal(size=(count, *shape)).astype("float32")
