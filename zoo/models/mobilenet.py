"""MobileNetV2 (Sandler, Howard, Zhu, Zhmoginov, Chen 2018, arXiv:1801.04381).

An inverted residual expands the channels, convolves depthwise and projects back without an activation; its shortcut
connects the narrow ends.
"""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Any, NamedTuple

from zoo.common.errors import BadOption
from zoo.common.lazy import keras
from zoo.layers.blocks import check_activation, conv_norm, depthwise_norm, divisible, norm
from zoo.layers.heads import Head
from zoo.specs.preprocessing import IMAGENET, SYMMETRIC
from zoo.specs.registry import ModelSpec, register
from zoo.weights.published.mobilenet import NAME_MAPPINGS, WEIGHTS


class Stage(NamedTuple):
    """A row of table 2 of the paper: t, c, n and s; the first of `depth` blocks has the stride."""

    expansion: int
    channels: int
    depth: int
    stride: int


# Expansion, channels, depth and stride of each stage.
STAGES = (
    Stage(1, 16, 1, 1),
    Stage(6, 24, 2, 2),
    Stage(6, 32, 3, 2),
    Stage(6, 64, 4, 2),
    Stage(6, 96, 3, 1),
    Stage(6, 160, 3, 2),
    Stage(6, 320, 1, 1),
)
TINY = (Stage(1, 8, 1, 1), Stage(6, 16, 2, 2), Stage(6, 24, 2, 2))


def inverted_residual(x: Any, filters: int, stride: int, *, expansion: int, style: dict[str, Any], name: str) -> Any:
    """1x1 expansion, 3x3 depthwise and 1x1 projection, with a shortcut if the shape does not change."""
    channels = x.shape[-1]
    y = x if expansion == 1 else conv_norm(x, expansion * channels, 1, name=f"{name}_expand", **style)
    y = depthwise_norm(y, 3, stride, name=f"{name}_depthwise", **style)
    y = conv_norm(y, filters, 1, name=f"{name}_project", **style | {"activation": None})
    return keras.layers.Add(name=f"{name}_add")([x, y]) if stride == 1 and channels == filters else y


TAGS = ("image", "residual", "mobile")
MOBILENET = ModelSpec((224, 224, 3), 1000, 32, "Sandler et al. 2018, arXiv:1801.04381", TAGS, IMAGENET)
SMALL = dataclasses.replace(
    MOBILENET,
    input_shape=(32, 32, 3),
    classes=10,
    min_size=8,
    tags=(*TAGS, "small"),
    preprocessing=SYMMETRIC,
)


@register(
    "mobilenet_v2",
    MOBILENET,
    params=3_504_872,
    weights=WEIGHTS["mobilenet_v2"],
    name_mappings=NAME_MAPPINGS["mobilenet_v2"],
    stages=STAGES,
)
@register("mobilenet_tiny", SMALL, params=24_378, stages=TINY)
def mobilenet(
    x: Any,
    head: Head,
    stages: tuple[Stage, ...],
    *,
    alpha: float = 1.0,
    activation: str = "relu6",
    dropout: float = 0.2,
    epsilon: float = 1e-5,
    tf_padding: bool = False,
) -> Any:
    """Build a MobileNetV2: a 3x3 stem at stride 2, inverted residuals, a wide 1x1 convolution.

    Args:
        x: images (n, height, width, channels).
        head: computes logits from the last feature map.
        stages: expansion, channels, depth and stride of each stage.
        alpha: width multiplier; channels stay divisible by 8, and below 1 the last convolution keeps its channels.
        activation: Keras activation of the hidden layers.
        dropout: fraction of the pooled features dropped in training.
        epsilon: added to the variance in batch normalization; weights from TensorFlow expect 1e-3.
        tf_padding: pad strided convolutions as TensorFlow does; its weights expect it.

    Returns:
        The head's output, logits (n, classes).
    """
    check_activation("activation", activation)
    if not 0 < alpha < float("inf"):
        raise BadOption(f"alpha must be a number above 0. Received: alpha={alpha}")
    padding = "same" if tf_padding else "even"
    style = {"activation": activation, "norm": partial(norm, epsilon=epsilon), "padding": padding}
    x = conv_norm(x, divisible(2 * stages[0].channels * alpha), 3, 2, name="stem", **style)
    for i, stage in enumerate(stages, start=1):
        filters = divisible(stage.channels * alpha)
        for j in range(1, stage.depth + 1):
            stride = stage.stride if j == 1 else 1
            x = head.level(x) if stride > 1 else x
            name = f"stage{i}_block{j}"
            x = inverted_residual(x, filters, stride, expansion=stage.expansion, style=style, name=name)
    x = conv_norm(x, divisible(4 * stages[-1].channels * max(1.0, alpha)), 1, name="top", **style)
    return head(head.level(x), dropout)
