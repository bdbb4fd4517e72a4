"""Arrays from elsewhere put into the variables of a network: every one in its place and shape, or none at all."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from zoo.common.errors import BadOption
from zoo.common.lazy import keras, np
from zoo.layers.lazy import layers
from zoo.weights.sources import Source

# What PyTorch calls the variables of our layers.
TORCH = {
    "kernel": "weight",
    "bias": "bias",
    "gamma": "weight",
    "beta": "bias",
    "moving_mean": "running_mean",
    "moving_variance": "running_var",
}
SHOWN = 4


@dataclasses.dataclass
class Plan:
    """What goes where, and what does not fit."""

    values: dict[str, Any] = dataclasses.field(default_factory=dict)
    used: set[str] = dataclasses.field(default_factory=set)
    missing: list[str] = dataclasses.field(default_factory=list)
    differing: list[str] = dataclasses.field(default_factory=list)
    fresh: list[Any] = dataclasses.field(default_factory=list)


def load_state(network: Any, source: Source, whole: Callable[[], Any]) -> None:
    """Put the weights of a source into a network.

    Args:
        network: the network, whose values are overwritten.
        source: the opened weights.
        whole: builds the same network with its default head; what only that one has may be left over.

    Raises:
        BadOption: a key is missing, left over or of another shape; the network is then as it was.
    """
    plan = _plan(network, source)
    extra = _fold_biases(network, source, plan)
    if extra and _lacks_top(network):
        top = _keys(whole(), source) - _keys(network, source)
        extra = [key for key in extra if _module(key, source) not in top]
    _require(network, source, plan, extra)
    for layer in network.layers:
        for variable in layer.weights:
            if _key(layer, variable) in plan.values:
                variable.assign(plan.values[_key(layer, variable)])
    with layers.weights_follow(False):
        for layer in plan.fresh:
            layer.kernel.assign(layer.kernel_initializer(layer.kernel.shape))


def _plan(network: Any, source: Source) -> Plan:
    """Find the array of each variable."""
    plan, first, heads = Plan(), _first_layers(network), _heads(network)
    new_task = "logits" not in {layer.name for layer in heads}
    for layer in network.layers:
        found = Plan()
        for variable in layer.weights:
            _find(layer, variable, source, layer in first, found)
        if layer in heads and _is_fresh(found, source, new_task):
            plan.fresh.append(layer)
            plan.used |= found.used
            continue
        plan.values |= found.values
        plan.used |= found.used
        plan.missing += found.missing
        plan.differing += found.differing
    return plan


def _is_fresh(found: Plan, source: Source, new_task: bool) -> bool:
    """Tell whether a head starts at random: published weights have none of its size, or a file none of its name."""
    return bool(found.missing or found.differing) if source.named else new_task and bool(found.missing)


def _find(layer: Any, variable: Any, source: Source, first: bool, plan: Plan) -> None:
    """Add the array of one variable to the plan, or what is wrong with it."""
    ours, key = _key(layer, variable), _their_key(layer, variable, source)
    if key is None or key not in source.arrays:
        if key is not None and _has_no_scale(key, source):
            plan.values[ours] = np.ones(variable.shape, "float32")
        else:
            plan.missing.append(key or ours)
        return
    plan.used.add(key)
    array = _arranged(source.arrays[key], layer, variable, source.library == "torch")
    if hasattr(layer, "resampled"):
        array = layer.resampled(array, source.grids.get(layer.name))
    if first and variable.name == "kernel" and array.ndim == 4:
        array = _for_channels(array[:, :, ::-1] if source.bgr else array, variable.shape[2])
    if array.shape != tuple(variable.shape):
        plan.differing.append(f"{key} is {source.arrays[key].shape} there, {ours} is {tuple(variable.shape)} here")
    plan.values[ours] = array


def _key(layer: Any, variable: Any) -> str:
    return f"{layer.name}/{variable.name}"


def _module(key: str, source: Source) -> str:
    """Return what a key of theirs belongs to."""
    return key.rpartition("." if source.library == "torch" else "/")[0]


def _their_key(layer: Any, variable: Any, source: Source) -> str | None:
    """Return the key that a variable has in the source; None if no rule covers its layer."""
    name = source.layout.rename(layer.name)
    if name is None or source.library != "torch":
        return name and f"{name}/{variable.name}"
    # A parameter that stands for itself, such as a layer scale, has no module around it.
    return name if name in source.arrays else f"{name}.{TORCH.get(variable.name, variable.name)}"


def _has_no_scale(key: str, source: Source) -> bool:
    """Tell whether this is the scale of a norm that Keras built without one, which stands for ones."""
    module, _, variable = key.rpartition("/")
    return source.library == "keras" and variable == "gamma" and f"{module}/moving_mean" in source.arrays


def _arranged(array: Any, layer: Any, variable: Any, torch: bool) -> Any:
    """Return an array with its axes in Keras' order."""
    shape = tuple(variable.shape)
    if torch and variable.name == "kernel":
        array = _from_torch(array, layer)
    if array.shape != shape and array.size == np.prod(shape):
        squeezed = [n for n in array.shape if n != 1]
        # A 1x1 convolution is a dense layer, and a scale by channel may carry empty axes.
        if squeezed == [n for n in shape if n != 1]:
            array = array.reshape(shape)
    return array


def _from_torch(array: Any, layer: Any) -> Any:
    """Return a kernel of PyTorch, outputs first, as Keras has it, outputs last."""
    if isinstance(layer, keras.layers.DepthwiseConv2D):
        return array.transpose(2, 3, 0, 1)
    if array.ndim == 4 and not isinstance(layer, keras.layers.Dense):
        return array.transpose(2, 3, 1, 0)
    flat = array.reshape(array.shape[0], -1)
    before = _flattened(layer)
    if before and np.prod(before) == flat.shape[1]:
        height, width, channels = before
        flat = flat.reshape(-1, channels, height, width).transpose(0, 2, 3, 1).reshape(flat.shape)
    return flat.T


def _flattened(layer: Any) -> tuple[int, ...]:
    """Return (height, width, channels) of what was flattened right before a dense layer; () if nothing was."""
    before = _before(layer)
    while isinstance(before, keras.layers.Dropout):
        before = _before(before)
    shape = tuple(before.input.shape[1:]) if isinstance(before, keras.layers.Flatten) else ()
    return shape if len(shape) == 3 else ()


def _before(layer: Any) -> Any:
    """Return the layer whose output is this one's input; None before the first."""
    inputs = layer.input if not isinstance(layer, keras.layers.InputLayer) else None
    return inputs._keras_history.operation if hasattr(inputs, "_keras_history") else None


def _first_layers(network: Any) -> set[Any]:
    """Return the layers with weights that see the input first, through layers without weights only."""
    weightless = {layer for layer in network.layers if not layer.weights}

    def sees_input(layer: Any) -> bool:
        before = _before(layer)
        while before in weightless and not isinstance(before, keras.layers.InputLayer):
            before = _before(before)
        return isinstance(before, keras.layers.InputLayer)

    return {layer for layer in network.layers if layer.weights and sees_input(layer)}


def _heads(network: Any) -> set[Any]:
    """Return the dense layers that give predictions, which `Head.logits` names so."""
    waiting, found = list(network.outputs), set()
    while waiting:
        layer = waiting.pop()._keras_history.operation
        if isinstance(layer, (keras.layers.Activation, keras.layers.Average)):
            waiting += keras.tree.flatten(layer.input)
        elif layer.name.endswith("logits") or layer.name.startswith("auxiliary"):
            found.add(layer)
    return found


def _lacks_top(network: Any) -> bool:
    return "logits" not in {layer.name for layer in network.layers}


def _keys(network: Any, source: Source) -> set[str | None]:
    """Return what the layers of a network are called in the source."""
    return {source.layout.rename(layer.name) for layer in network.layers}


def _for_channels(kernel: Any, channels: int) -> Any:
    """Return a kernel (h, w, c, filters) for another number of channels: summed for one, else tiled and scaled."""
    there = kernel.shape[2]
    if there == channels:
        return kernel
    if channels == 1:
        return kernel.sum(axis=2, keepdims=True)
    tiled = np.tile(kernel, (1, 1, -(-channels // there), 1))[:, :, :channels]
    return tiled * np.float32(there / channels)


def _fold_biases(network: Any, source: Source, plan: Plan) -> list[str]:
    """Fold biases of convolutions that ours lack into the moving mean of the norm behind; return the keys left over."""
    extra = [key for key in source.arrays if key not in plan.used and not _ignored(key, source)]
    if not extra:
        return []
    ours: Mapping[Any, Any] = {source.layout.rename(layer.name): layer for layer in network.layers if layer.weights}
    left = []
    for key in extra:
        name, variable = _module(key, source), key[len(_module(key, source)) + 1 :]
        norm = _norm_behind(ours[name]) if variable == "bias" and name in ours else None
        mean = norm and f"{norm.name}/moving_mean"
        if mean in plan.values:
            plan.values[mean] = plan.values[mean] - source.arrays[key]
        else:
            left.append(key)
    return left


def _ignored(key: str, source: Source) -> bool:
    return source.layout.ignores(key) or key.endswith("num_batches_tracked")


def _norm_behind(layer: Any) -> Any:
    """Return the batch norm that alone takes a layer's output; None if there is none."""
    nodes = [node.operation for node in layer._outbound_nodes]
    return nodes[0] if len(nodes) == 1 and isinstance(nodes[0], keras.layers.BatchNormalization) else None


def _require(network: Any, source: Source, plan: Plan, extra: list[str]) -> None:
    """Raise BadOption with what differs, if anything does."""
    parts = [
        f"{len(found)} {words}: {', '.join(map(str, found[:SHOWN]))}{', …' if len(found) > SHOWN else ''}"
        for found, words in (
            (plan.missing, "missing there"),
            (extra, "not expected here"),
            (plan.differing, "of another shape"),
        )
        if found
    ]
    if parts:
        raise BadOption(
            f"weights must fit {network.name}. Received: {source.origin}: {'; '.join(parts)}. "
            "Use the model, classes and options that the weights were made with."
        )
