"""Which channels of a network's tensors stand or fall together.

Each layer that makes channels gives them numbers, and the numbers are carried along the last axis of every tensor: a
concatenation puts them side by side, flattening repeats them for each pixel, a sum ties those that it adds.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from export.core.keras_graph import Call, calls
from zoo.common.lazy import keras, np

if TYPE_CHECKING:
    import keras as _keras

# Layers that treat each channel by itself and the same way, whatever their options.
EACH = (
    "Dropout", "SpatialDropout2D", "GaussianNoise", "MaxPooling1D", "MaxPooling2D", "AveragePooling1D",
    "AveragePooling2D", "GlobalAveragePooling1D", "GlobalAveragePooling2D", "GlobalMaxPooling1D", "GlobalMaxPooling2D",
    "ReLU", "LeakyReLU", "UpSampling2D", "LayerScale",
)  # fmt: skip
# Layers that do so where their channels come last.
LAST = ("Cropping2D", "ZeroPadding2D", "DepthwiseConv1D", "DepthwiseConv2D", "BatchNormalization")
TOGETHER = ("Add", "Subtract", "Multiply", "Maximum", "Minimum", "Average")
# Beside the scale of its normalization the norm of a channel's kernel only breaks ties.
LITTLE = 1e-6


class ChannelGroups:
    """The channels of a network, and which of them are tied.

    Attributes:
        inputs: numbers of the channels that each layer reads, by its name.
        outputs: numbers of the channels that it gives.
        roots: for each number the one that stands for all that are tied to it; known once all is tied.
    """

    def __init__(self) -> None:
        self.inputs: dict[str, Any] = {}
        self.outputs: dict[str, Any] = {}
        self.roots: Any = None
        self._parents: list[int] = []
        self._makers: list[str] = []
        self._scores: list[float] = []
        self._fixed: set[int] = set()

    @property
    def count(self) -> int:
        """How many numbers there are."""
        return len(self._parents)

    def new(self, count: int, maker: str = "") -> Any:
        """Return new numbers for the channels that a layer makes."""
        first = self.count
        self._parents.extend(range(first, first + count))
        self._makers.extend([maker] * count)
        self._scores.extend([0.0] * count)
        return np.arange(first, first + count)

    def score(self, channels: Any, values: Any, weight: float = 1.0) -> None:
        """Add to what channels are worth; values (channels,) count relative to their mean."""
        for channel, value in zip(channels, values / (values.mean() + 1e-12), strict=True):
            self._scores[channel] += weight * float(value)

    def fix(self, channels: Any) -> Any:
        """Let channels stay, whatever they are worth; returns them."""
        self._fixed.update(channels.tolist())
        return channels

    def join(self, some: Any, others: Any) -> Any:
        """Tie channels one by one; where one is added to many, all stay. Returns those of the larger tensor."""
        if len(some) != len(others):
            return self.fix(max((self.fix(some), self.fix(others)), key=len))
        for a, b in zip(some.tolist(), others.tolist(), strict=True):
            self._parents[self._root(a)] = self._root(b)
        return some

    def settle(self) -> None:
        """Find what stands for what, once all is tied."""
        self.roots = np.array([self._root(i) for i in range(self.count)])

    def ranked(self) -> list[tuple[Any, bool]]:
        """Return the channels that may go, a set for each group of layers that make them together.

        Returns:
            For each set its channels, the least worth first, and whether all of them may go: each of its layers then
            still makes those that it shares with more layers.
        """
        worth, makers = np.zeros(self.count), [set() for _ in range(self.count)]
        for i, root in enumerate(self.roots.tolist()):
            worth[root] += self._scores[i]
            makers[root].add(self._makers[i])
        fixed, sets = {int(self.roots[i]) for i in self._fixed}, {}
        for root in np.unique(self.roots).tolist():
            if root not in fixed:
                sets.setdefault(frozenset(makers[root] - {""}), []).append(root)
        return [
            (np.array(group)[np.argsort(worth[group], kind="stable")], any(layers < others for others in sets))
            for layers, group in sets.items()
        ]

    def _root(self, i: int) -> int:
        while self._parents[i] != i:
            self._parents[i] = i = self._parents[self._parents[i]]
        return i


def group_channels(network: _keras.Model, *, by_scale: bool = False) -> ChannelGroups:
    """Return the ties of a functional network's channels, and what each is worth.

    Args:
        network: the network.
        by_scale: whether a channel is worth the scale of its batch normalization, or the L1 norm of its kernel.
    """
    ties, carried = ChannelGroups(), {}
    for call in calls(network):
        inputs = [carried[id(tensor)] for tensor in call.inputs]
        outputs = _follow(ties, call, inputs, by_scale)
        carried.update({id(tensor): outputs for tensor in call.outputs})
        if inputs:
            _record(ties.inputs, call, inputs[0], ties)
            _record(ties.outputs, call, outputs, ties)
    for tensor in network.outputs:
        ties.fix(carried[id(tensor)])
    ties.settle()
    return ties


def _record(known: dict[str, Any], call: Call, channels: Any, ties: ChannelGroups) -> None:
    """Keep the channels of a layer; one that is used again has the same weights for others, which ties them."""
    before = known.setdefault(call.layer.name, channels)
    if before is not channels:
        ties.join(before, channels)


def _follow(ties: ChannelGroups, call: Call, inputs: list[Any], by_scale: bool) -> Any:
    """Return the channels of what a call gives."""
    layer, kinds = call.layer, {kind.__name__ for kind in type(call.layer).__mro__}
    if not inputs:
        return ties.fix(ties.new(call.outputs[0].shape[-1]))
    for names, rule in RULES:
        if kinds & set(names):
            found = rule(ties, call, inputs)
            break
    else:
        found = _unknown(ties, call, inputs)
    if "BatchNormalization" in kinds and by_scale and layer.scale:
        ties.score(found, abs(np.asarray(layer.gamma)))
    elif hasattr(layer, "kernel") and kinds & {"Conv1D", "Conv2D", "Conv3D", "Dense"}:
        kernel = abs(np.asarray(layer.kernel, "float32"))
        ties.score(found, kernel.reshape(-1, kernel.shape[-1]).sum(0), LITTLE if by_scale else 1.0)
    return found


def _each(_ties: ChannelGroups, _call: Call, inputs: list[Any]) -> Any:
    return inputs[0]


def _last(ties: ChannelGroups, call: Call, inputs: list[Any]) -> Any:
    """Pass channels on where they come last; zeros put beside them are channels of their own."""
    layer, (channels,) = call.layer, inputs
    if isinstance(layer, keras.layers.ZeroPadding2D) and layer.data_format == "channels_first":
        before, after = layer.padding[1]
        around = layer.padding[0] == (0, 0)
        return np.concatenate([ties.new(before), channels, ties.new(after)]) if around else _unknown(ties, call, inputs)
    last = getattr(layer, "data_format", "channels_last") == "channels_last"
    last = last and getattr(layer, "axis", -1) in (-1, len(call.inputs[0].shape) - 1)
    return channels if last and getattr(layer, "depth_multiplier", 1) == 1 else _unknown(ties, call, inputs)


def _made(ties: ChannelGroups, call: Call, inputs: list[Any]) -> Any:
    """Number what a convolution or dense layer makes; groups, and what looks at all channels at once, stay."""
    layer = call.layer
    if layer.name in ties.outputs:
        return ties.outputs[layer.name]
    found = ties.new(call.outputs[0].shape[-1], layer.name)
    free = getattr(layer, "groups", 1) == 1 and getattr(layer, "data_format", "channels_last") == "channels_last"
    if not free:
        ties.fix(inputs[0])
    return found if free and _one_by_one(layer.activation) else ties.fix(found)


def _one_by_one(activation: Any) -> bool:
    return getattr(activation, "__name__", "") not in ("softmax", "log_softmax", "glu", "sparsemax")


def _activated(ties: ChannelGroups, call: Call, inputs: list[Any]) -> Any:
    return inputs[0] if _one_by_one(call.layer.activation) else ties.fix(inputs[0])


def _together(ties: ChannelGroups, _call: Call, inputs: list[Any]) -> Any:
    first, *others = inputs
    for other in others:
        first = ties.join(first, other)
    return first


def _beside(ties: ChannelGroups, call: Call, inputs: list[Any]) -> Any:
    last = call.layer.axis in (-1, len(call.inputs[0].shape) - 1)
    return np.concatenate(inputs) if last else _together(ties, call, inputs)


def _flat(_ties: ChannelGroups, call: Call, inputs: list[Any]) -> Any:
    return np.tile(inputs[0], call.outputs[0].shape[-1] // len(inputs[0]))


def _reshaped(ties: ChannelGroups, call: Call, inputs: list[Any]) -> Any:
    same = call.outputs[0].shape[-1] == len(inputs[0])
    return inputs[0] if same else _unknown(ties, call, inputs)


def _rescaled(ties: ChannelGroups, call: Call, inputs: list[Any]) -> Any:
    return inputs[0] if np.ndim(call.layer.scale) == np.ndim(call.layer.offset) == 0 else ties.fix(inputs[0])


def _unknown(ties: ChannelGroups, call: Call, inputs: list[Any]) -> Any:
    """Let all stay around a layer that looks at channels in a way that is not known here."""
    for channels in inputs:
        ties.fix(channels)
    shape = call.outputs[0].shape
    return ties.fix(ties.new(shape[-1] or 1 if len(shape) > 1 else 1))


# By the names of a layer's class and of those that it derives from; the first that fits.
RULES: tuple[tuple[tuple[str, ...], Callable[..., Any]], ...] = (
    (EACH, _each),
    (LAST, _last),
    (("Conv1D", "Conv2D", "Conv3D", "Dense"), _made),
    (("Activation",), _activated),
    (TOGETHER, _together),
    (("Concatenate",), _beside),
    (("Flatten",), _flat),
    (("Reshape",), _reshaped),
    (("Rescaling",), _rescaled),
)
