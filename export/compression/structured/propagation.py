"""Propagation of channels through a model: which channels each layer reads and produces, by a rule for its class."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from export.compression.structured.channel_groups import ChannelGroups
from export.core.keras_graph import Call, calls
from zoo.common.lazy import keras, np

if TYPE_CHECKING:
    import keras as _keras

# Layers that process each channel separately and equally, whatever their options.
CHANNELWISE = (
    "Dropout", "SpatialDropout2D", "GaussianNoise", "MaxPooling1D", "MaxPooling2D", "AveragePooling1D",
    "AveragePooling2D", "GlobalAveragePooling1D", "GlobalAveragePooling2D", "GlobalMaxPooling1D", "GlobalMaxPooling2D",
    "ReLU", "LeakyReLU", "UpSampling2D", "LayerScale",
)  # fmt: skip
# Layers that do so if the channels are the last axis.
CHANNELS_LAST = ("Cropping2D", "ZeroPadding2D", "DepthwiseConv1D", "DepthwiseConv2D", "BatchNormalization")
ELEMENTWISE = ("Add", "Subtract", "Multiply", "Maximum", "Minimum", "Average")
CONVOLUTIONS = ("Conv1D", "Conv2D", "Conv3D", "Dense")
# Weight of the kernel's norm next to the scale of the batch normalization: it decides between equal scales only.
NORM_WEIGHT = 1e-6


def group_channels(model: _keras.Model, *, by_scale: bool = False) -> ChannelGroups:
    """Return the channel groups of a functional model, with the importance of each channel.

    Args:
        model: the model.
        by_scale: rank a channel by the scale of its batch normalization instead of the L1 norm of its kernel.
    """
    groups, carried = ChannelGroups(), {}
    for call in calls(model):
        inputs = [carried[id(tensor)] for tensor in call.inputs]
        outputs = _propagate(groups, call, inputs, by_scale)
        carried.update({id(tensor): outputs for tensor in call.outputs})
        if inputs:
            _record(groups.inputs, call, inputs[0], groups)
            _record(groups.outputs, call, outputs, groups)
    for tensor in model.outputs:
        groups.pin(carried[id(tensor)])
    groups.resolve()
    return groups


def _record(known: dict[str, Any], call: Call, channels: Any, groups: ChannelGroups) -> None:
    """Record the channels of a layer; further calls of a layer share its weights, so that their channels are joined."""
    before = known.setdefault(call.layer.name, channels)
    if before is not channels:
        groups.join(before, channels)


def _propagate(groups: ChannelGroups, call: Call, inputs: list[Any], by_scale: bool) -> Any:
    """Return the channels of a call's output."""
    layer, kinds = call.layer, {kind.__name__ for kind in type(call.layer).__mro__}
    if not inputs:
        return groups.pin(groups.add(call.outputs[0].shape[-1]))
    rule = next((rule for names, rule in RULES if kinds & set(names)), _unknown)
    channels = rule(groups, call, inputs)
    if "BatchNormalization" in kinds and by_scale and layer.scale:
        groups.add_importance(channels, abs(np.asarray(layer.gamma)))
    elif hasattr(layer, "kernel") and kinds & set(CONVOLUTIONS):
        kernel = abs(np.asarray(layer.kernel, "float32"))
        norms = kernel.reshape(-1, kernel.shape[-1]).sum(0)
        groups.add_importance(channels, norms, NORM_WEIGHT if by_scale else 1.0)
    return channels


def _channelwise(_groups: ChannelGroups, _call: Call, inputs: list[Any]) -> Any:
    return inputs[0]


def _channels_last(groups: ChannelGroups, call: Call, inputs: list[Any]) -> Any:
    """Pass on the channels of the last axis; zeros that are padded to the channels get numbers."""
    layer, (channels,) = call.layer, inputs
    if isinstance(layer, keras.layers.ZeroPadding2D) and layer.data_format == "channels_first":
        before, after = layer.padding[1]
        if layer.padding[0] != (0, 0):
            return _unknown(groups, call, inputs)
        return np.concatenate([groups.add(before), channels, groups.add(after)])
    last = getattr(layer, "data_format", "channels_last") == "channels_last"
    last = last and getattr(layer, "axis", -1) in (-1, len(call.inputs[0].shape) - 1)
    return channels if last and getattr(layer, "depth_multiplier", 1) == 1 else _unknown(groups, call, inputs)


def _convolution(groups: ChannelGroups, call: Call, inputs: list[Any]) -> Any:
    """Number the outputs of a convolution or dense layer; pins grouped ones and activations across channels."""
    layer = call.layer
    if layer.name in groups.outputs:
        return groups.outputs[layer.name]
    channels = groups.add(call.outputs[0].shape[-1], layer.name)
    free = getattr(layer, "groups", 1) == 1 and getattr(layer, "data_format", "channels_last") == "channels_last"
    if not free:
        groups.pin(inputs[0])
    return channels if free and _is_elementwise(layer.activation) else groups.pin(channels)


def _is_elementwise(activation: Any) -> bool:
    return getattr(activation, "__name__", "") not in ("softmax", "log_softmax", "glu", "sparsemax")


def _activation(groups: ChannelGroups, call: Call, inputs: list[Any]) -> Any:
    return inputs[0] if _is_elementwise(call.layer.activation) else groups.pin(inputs[0])


def _elementwise(groups: ChannelGroups, _call: Call, inputs: list[Any]) -> Any:
    first, *others = inputs
    for other in others:
        first = groups.join(first, other)
    return first


def _concatenation(groups: ChannelGroups, call: Call, inputs: list[Any]) -> Any:
    last = call.layer.axis in (-1, len(call.inputs[0].shape) - 1)
    return np.concatenate(inputs) if last else _elementwise(groups, call, inputs)


def _flatten(_groups: ChannelGroups, call: Call, inputs: list[Any]) -> Any:
    return np.tile(inputs[0], call.outputs[0].shape[-1] // len(inputs[0]))


def _reshape(groups: ChannelGroups, call: Call, inputs: list[Any]) -> Any:
    same = call.outputs[0].shape[-1] == len(inputs[0])
    return inputs[0] if same else _unknown(groups, call, inputs)


def _rescaling(groups: ChannelGroups, call: Call, inputs: list[Any]) -> Any:
    return inputs[0] if np.ndim(call.layer.scale) == np.ndim(call.layer.offset) == 0 else groups.pin(inputs[0])


def _unknown(groups: ChannelGroups, call: Call, inputs: list[Any]) -> Any:
    """Pin all channels around a layer without a rule."""
    for channels in inputs:
        groups.pin(channels)
    shape = call.outputs[0].shape
    return groups.pin(groups.add(shape[-1] or 1 if len(shape) > 1 else 1))


# By the names of a layer's class and its base classes; the first match applies.
RULES: tuple[tuple[tuple[str, ...], Callable[..., Any]], ...] = (
    (CHANNELWISE, _channelwise),
    (CHANNELS_LAST, _channels_last),
    (CONVOLUTIONS, _convolution),
    (("Activation",), _activation),
    (ELEMENTWISE, _elementwise),
    (("Concatenate",), _concatenation),
    (("Flatten",), _flatten),
    (("Reshape",), _reshape),
    (("Rescaling",), _rescaling),
)
