"""Load opened weights into a keras.Model: all variables with the right shapes, or none."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable
from typing import Any

from zoo.common import compat
from zoo.common.errors import BadOption
from zoo.common.lazy import keras, np
from zoo.layers.lazy import layers
from zoo.weights.source import HeadWarning, WeightsSource

MAX_KEYS = 4  # listed in an error message


@dataclasses.dataclass
class Assignment:
    """Values by variable, and the differences between a model and a source.

    Args:
        values: arrays by our "layer/variable".
        used: the source's keys of these arrays.
        missing: keys that the source lacks.
        mismatched: descriptions of arrays with another shape.
        heads: layers that start at random.
    """

    values: dict[str, Any] = dataclasses.field(default_factory=dict)
    used: set[str] = dataclasses.field(default_factory=set)
    missing: list[str] = dataclasses.field(default_factory=list)
    mismatched: list[str] = dataclasses.field(default_factory=list)
    heads: list[Any] = dataclasses.field(default_factory=list)


def load_weights(model: Any, source: WeightsSource, build_default: Callable[[], Any]) -> list[Any]:
    """Load the weights of a source into a model.

    Args:
        model: the keras.Model; its values are overwritten.
        source: the opened weights.
        build_default: builds the same model with its default head; the source may have the weights of this head too.

    Returns:
        The heads that start at random.

    Raises:
        BadOption: a key is missing, unexpected or has another shape; the model is unchanged.
    """
    assignment = _assign(model, source)
    unexpected = _fold_biases(model, source, assignment)
    if unexpected and _lacks_top(model):
        top = _source_names(build_default(), source) - _source_names(model, source)
        unexpected = [key for key in unexpected if source.module(key) not in top and not _is_named_head(key, source)]
    _check(model, source, assignment, unexpected)
    _note_heads(model, source, assignment)
    for layer in model.layers:
        for variable in layer.weights:
            if _path(layer, variable) in assignment.values:
                variable.assign(assignment.values[_path(layer, variable)])
    with layers.skip_initialization(False):
        for layer in assignment.heads:
            layer.kernel.assign(layer.kernel_initializer(layer.kernel.shape))
    return assignment.heads


def _assign(model: Any, source: WeightsSource) -> Assignment:
    """Find the array of each variable."""
    assignment, first, heads = Assignment(), _first_layers(model), _heads(model)
    new_task = "logits" not in {layer.name for layer in heads}
    for layer in model.layers:
        own = Assignment()
        for variable in layer.weights:
            _find(layer, variable, source, layer in first, own)
        assignment.used |= own.used
        if layer in heads and _starts_random(own, source, new_task):
            assignment.heads.append(layer)
            continue
        assignment.values |= own.values
        assignment.missing += own.missing
        assignment.mismatched += own.mismatched
    return assignment


def _starts_random(own: Assignment, source: WeightsSource, new_task: bool) -> bool:
    """Return whether a head starts at random: another library's has another size, or a file does not have its name."""
    return bool(own.missing or own.mismatched) if source.any_head else new_task and bool(own.missing)


def _find(layer: Any, variable: Any, source: WeightsSource, first: bool, own: Assignment) -> None:
    """Add the array of one variable to an assignment, or its missing key or mismatched shape."""
    path, key = _path(layer, variable), source.key(layer.name, variable.name)
    if key is None or key not in source.arrays:
        if key is not None and source.omits_scale(key):
            own.values[path] = np.ones(variable.shape, "float32")
        else:
            own.missing.append(key or path)
        return
    own.used.add(key)
    array = _to_keras_axes(source.arrays[key], layer, variable, source.torch)
    if hasattr(layer, "resampled"):
        array = layer.resampled(array, source.grids.get(layer.name))
    if first and variable.name == "kernel" and array.ndim == 4:
        array = _fit_channels(array[:, :, ::-1] if source.bgr else array, variable.shape[2])
    if array.shape != tuple(variable.shape):
        own.mismatched.append(f"{key} is {source.arrays[key].shape} there, {path} is {tuple(variable.shape)} here")
    own.values[path] = array


def _path(layer: Any, variable: Any) -> str:
    return f"{layer.name}/{variable.name}"


def _to_keras_axes(array: Any, layer: Any, variable: Any, torch: bool) -> Any:
    """Return an array with its axes in Keras' order."""
    shape = tuple(variable.shape)
    if torch and variable.name == "kernel":
        array = _from_torch(array, layer)
    # A 1x1 convolution can be a dense layer, and a scale by channel can have axes of length 1.
    same_but_ones = [n for n in array.shape if n != 1] == [n for n in shape if n != 1]
    return array.reshape(shape) if same_but_ones else array


def _from_torch(array: Any, layer: Any) -> Any:
    """Return a kernel of PyTorch (outputs first) in Keras' order (outputs last)."""
    if isinstance(layer, keras.layers.DepthwiseConv2D):
        return array.transpose(2, 3, 0, 1)
    if array.ndim == 4 and not isinstance(layer, keras.layers.Dense):
        return array.transpose(2, 3, 1, 0)
    flat = array.reshape(array.shape[0], -1)
    map_shape = _flattened_shape(layer)
    if map_shape and np.prod(map_shape) == flat.shape[1]:
        height, width, channels = map_shape
        flat = flat.reshape(-1, channels, height, width).transpose(0, 2, 3, 1).reshape(flat.shape)
    return flat.T


def _flattened_shape(layer: Any) -> tuple[int, ...]:
    """Return (height, width, channels) of the map that is flattened right before a dense layer; () if there is none."""
    before = _before(layer)
    while isinstance(before, keras.layers.Dropout):
        before = _before(before)
    shape = tuple(before.input.shape[1:]) if isinstance(before, keras.layers.Flatten) else ()
    return shape if len(shape) == 3 else ()


def _before(layer: Any) -> Any:
    """Return the layer before this one; None before the first."""
    inputs = layer.input if not isinstance(layer, keras.layers.InputLayer) else None
    return compat.producer(inputs)


def _first_layers(model: Any) -> set[Any]:
    """Return the layers with weights that only layers without weights separate from the input."""
    weightless = {layer for layer in model.layers if not layer.weights}

    def follows_input(layer: Any) -> bool:
        before = _before(layer)
        while before in weightless and not isinstance(before, keras.layers.InputLayer):
            before = _before(before)
        return isinstance(before, keras.layers.InputLayer)

    return {layer for layer in model.layers if layer.weights and follows_input(layer)}


def _heads(model: Any) -> set[Any]:
    """Return the dense layers of the predictions, by the names that `Head.logits` gives them."""
    waiting, heads = list(model.outputs), set()
    while waiting:
        layer = compat.producer(waiting.pop())
        if isinstance(layer, (keras.layers.Activation, keras.layers.Average)):
            waiting += keras.tree.flatten(layer.input)
        elif layer.name.endswith("logits") or layer.name.startswith("auxiliary"):
            heads.add(layer)
    return heads


def _lacks_top(model: Any) -> bool:
    return "logits" not in {layer.name for layer in model.layers}


def _is_named_head(key: str, source: WeightsSource) -> bool:
    """Return whether a key is of one of several heads; see `Head.logits`."""
    return source.module(key).endswith("_logits")


def _source_names(model: Any, source: WeightsSource) -> set[str | None]:
    """Return the source's names of a model's layers."""
    return {source.name_mapping.rename(layer.name) for layer in model.layers}


def _fit_channels(kernel: Any, channels: int) -> Any:
    """Return a kernel (h, w, c, filters) for another number of channels: summed for one, else tiled and scaled."""
    own = kernel.shape[2]
    if own == channels:
        return kernel
    if channels == 1:
        return kernel.sum(axis=2, keepdims=True)
    tiled = np.tile(kernel, (1, 1, -(-channels // own), 1))[:, :, :channels]
    return tiled * np.float32(own / channels)


def _fold_biases(model: Any, source: WeightsSource, assignment: Assignment) -> list[str]:
    """Fold biases of convolutions without one here into the next moving mean; return the other unused keys."""
    unused = [key for key in source.arrays if key not in assignment.used and not source.ignores(key)]
    by_name = {source.name_mapping.rename(layer.name): layer for layer in model.layers if layer.weights}
    rest = []
    for key in unused:
        name = source.module(key)
        norm = _norm_after(by_name[name]) if key[len(name) + 1 :] == "bias" and name in by_name else None
        mean = norm and f"{norm.name}/moving_mean"
        if mean in assignment.values:
            assignment.values[mean] = assignment.values[mean] - source.arrays[key]
        else:
            rest.append(key)
    return rest


def _norm_after(layer: Any) -> Any:
    """Return the batch normalization that is the only consumer of a layer's output; None if there is none."""
    consumers = [node.operation for node in compat.outbound_nodes(layer)]
    batch_norm = len(consumers) == 1 and isinstance(consumers[0], keras.layers.BatchNormalization)
    return consumers[0] if batch_norm else None


def _check(model: Any, source: WeightsSource, assignment: Assignment, unexpected: list[str]) -> None:
    """Raise BadOption with all differences, if there are any."""
    parts = [
        f"{len(keys)} {words}: {', '.join(map(str, keys[:MAX_KEYS]))}{', …' if len(keys) > MAX_KEYS else ''}"
        for keys, words in (
            (assignment.missing, "missing there"),
            (unexpected, "not expected here"),
            (assignment.mismatched, "of another shape"),
        )
        if keys
    ]
    if not parts:
        return
    theirs, ours = _classes(model, source)
    if theirs and ours and theirs != ours and len(parts) == 1 and assignment.mismatched:
        raise BadOption(
            f"weights must fit {model.name}. Received: {source.received}, which have {theirs} classes; the model has "
            f"{ours}. Pass classes={theirs}, or heads={{'name': {ours}}} for a last layer that starts at random."
        )
    raise BadOption(
        f"weights must fit {model.name}. Received: {source.received}: {'; '.join(parts)}. "
        "Use the model, classes and options that the weights were made with."
    )


def _classes(model: Any, source: WeightsSource) -> tuple[int | None, int | None]:
    """Return the number of logits of a source and of a model, None without a last layer of that name."""
    layer = next((layer for layer in model.layers if layer.name == "logits" and layer.weights), None)
    if layer is None:
        return None, None
    array = source.arrays.get(source.key("logits", "bias") or "")
    return (None if array is None or array.ndim != 1 else array.shape[0]), layer.weights[-1].shape[-1]


def _note_heads(model: Any, source: WeightsSource, assignment: Assignment) -> None:
    """Warn in one line that the last layer starts at random although the source has one, or is a whole model."""
    if "logits" not in {layer.name for layer in assignment.heads}:
        return
    theirs, ours = _classes(model, source)
    reason = f"have {theirs} classes" if theirs and theirs != ours else "have no last layer that fits"
    if source.left_out:
        reason = f"have other layers at their end ({', '.join(source.left_out[:MAX_KEYS])})"
    warnings.warn(
        f"{source.received} {reason}; the last layer of {model.name} ({ours} classes) starts at random.",
        HeadWarning,
        stacklevel=2,
    )
