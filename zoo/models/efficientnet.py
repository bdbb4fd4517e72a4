"""EfficientNet (Tan, Le 2019, arXiv:1905.11946): compound scaling of width, depth and resolution.

The blocks are inverted residuals (arXiv:1801.04381) with squeeze-and-excitation (Hu et al. 2017, arXiv:1709.01507)
and stochastic depth in training (Huang et al. 2016, arXiv:1603.09382).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

from zoo.common.lazy import keras
from zoo.layers.blocks import activate, check_activation, check_rate, conv, conv_norm, depthwise_norm, divisible, norm
from zoo.layers.blocks import drop_path as drop_branch
from zoo.layers.heads import Head
from zoo.specs.preprocessing import IMAGENET_BICUBIC, SYMMETRIC
from zoo.specs.registry import ModelSpec, register
from zoo.weights.published.efficientnet import NAME_MAPPINGS, WEIGHTS


class Stage(NamedTuple):
    """A row of table 1 of the paper: the first of `depth` blocks has the stride; `size` is that of the kernels."""

    expansion: int
    size: int
    stride: int
    channels: int
    depth: int


class Plan(NamedTuple):
    """Channels of the stem, and the stages."""

    stem: int
    stages: tuple[Stage, ...]

    def scaled(self, width: float, depth: float) -> Plan:
        """Return a wider and deeper plan (equation 3 of the paper)."""
        stages = (
            s._replace(channels=divisible(s.channels * width), depth=math.ceil(s.depth * depth)) for s in self.stages
        )
        return Plan(divisible(self.stem * width), tuple(stages))


# Expansion, kernel size, stride, channels and depth of each stage.
B0 = Plan(
    stem=32,
    stages=(
        Stage(1, 3, 1, 16, 1),
        Stage(6, 3, 2, 24, 2),
        Stage(6, 5, 2, 40, 2),
        Stage(6, 3, 2, 80, 3),
        Stage(6, 5, 1, 112, 3),
        Stage(6, 5, 2, 192, 4),
        Stage(6, 3, 1, 320, 1),
    ),
)
TINY = Plan(stem=16, stages=(Stage(1, 3, 1, 8, 1), Stage(6, 3, 2, 16, 2), Stage(6, 5, 2, 24, 2)))


def mbconv(x: Any, stage: Stage, stride: int, *, style: dict[str, Any], rate: float, name: str) -> Any:
    """Inverted residual with squeeze-and-excitation; a shortcut, with drop_path, if the shape does not change."""
    channels = x.shape[-1]
    y = x
    if stage.expansion > 1:
        y = conv_norm(x, stage.expansion * channels, 1, name=f"{name}_expand", **style)
    y = depthwise_norm(y, stage.size, stride, name=f"{name}_depthwise", **style)
    y = squeeze_excite(y, channels // 4, activation=style["activation"], name=name)
    y = conv_norm(y, stage.channels, 1, name=f"{name}_project", **style | {"activation": None})
    if stride > 1 or channels != stage.channels:
        return y
    return keras.layers.Add(name=f"{name}_add")([x, drop_branch(y, rate, name=f"{name}_drop")])


def squeeze_excite(x: Any, filters: int, *, activation: str, name: str) -> Any:
    """Scale each channel by a gate computed from the averages of all channels."""
    y = keras.layers.GlobalAveragePooling2D(keepdims=True, name=f"{name}_squeeze")(x)
    y = activate(conv(y, filters, 1, use_bias=True, name=f"{name}_reduce"), activation, name=f"{name}_reduce")
    y = activate(conv(y, x.shape[-1], 1, use_bias=True, name=f"{name}_excite"), "sigmoid", name=f"{name}_excite")
    return keras.layers.Multiply(name=f"{name}_scale")([x, y])


PAPER, TAGS = "Tan, Le 2019, arXiv:1905.11946", ("image", "residual", "mobile")
SMALL = ModelSpec((32, 32, 3), 10, 8, PAPER, (*TAGS, "small"), SYMMETRIC)


def imagenet(name: str, size: int, **options: Any) -> Callable[..., Any]:
    """Register a variant for ImageNet, for images of size x size pixels, with its published weights."""
    spec = ModelSpec((size, size, 3), 1000, 32, PAPER, TAGS, IMAGENET_BICUBIC)
    return register(name, spec, weights=WEIGHTS[name], name_mappings=NAME_MAPPINGS[name], **options)


@imagenet("efficientnet_b0", 224, params=5_288_548, plan=B0)
@imagenet("efficientnet_b1", 240, params=7_794_184, plan=B0.scaled(width=1.0, depth=1.1))
@imagenet("efficientnet_b2", 260, params=9_109_994, plan=B0.scaled(width=1.1, depth=1.2), dropout=0.3)
@imagenet("efficientnet_b3", 300, params=12_233_232, plan=B0.scaled(width=1.2, depth=1.4), dropout=0.3)
@imagenet("tf_efficientnet_b0", 224, params=5_288_548, plan=B0, epsilon=1e-3, tf_padding=True)
@register("efficientnet_tiny", SMALL, params=32_222, plan=TINY)
def efficientnet(
    x: Any,
    head: Head,
    plan: Plan,
    *,
    activation: str = "silu",
    dropout: float = 0.2,
    drop_path: float = 0.2,
    epsilon: float = 1e-5,
    tf_padding: bool = False,
) -> Any:
    """Build an EfficientNet: a 3x3 stem at stride 2, stages of inverted residuals, a wide 1x1 convolution.

    Args:
        x: images (n, height, width, channels).
        head: computes logits from the last feature map.
        plan: channels of the stem, and the stages.
        activation: Keras activation of the hidden layers.
        dropout: fraction of the pooled features dropped in training.
        drop_path: probability of dropping the last block's branch for an example in training; it grows linearly
            from 0 at the first block.
        epsilon: added to the variance in batch normalization; weights from TensorFlow expect 1e-3.
        tf_padding: pad strided convolutions as TensorFlow does; its weights expect it.

    Returns:
        The head's output, logits (n, classes).
    """
    check_activation("activation", activation)
    padding = "same" if tf_padding else "even"
    style = {"activation": activation, "norm": partial(norm, epsilon=epsilon), "padding": padding}
    x = conv_norm(x, plan.stem, 3, 2, name="stem", **style)
    step = check_rate(drop_path, "drop_path") / sum(stage.depth for stage in plan.stages)
    block = 0
    for i, stage in enumerate(plan.stages, start=1):
        x = head.level(x) if stage.stride > 1 else x
        for j in range(1, stage.depth + 1):
            stride = stage.stride if j == 1 else 1
            x = mbconv(x, stage, stride, style=style, rate=step * block, name=f"stage{i}_block{j}")
            block += 1
    x = conv_norm(x, 4 * plan.stages[-1].channels, 1, name="top", **style)
    return head(head.level(x), dropout)
