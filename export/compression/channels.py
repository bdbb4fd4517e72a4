"""Structured pruning: whole channels are removed and the network is rebuilt smaller, so that size and latency fall.

Li et al. 2016, arXiv:1608.08710 (channels by the L1 norm of their kernel); Liu et al. 2017, arXiv:1708.06519 (by the
scale of their batch normalization). Channels that a sum, a product or a padded shortcut ties together go together.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from export.compression.branches import shorten
from export.compression.channel_groups import ChannelGroups, group_channels
from export.core.keras_graph import Call, Change, calls, check_same, like, probe, rebuild
from zoo.common.errors import BadOption
from zoo.common.lazy import keras, np

if TYPE_CHECKING:
    import keras as _keras
    import numpy as _np

ALLOWED = 1e-4


@dataclasses.dataclass(frozen=True)
class Shrinking:
    """How small a network is to become.

    Args:
        multiply_adds: share of the multiply-adds of convolutions and dense layers that may stay, above 0 and below 1.
        by: "norm" for the L1 norm of what makes a channel, "scale" for the scale of its batch normalization.
        multiple: where channels go, a multiple of so many stays if there are as many; kernels for vectors of 8 or 16
            gain nothing from less.
        branches: whether whole branches of sums go first, those that add least; channels go for what is left to save.
    """

    multiply_adds: float = 0.5
    by: str = "norm"
    multiple: int = 1
    branches: bool = False

    def __post_init__(self) -> None:
        if not 0 < self.multiply_adds < 1:
            raise BadOption(
                f"multiply_adds must be a share above 0 and below 1. Received: multiply_adds={self.multiply_adds}"
            )
        if self.by not in ("norm", "scale"):
            raise BadOption(f"by must be 'norm' or 'scale'. Received: by={self.by!r}")
        if self.multiple < 1:
            raise BadOption(f"multiple must be at least 1. Received: multiple={self.multiple}")


def slim(
    network: _keras.Model,
    shrinking: Shrinking,
    train: Callable[[Any, int, list[Any]], Any],
    *,
    epochs: int,
    examples: _np.ndarray | None = None,
) -> _keras.Model:
    """Return a smaller network, trained to make good for what it lost.

    Args:
        network: what to make smaller; it stays as it is.
        shrinking: how small.
        train: trains a network, `train(network, epochs, callbacks)`.
        epochs: how long.
        examples: inputs that branches are judged on; random ones if None.

    Raises:
        BadOption: before training, a size that cannot be reached.
        UnsupportedExport: before training, a network that is not functional.
    """
    smaller = shrink(network, shrinking, examples)
    train(smaller, epochs, [])
    return smaller


def shrink(network: _keras.Model, shrinking: Shrinking, examples: _np.ndarray | None = None) -> _keras.Model:
    """Return the network without its least channels, the same share from each set of layers that share channels.

    It computes what the network computes if nobody reads those channels, which is checked on random examples. Where
    branches may go as a whole, they go before.

    Raises:
        BadOption: a size that cannot be reached.
        ExportError: the smaller network is not that function.
    """
    whole = multiply_adds(network)
    if shrinking.branches:
        judged = probe(network) if examples is None else examples
        network = shorten(network, _cost, judged, shrinking.multiply_adds)
    if multiply_adds(network) <= shrinking.multiply_adds * whole:
        return network
    ties = group_channels(network, by_scale=shrinking.by == "scale")
    kept = _choose(network, ties, shrinking, whole)
    smaller = rebuild(network, _changes(network, ties, kept))
    check_same(silenced(network, ties, kept), smaller, probe(network), ALLOWED)
    return smaller


def multiply_adds(network: _keras.Model) -> int:
    """Return the multiply-adds of convolutions and dense layers for one input."""
    return sum(map(_cost, calls(network)))


def _cost(call: Call) -> int:
    """Each weight of a kernel is used once at each position of the output."""
    if not _has_kernel(call.layer):
        return 0
    return math.prod(call.layer.kernel.shape) * math.prod(call.outputs[0].shape[1:-1])


def _has_kernel(layer: Any) -> bool:
    kinds = (keras.layers.Conv1D, keras.layers.Conv2D, keras.layers.Conv3D, keras.layers.Dense)
    return isinstance(layer, kinds) or _is_depthwise(layer)


def _is_depthwise(layer: Any) -> bool:
    return isinstance(layer, (keras.layers.DepthwiseConv1D, keras.layers.DepthwiseConv2D))


def _choose(network: Any, ties: ChannelGroups, shrinking: Shrinking, whole: int) -> Any:
    """Return for each channel whether it stays: the same share of each set, and then what the target still allows.

    `whole` is what the share of multiply-adds is of.
    """
    graph, sets = calls(network), ties.ranked()
    if not sets:
        raise BadOption(f"{network.name} has no channels that could go. Received: layers={len(graph)}")

    def share(counts: list[int]) -> float:
        kept = _kept(ties, sets, counts)
        return sum(_cost(call) * _left(call.layer, ties, kept) for call in graph) / whole

    low, high = 0.0, 1.0
    least = share(_counts(sets, low, shrinking.multiple))
    if least > shrinking.multiply_adds:
        raise BadOption(
            f"{network.name} can go down to {least:.3f} of its multiply-adds. "
            f"Received: multiply_adds={shrinking.multiply_adds}, multiple={shrinking.multiple}"
        )
    for _ in range(20):
        middle = (low + high) / 2
        holds = share(_counts(sets, middle, shrinking.multiple)) <= shrinking.multiply_adds
        low, high = (middle, high) if holds else (low, middle)
    counts = _counts(sets, low, shrinking.multiple)
    # Whole multiples leave room, which goes first to the set that lost most.
    for i in sorted(range(len(sets)), key=lambda i: counts[i] / len(sets[i][0])):
        more = [*counts[:i], min(len(sets[i][0]), counts[i] + shrinking.multiple), *counts[i + 1 :]]
        counts = more if share(more) <= shrinking.multiply_adds else counts
    return _kept(ties, sets, counts)


def _counts(sets: list[Any], share: float, multiple: int) -> list[int]:
    """Return how many channels of each set stay, at least one `multiple` where not all may go."""
    rounded = (round(share * len(group) / multiple) * multiple for group, _ in sets)
    least = (0 if may_go else multiple for _, may_go in sets)
    return [min(len(group), max(pair)) for (group, _), *pair in zip(sets, rounded, least, strict=True)]


def _kept(ties: ChannelGroups, sets: list[Any], counts: list[int]) -> Any:
    """Return for each channel whether it stays when each set keeps so many, those worth most."""
    kept = np.ones(ties.count, bool)
    for (group, _), count in zip(sets, counts, strict=True):
        kept[group[: len(group) - count]] = False
    return kept[ties.roots]


def _left(layer: Any, ties: ChannelGroups, kept: Any) -> float:
    """Return the share of a layer's multiply-adds that stays."""
    if not _has_kernel(layer):
        return 0.0
    inputs, outputs = kept[ties.inputs[layer.name]], kept[ties.outputs[layer.name]]
    return float(outputs.mean()) * (1.0 if _is_depthwise(layer) else float(inputs.mean()))


def _changes(network: Any, ties: ChannelGroups, kept: Any) -> dict[str, Change]:
    """Return what becomes of the layers whose channels go."""
    found = {}
    for layer in {call.layer.name: call.layer for call in calls(network)}.values():
        if layer.name not in ties.inputs:
            continue
        inputs, outputs = kept[ties.inputs[layer.name]], kept[ties.outputs[layer.name]]
        if not (inputs.all() and outputs.all()):
            change = _smaller(layer, inputs, outputs)
            if change is not None:
                found[layer.name] = change
    return found


def _smaller(layer: Any, inputs: Any, outputs: Any) -> Change | None:
    """Return a layer with fewer channels and what stays of its weights; None where its options know no channels."""
    weights, count = layer.get_weights(), int(outputs.sum())
    if _is_depthwise(layer):
        return Change(like(layer), [weights[0][..., outputs, :], *(w[outputs] for w in weights[1:])])
    if _has_kernel(layer):
        size = {"units": count} if isinstance(layer, keras.layers.Dense) else {"filters": count}
        return Change(
            like(layer, **size), [weights[0][..., inputs, :][..., outputs], *(w[outputs] for w in weights[1:])]
        )
    if isinstance(layer, keras.layers.ZeroPadding2D) and layer.data_format == "channels_first":
        before, after = layer.padding[1]
        sides = int(outputs[:before].sum()), int(outputs[len(outputs) - after :].sum())
        return Change(like(layer, padding=(layer.padding[0], sides)))
    if isinstance(layer, keras.layers.Reshape):
        return Change(like(layer, target_shape=(*layer.target_shape[:-1], count)))
    # What else has weights has one for each channel in each of them.
    return Change(like(layer), [w[outputs] for w in weights]) if weights else None


def silenced(network: _keras.Model, ties: ChannelGroups, kept: Any) -> _keras.Model:
    """Return a copy of the network, as large, in which no kernel reads a channel that goes."""
    changes = {}
    for layer in {call.layer.name: call.layer for call in calls(network)}.values():
        if _has_kernel(layer) and not _is_depthwise(layer) and not kept[ties.inputs[layer.name]].all():
            kernel, *rest = layer.get_weights()
            kernel[..., ~kept[ties.inputs[layer.name]], :] = 0
            changes[layer.name] = Change(like(layer), [kernel, *rest])
    return rebuild(network, changes)
