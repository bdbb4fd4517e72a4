"""The graph of a functional Keras model: read it call by call, or rebuild it with other layers."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from zoo.common import compat
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
        inputs: its symbolic inputs.
        outputs: its symbolic outputs.
    """

    layer: Any
    inputs: tuple[Any, ...]
    outputs: tuple[Any, ...]


@dataclasses.dataclass(frozen=True)
class Change:
    """The replacement of a layer in a rebuilt model.

    Args:
        layer: the new layer; None removes the layer and passes its input on.
        weights: its weights in the order of `layer.get_weights()`; None keeps the initial ones.
        passes: index of the input to pass on if there are several.
    """

    layer: Any = None
    weights: Sequence[_np.ndarray] | None = None
    passes: int | None = None


def calls(model: _keras.Model) -> list[Call]:
    """Return the calls of a functional model in topological order, inputs first.

    Raises:
        UnsupportedExport: the model is not functional.
    """
    if not compat.is_functional(model):
        raise UnsupportedExport(
            f"Expected a functional model, keras.Model(inputs, outputs). Received: {type(model).__name__}"
        )
    nodes = compat.nodes(model)
    return [Call(node.operation, tuple(node.input_tensors), tuple(node.output_tensors)) for node in nodes]


def readers(model: _keras.Model) -> dict[int, list[Call]]:
    """Return the calls that read each tensor, by the tensor's id; outputs of the model have a reader None."""
    by_tensor: dict[int, list[Any]] = {}
    for call in calls(model):
        for tensor in call.inputs:
            by_tensor.setdefault(id(tensor), []).append(call)
    for tensor in model.outputs:
        by_tensor.setdefault(id(tensor), []).append(None)
    return by_tensor


def rebuild(model: _keras.Model, changes: Mapping[str, Change]) -> _keras.Model:
    """Return a copy of a functional model with some layers replaced.

    Args:
        model: the model to copy; it is not changed.
        changes: the replaced layers by name; all others are copied with their weights.

    Returns:
        A model that shares no weights with `model`; inputs and outputs have the same names and structure.
    """
    replaced = {id(c.layer) for name, c in changes.items() if type(c.layer) is not type(model.get_layer(name))}

    def call(layer: Any, *arguments: Any, **options: Any) -> Any:
        if isinstance(layer, _Identity):
            return layer.output(arguments[0])
        # Call options of the original layer do not apply to a layer of another type.
        return layer(*arguments) if id(layer) in replaced else layer(*arguments, **options)

    clone = keras.models.clone_model(
        # Keras would compile the clone of a compiled model.
        keras.Model(model.input, model.output, name=model.name),
        input_tensors=keras.tree.map_structure(_input_like, model.input),
        clone_function=lambda layer: _replacement(layer, changes),
        call_function=call,
    )
    for layer in model.layers:
        change = changes.get(layer.name)
        if change is None:
            clone.get_layer(layer.name).set_weights(layer.get_weights())
        elif change.layer is not None and change.weights is not None:
            change.layer.set_weights([np.asarray(w) for w in change.weights])
    return clone


def copy(model: _keras.Model) -> _keras.Model:
    """Return a copy that shares no weights."""
    return rebuild(model, {})


def _input_like(tensor: Any) -> Any:
    """Return a new input with the layer's name; the tensor of an unnamed input has another one."""
    return keras.Input(batch_shape=tensor.shape, dtype=tensor.dtype, name=compat.producer(tensor).name)


@dataclasses.dataclass(frozen=True)
class _Identity:
    """Replaces a removed layer: passes on its input, or the one at `index`, as each of `count` outputs."""

    index: int | None = None
    count: int = 1

    def output(self, inputs: Any) -> Any:
        """Return the outputs."""
        passed = inputs if self.index is None else inputs[self.index]
        return passed if self.count == 1 else keras.tree.flatten(passed)[:1] * self.count


def _replacement(layer: Any, changes: Mapping[str, Change]) -> Any:
    """Return the layer for the rebuilt model."""
    change = changes.get(layer.name)
    if change is not None:
        count = len(compat.inbound_nodes(layer)[0].output_tensors)
        return _Identity(change.passes, count) if change.layer is None else change.layer
    return _kind(layer).from_config(layer.get_config())


def _kind(layer: Any) -> Any:
    """Return the class of a layer; the zoo's subclass for a Keras layer, because the zoo's export to more formats."""
    kind = type(layer)
    ours = getattr(layers, kind.__name__, kind)
    return ours if issubclass(ours, kind) else kind


def like(layer: Any, **changed: Any) -> Any:
    """Return a new layer of the same class, name and options, except those in `changed`."""
    return _kind(layer).from_config({**layer.get_config(), **changed})


def layers_under(model: _keras.Model) -> Iterator[Any]:
    """Yield every layer without sub-layers, nested ones included."""
    for layer in compat.flatten_layers(model, include_self=False):
        if not list(compat.flatten_layers(layer, include_self=False, recursive=False)):
            yield layer


def check_same(before: Callable[..., Any], after: Callable[..., Any], inputs: Any, allowed: float) -> float:
    """Compare two models.

    Args:
        before: the reference, a callable on `inputs`.
        after: the rebuilt model.
        inputs: examples (n, *shape).
        allowed: the largest allowed error, as a fraction of the largest output.

    Returns:
        The largest error as such a fraction.

    Raises:
        ExportError: it is larger than allowed.
    """
    pairs = zip(keras.tree.flatten(before(inputs)), keras.tree.flatten(after(inputs)), strict=True)
    error = max(_relative(np.asarray(expected), np.asarray(outputs)) for expected, outputs in pairs)
    if not error <= allowed:
        raise ExportError(
            f"The rebuilt model differs from the original: max error {error:.2g} of the largest output "
            f"(tolerance {allowed:g})"
        )
    return error


def _relative(expected: _np.ndarray, outputs: _np.ndarray) -> float:
    return float(np.abs(outputs - expected).max() / (np.abs(expected).max() + 1e-12))


def probe(model: _keras.Model, count: int = 4) -> _np.ndarray:
    """Return seeded random examples (count, *shape) for a model of one input."""
    shape = tuple(model.input_shape[1:])
    return np.random.default_rng(0).normal(size=(count, *shape)).astype("float32")
