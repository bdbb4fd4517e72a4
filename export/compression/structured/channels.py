"""Structured pruning: remove whole channels and rebuild a smaller model, which reduces size and latency.

Li et al. 2016, arXiv:1608.08710 (channels by the L1 norm of their kernel); Liu et al. 2017, arXiv:1708.06519 (by the
scale of their batch normalization). Channels that a sum, a product or a padded shortcut joins are removed together.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from export.compression.structured.branches import remove_branches
from export.compression.structured.channel_groups import ChannelGroups
from export.compression.structured.propagation import group_channels
from export.core.keras_graph import Call, Change, calls, check_same, like, probe, rebuild
from zoo.common.errors import BadOption
from zoo.common.lazy import keras, np

if TYPE_CHECKING:
    import keras as _keras
    import numpy as _np

ALLOWED = 1e-4


@dataclasses.dataclass(frozen=True)
class StructuredPruning:
    """The target of structured pruning.

    Args:
        multiply_adds: fraction of the multiply-adds of convolutions and dense layers to keep, above 0 and below 1.
        by: importance of a channel: "norm" for the L1 norm of its kernel, "scale" for the scale of its batch
            normalization.
        multiple: number of channels to round to; kernels for vectors of 8 or 16 gain nothing from fewer.
        branches: remove whole branches of sums first, the least important ones, and then channels.
    """

    multiply_adds: float = 0.5
    by: str = "norm"
    multiple: int = 1
    branches: bool = False

    def __post_init__(self) -> None:
        if not 0 < self.multiply_adds < 1:
            raise BadOption(
                f"multiply_adds must be a fraction above 0 and below 1. Received: multiply_adds={self.multiply_adds}"
            )
        if self.by not in ("norm", "scale"):
            raise BadOption(f"by must be 'norm' or 'scale'. Received: by={self.by!r}")
        if self.multiple < 1:
            raise BadOption(f"multiple must be at least 1. Received: multiple={self.multiple}")


def prune_and_train(
    model: _keras.Model,
    pruning: StructuredPruning,
    train: Callable[[Any, int, list[Any]], Any],
    *,
    epochs: int,
    examples: _np.ndarray | None = None,
) -> _keras.Model:
    """Return a smaller model, fine-tuned to recover its accuracy.

    Args:
        model: the model; it is not changed.
        pruning: the target.
        train: trains a model, `train(model, epochs, callbacks)`.
        epochs: number of epochs.
        examples: inputs to measure the importance of branches on; random ones if None.

    Raises:
        BadOption: before training, if the target cannot be reached.
        UnsupportedExport: before training, if the model is not functional.
    """
    smaller = prune_structure(model, pruning, examples)
    train(smaller, epochs, [])
    return smaller


def prune_structure(
    model: _keras.Model, pruning: StructuredPruning, examples: _np.ndarray | None = None
) -> _keras.Model:
    """Return the untrained model without its least important channels, the same fraction of each channel group.

    Branches are removed first if `pruning.branches` is set. The outputs are compared on random examples with those of
    the full model with silenced channels.

    Raises:
        BadOption: the target cannot be reached.
        ExportError: the outputs differ.
    """
    total = multiply_adds(model)
    if pruning.branches:
        examples = probe(model) if examples is None else examples
        model = remove_branches(model, _cost, examples, pruning.multiply_adds)
    if multiply_adds(model) <= pruning.multiply_adds * total:
        return model
    groups = group_channels(model, by_scale=pruning.by == "scale")
    kept = _select_channels(model, groups, pruning, total)
    smaller = rebuild(model, _changes(model, groups, kept))
    check_same(silence_channels(model, groups, kept), smaller, probe(model), ALLOWED)
    return smaller


def multiply_adds(model: _keras.Model) -> int:
    """Return the multiply-adds of convolutions and dense layers for one input."""
    return sum(map(_cost, calls(model)))


def _cost(call: Call) -> int:
    """Return the multiply-adds of a call: each weight of a kernel is used once at each position of the output."""
    if not _has_kernel(call.layer):
        return 0
    return math.prod(call.layer.kernel.shape) * math.prod(call.outputs[0].shape[1:-1])


def _has_kernel(layer: Any) -> bool:
    kinds = (keras.layers.Conv1D, keras.layers.Conv2D, keras.layers.Conv3D, keras.layers.Dense)
    return isinstance(layer, kinds) or _is_depthwise(layer)


def _is_depthwise(layer: Any) -> bool:
    return isinstance(layer, (keras.layers.DepthwiseConv1D, keras.layers.DepthwiseConv2D))


def _select_channels(model: Any, groups: ChannelGroups, pruning: StructuredPruning, total: int) -> Any:
    """Return the kept channels, bool (channels,): the same fraction of each group, then what the target still allows.

    `total` is the number of multiply-adds that the target refers to.
    """
    graph, sets = calls(model), groups.ranked()
    if not sets:
        raise BadOption(f"{model.name} has no removable channels. Received: layers={len(graph)}")

    def fraction(counts: list[int]) -> float:
        kept = _kept_channels(groups, sets, counts)
        return sum(_cost(call) * _fraction_left(call.layer, groups, kept) for call in graph) / total

    low, high = 0.0, 1.0
    least = fraction(_counts(sets, low, pruning.multiple))
    if least > pruning.multiply_adds:
        raise BadOption(
            f"{model.name} can be reduced to {least:.3f} of its multiply-adds. "
            f"Received: multiply_adds={pruning.multiply_adds}, multiple={pruning.multiple}"
        )
    for _ in range(20):
        middle = (low + high) / 2
        holds = fraction(_counts(sets, middle, pruning.multiple)) <= pruning.multiply_adds
        low, high = (middle, high) if holds else (low, middle)
    counts = _counts(sets, low, pruning.multiple)
    # Rounding leaves some multiply-adds: they go first to the group that lost most.
    for i in sorted(range(len(sets)), key=lambda i: counts[i] / len(sets[i][0])):
        more = [*counts[:i], min(len(sets[i][0]), counts[i] + pruning.multiple), *counts[i + 1 :]]
        counts = more if fraction(more) <= pruning.multiply_adds else counts
    return _kept_channels(groups, sets, counts)


def _counts(sets: list[Any], fraction: float, multiple: int) -> list[int]:
    """Return the number of kept channels of each group, at least one `multiple` where not all can be removed."""
    rounded = (round(fraction * len(group) / multiple) * multiple for group, _ in sets)
    least = (0 if removable else multiple for _, removable in sets)
    return [min(len(group), max(pair)) for (group, _), *pair in zip(sets, rounded, least, strict=True)]


def _kept_channels(groups: ChannelGroups, sets: list[Any], counts: list[int]) -> Any:
    """Return which channels are kept, bool (channels,), if each group keeps its most important ones."""
    kept = np.ones(groups.count, bool)
    for (group, _), count in zip(sets, counts, strict=True):
        kept[group[: len(group) - count]] = False
    return kept[groups.roots]


def _fraction_left(layer: Any, groups: ChannelGroups, kept: Any) -> float:
    """Return the fraction of a layer's multiply-adds that is left."""
    if not _has_kernel(layer):
        return 0.0
    inputs, outputs = kept[groups.inputs[layer.name]], kept[groups.outputs[layer.name]]
    return float(outputs.mean()) * (1.0 if _is_depthwise(layer) else float(inputs.mean()))


def _changes(model: Any, groups: ChannelGroups, kept: Any) -> dict[str, Change]:
    """Return the changes of the layers that lose channels."""
    found = {}
    for layer in {call.layer.name: call.layer for call in calls(model)}.values():
        if layer.name not in groups.inputs:
            continue
        inputs, outputs = kept[groups.inputs[layer.name]], kept[groups.outputs[layer.name]]
        if not (inputs.all() and outputs.all()):
            change = _reduced_layer(layer, inputs, outputs)
            if change is not None:
                found[layer.name] = change
    return found


def _reduced_layer(layer: Any, inputs: Any, outputs: Any) -> Change | None:
    """Return a layer with fewer channels and its remaining weights; None for a layer without channel options."""
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
    # Other layers with weights have one per channel.
    return Change(like(layer), [w[outputs] for w in weights]) if weights else None


def silence_channels(model: _keras.Model, groups: ChannelGroups, kept: Any) -> _keras.Model:
    """Return a copy of the full model in which no kernel reads the removed channels."""
    changes = {}
    for layer in {call.layer.name: call.layer for call in calls(model)}.values():
        if _has_kernel(layer) and not _is_depthwise(layer) and not kept[groups.inputs[layer.name]].all():
            kernel, *rest = layer.get_weights()
            kernel[..., ~kept[groups.inputs[layer.name]], :] = 0
            changes[layer.name] = Change(like(layer), [kernel, *rest])
    return rebuild(model, changes)
