"""ConvNeXt (Liu, Mao, Wu, Feichtenhofer, Darrell, Xie 2022, arXiv:2201.03545).

A ResNet with the design of vision transformers: patches instead of a stem with pooling, depthwise 7x7 convolutions,
layer normalization and one GELU in each block.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from zoo.common.errors import BadOption
from zoo.common.lazy import keras
from zoo.layers.blocks import activate, check_activation, check_counts, check_rate, conv, depthwise
from zoo.layers.blocks import drop_path as drop_branch
from zoo.layers.heads import Head, pool
from zoo.layers.lazy import layers
from zoo.specs.preprocessing import IMAGENET_BICUBIC, SYMMETRIC
from zoo.specs.registry import ModelSpec, register
from zoo.weights.published.convnext import NAME_MAPPINGS, WEIGHTS


def convnext_block(x: Any, *, activation: str, rate: float, name: str) -> Any:
    """Depthwise 7x7, 1x1 to four times the channels and 1x1 back, with a shortcut; `rate` is the drop_path rate."""
    y = depthwise(x, 7, use_bias=True, name=f"{name}_depthwise")
    y = layer_norm(y, name=f"{name}_norm")
    y = activate(conv(y, 4 * x.shape[-1], 1, use_bias=True, name=f"{name}_expand"), activation, name=f"{name}_expand")
    y = conv(y, x.shape[-1], 1, use_bias=True, name=f"{name}_project")
    y = layers.LayerScale(1e-6, name=f"{name}_scale")(y)
    return keras.layers.Add(name=f"{name}_add")([x, drop_branch(y, rate, name=f"{name}_drop")])


def layer_norm(x: Any, *, name: str) -> Any:
    """Normalize over the channels of each pixel."""
    return layers.LayerNormalization(epsilon=1e-6, name=name)(x)


def patches(x: Any, filters: int, size: int, *, name: str) -> Any:
    """Project patches of size x size pixels; pixels after the last whole patch are cropped."""
    return conv(x, filters, size, size, padding="valid", use_bias=True, name=name)


CONVNEXT = ModelSpec(
    (224, 224, 3), 1000, 32, "Liu et al. 2022, arXiv:2201.03545", ("image", "residual"), IMAGENET_BICUBIC
)
SMALL = dataclasses.replace(
    CONVNEXT,
    input_shape=(32, 32, 3),
    classes=10,
    min_size=8,
    tags=(*CONVNEXT.tags, "small"),
    preprocessing=SYMMETRIC,
)


@register(
    "convnext_tiny",
    CONVNEXT,
    params=28_589_128,
    weights=WEIGHTS["convnext_tiny"],
    name_mappings=NAME_MAPPINGS["convnext_tiny"],
    depths=(3, 3, 9, 3),
    widths=(96, 192, 384, 768),
)
# The tiny variant of the paper has 28 million parameters; this one is for tests and small images.
@register("convnext_micro_tiny", SMALL, params=60_954, depths=(1, 1, 1), widths=(16, 32, 64), patch=2)
def convnext(
    x: Any,
    head: Head,
    *,
    depths: tuple[int, ...],
    widths: tuple[int, ...],
    patch: int = 4,
    activation: str = "gelu",
    dropout: float = 0.0,
    drop_path: float = 0.1,
) -> Any:
    """Build a ConvNeXt: patches, then stages with downsampling at stride 2 before each but the first.

    Args:
        x: images (n, height, width, channels).
        head: computes logits from the last feature map.
        depths: number of blocks in each stage.
        widths: channels of each stage.
        patch: height and width of the patches in pixels; also their stride.
        activation: Keras activation of the hidden layers.
        dropout: fraction of the pooled features dropped in training.
        drop_path: probability of dropping the last block's branch for an example in training; it grows linearly
            from 0 at the first block.

    Returns:
        The head's output, logits (n, classes).
    """
    check_activation("activation", activation)
    check_counts("patch", (patch,))
    if not depths or len(check_counts("depths", depths)) != len(check_counts("widths", widths)):
        raise BadOption(
            f"depths and widths must have one number for each stage. Received: depths={depths}, widths={widths}"
        )
    step = check_rate(drop_path, "drop_path") / max(1, sum(depths) - 1)
    x = layer_norm(patches(x, widths[0], patch, name="stem"), name="stem_norm")
    for i, (depth, width) in enumerate(zip(depths, widths, strict=True), start=1):
        if i > 1:
            x = patches(layer_norm(head.level(x), name=f"stage{i}_down_norm"), width, 2, name=f"stage{i}_down")
        for j in range(1, depth + 1):
            rate = step * (sum(depths[: i - 1]) + j - 1)
            x = convnext_block(x, activation=activation, rate=rate, name=f"stage{i}_block{j}")
    return head(head.level(x), dropout, neck=lambda y: layer_norm(pool(y), name="head_norm"))
