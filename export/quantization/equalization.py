"""Cross-layer equalization: rescale the channels of a float model so that 8 bits resolve each of them.

An activation has one scale for all channels, so that a channel of small values has few steps. If f(t x) = t f(x), as
for ReLU, pooling and sums, a layer may multiply a channel by t if all layers that read it divide by t (Nagel et al.
2019, arXiv:1906.04721, section 4.1); channels that a sum joins get the same t. Kernels have a scale for each output
channel: only the kernels that read the channel can lose, and not depthwise ones, which read one channel each.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from export.compression.structured.channel_groups import ChannelGroups
from export.core.keras_graph import Call, Change, calls, like, rebuild
from export.quantization.layer_inputs import is_depthwise, is_supported
from export.quantization.run import run_layers
from export.quantization.selection import quantized_outputs
from zoo.common.lazy import keras, np

if TYPE_CHECKING:
    import keras as _keras

# Layers with f(t x) = t f(x) for each channel.
HOMOGENEOUS = (
    "Dropout", "MaxPooling2D", "AveragePooling2D", "GlobalAveragePooling2D", "GlobalMaxPooling2D", "ZeroPadding2D",
    "LeakyReLU", "UpSampling2D",
)  # fmt: skip
# Exponents of the scales: where a reader shares its scale among the channels, its kernel gains what activations lose.
SHARED, SEPARATE = 0.5, 1.0
LARGEST_SCALE = 64.0


class _Channels:
    """The channels of a model, joined where they need the same scale."""

    def __init__(self, model: _keras.Model) -> None:
        self.groups = ChannelGroups()
        self.carried: dict[int, Any] = {}
        self.separate: dict[str, bool] = {}  # whether a layer reads each channel with a scale of its own
        graph = calls(model)
        names = [call.layer.name for call in graph]
        self.once = {name for name in names if names.count(name) == 1}
        for call in graph:
            outputs = self._propagate(call, [self.carried[id(tensor)] for tensor in call.inputs])
            self.carried.update({id(tensor): outputs for tensor in call.outputs})
        for tensor in model.outputs:
            self.groups.pin(self.carried[id(tensor)])
        self.groups.resolve()

    def _propagate(self, call: Call, inputs: list[Any]) -> Any:
        """Return the channels of a call's output; pins those around layers that are not homogeneous."""
        layer, kind = call.layer, {kind.__name__ for kind in type(call.layer).__mro__}
        if inputs and is_supported(layer) and self._is_scalable(layer):
            self.groups.inputs[layer.name], self.separate[layer.name] = inputs[0], is_depthwise(layer)
            outputs = self.groups.add(call.outputs[0].shape[-1], layer.name)
            self.groups.outputs[layer.name] = outputs
            return self._activated(outputs, layer.activation)
        if kind & set(HOMOGENEOUS) and getattr(layer, "data_format", "channels_last") == "channels_last":
            return inputs[0]
        if kind & {"Activation", "ReLU"}:
            return self._activated(inputs[0], _activation_of(layer))
        if "Add" in kind:
            return self._join(inputs)
        if "Concatenate" in kind and layer.axis in (-1, len(call.inputs[0].shape) - 1):
            return np.concatenate(inputs)
        for channels in inputs:
            self.groups.pin(channels)
        shape = call.outputs[0].shape
        return self.groups.pin(self.groups.add(shape[-1] or 1 if len(shape) > 1 else 1))

    def _is_scalable(self, layer: Any) -> bool:
        separate = getattr(layer, "groups", 1) == 1 and getattr(layer, "depth_multiplier", 1) == 1
        return separate and layer.name in self.once

    def _activated(self, channels: Any, activation: Any) -> Any:
        """Return the channels of an activation; one with a limit, as ReLU6, is not homogeneous."""
        name = getattr(activation, "__name__", activation)
        return channels if name in ("linear", "relu", None) else self.groups.pin(channels)

    def _join(self, inputs: list[Any]) -> Any:
        first, *others = inputs
        for other in others:
            first = self.groups.join(first, other)
        return first


def _activation_of(layer: Any) -> Any:
    """Return the activation of an activation layer: a function, the limit of a ReLU, or None for a plain one."""
    if not isinstance(layer, keras.layers.ReLU):
        return layer.activation
    plain = not layer.negative_slope and not layer.threshold
    return (None if layer.max_value is None else float(layer.max_value)) if plain else "other"


def equalize(model: _keras.Model, examples: Any) -> _keras.Model:
    """Return a model that computes the same, with channels of more equal range.

    Args:
        model: a functional model without batch normalization; it is not changed.
        examples: its inputs, which show the range of each channel.
    """
    channels = _Channels(model)
    scales = _scales(channels, _peaks(model, channels, examples))
    return rebuild(model, dict(_changes(model, channels.groups, scales)))


def _peaks(model: _keras.Model, channels: _Channels, examples: Any) -> tuple[Any, Any]:
    """Return the largest quantized value of each channel, by its representative, and that of the tensors with it."""
    peaks, tops = np.zeros(channels.groups.count), np.zeros(channels.groups.count)
    carried = {call.layer.name: channels.carried[id(call.outputs[0])] for call in calls(model)}
    quantized = set(quantized_outputs(model))

    def run(layer: Any, *inputs: Any, **options: Any) -> Any:
        outputs = layer(*inputs, **options)
        if layer.name in quantized and keras.ops.is_tensor(outputs):
            largest = np.asarray(keras.ops.max(keras.ops.abs(outputs), tuple(range(outputs.ndim - 1))))
            roots = channels.groups.roots[carried[layer.name]]
            np.maximum.at(peaks, roots, largest)
            np.maximum.at(tops, roots, largest.max())
        return outputs

    run_layers(model, examples, run)
    return peaks, tops


def _scales(channels: _Channels, peaks: tuple[Any, Any]) -> Any:
    """Return the factor of each channel."""
    groups, (largest, tops) = channels.groups, peaks
    exponents, free = np.full(groups.count, SEPARATE), np.ones(groups.count, bool)
    free[[groups.roots[i] for i in groups.pinned]] = False
    for name, read in groups.inputs.items():
        if not channels.separate[name]:
            exponents[groups.roots[read]] = SHARED
    used = free & (largest > 0)
    scales = np.ones(groups.count)
    scales[used] = np.clip((tops[used] / largest[used]) ** exponents[used], 1.0, LARGEST_SCALE)
    return scales[groups.roots]


def _changes(model: _keras.Model, groups: ChannelGroups, scales: Any) -> Iterator[tuple[str, Change]]:
    """Yield the layers with scaled weights."""
    for name, made in groups.outputs.items():
        layer = model.get_layer(name)
        into, out = scales[groups.inputs[name]], scales[made]
        kernel = np.asarray(layer.kernel, "float64")
        kernel = kernel * (out / into)[:, None] if is_depthwise(layer) else kernel * out / into[:, None]
        bias = [np.asarray(layer.bias, "float64") * out] if layer.use_bias else []
        yield name, Change(like(layer), [w.astype("float32") for w in (kernel, *bias)])
