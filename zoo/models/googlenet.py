"""GoogLeNet (Szegedy et al. 2014, arXiv:1409.4842): nine Inception blocks of four parallel branches.

Batch normalization (arXiv:1502.03167) follows each convolution, as in torchvision. The third branch has 3x3 kernels in
torchvision and its weights (github.com/pytorch/vision/issues/906), 5x5 in the paper; the option `kernel` sets them.
"""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Any

from zoo.common.lazy import keras
from zoo.layers.blocks import ScaledConv, adaptive_pool, check_counts, check_depths, dense, drop
from zoo.layers.heads import Head
from zoo.specs.preprocessing import SYMMETRIC
from zoo.specs.registry import ModelSpec, register
from zoo.weights.published.googlenet import NAME_MAPPINGS, WEIGHTS

PAPER = "Szegedy et al. 2014, arXiv:1409.4842"
CROPPED = dataclasses.replace(SYMMETRIC, crop=0.875)

# Table 1 of the paper, by stage: 1x1, 3x3 reduce, 3x3, 5x5 reduce, 5x5 and pool projection of each block.
STAGES = {
    3: ((64, 96, 128, 16, 32, 32), (128, 128, 192, 32, 96, 64)),
    4: (
        (192, 96, 208, 16, 48, 64),
        (160, 112, 224, 24, 64, 64),
        (128, 128, 256, 24, 64, 64),
        (112, 144, 288, 32, 64, 64),
        (256, 160, 320, 32, 128, 128),
    ),
    5: ((256, 160, 320, 32, 128, 128), (384, 192, 384, 48, 128, 128)),
}
DEPTHS = tuple(map(len, STAGES.values()))


def inception(x: Any, widths: tuple[int, ...], *, kernel: int, unit: ScaledConv, name: str) -> Any:
    """Parallel 1x1, 3x3 and `kernel` convolutions and pooling, with 1x1 convolutions that reduce the channels."""
    one, reduce3, three, reduce5, five, pooled = widths
    pool = keras.layers.MaxPooling2D(3, 1, "same", name=f"{name}_branch4_pool")
    branches = [
        unit(x, one, 1, name=f"{name}_branch1"),
        unit(unit(x, reduce3, 1, name=f"{name}_branch2_conv1"), three, 3, name=f"{name}_branch2_conv2"),
        unit(unit(x, reduce5, 1, name=f"{name}_branch3_conv1"), five, kernel, name=f"{name}_branch3_conv2"),
        unit(pool(x), pooled, 1, name=f"{name}_branch4"),
    ]
    return keras.layers.Concatenate(name=name)(branches)


def max_pool(x: Any, size: int, *, name: str) -> Any:
    """Max pooling at stride 2 that rounds sizes up, as PyTorch's ceil_mode: only the last window exceeds the edge.

    Keras' "same" is equivalent if the window exceeds the edge by at most one pixel: any length for size 2, an even
    length for size 3. Windows of 3 fit an odd length exactly.
    """
    height, width = ("same" if size == 2 or length % 2 == 0 else "valid" for length in x.shape[1:3])
    if height == width:
        return keras.layers.MaxPooling2D(size, 2, height, name=name)(x)
    x = keras.layers.MaxPooling2D((size, 1), (2, 1), height, name=f"{name}_rows")(x)
    return keras.layers.MaxPooling2D((1, size), (1, 2), width, name=f"{name}_columns")(x)


def classifier(x: Any, *, unit: ScaledConv, name: str) -> Any:
    """Return the features of an auxiliary classifier: 4x4 average pooling, 1x1 convolution, dense layer, dropout."""
    x = unit(adaptive_pool(x, 4, name=f"{name}_pool"), 128, 1, name=f"{name}_conv")
    x = keras.layers.Flatten(name=f"{name}_flatten")(x)
    return drop(dense(x, unit.scale(1024), unit.activation, name=f"{name}_dense"), 0.7, name=f"{name}_dropout")


def _stages(x: Any, head: Head, depths: tuple[int, ...], *, kernel: int, unit: ScaledConv) -> list[Any]:
    """Stack the blocks; return the maps after the first and the second to last block of stage 4, and the last map."""
    middle = []
    for (stage, blocks), depth, size in zip(STAGES.items(), depths, (3, 3, 2), strict=True):
        x = max_pool(head.level(x), size, name=f"pool{stage - 1}")
        maps = []
        for letter, widths in zip("abcde", blocks[:depth], strict=False):
            x = inception(x, widths, kernel=kernel, unit=unit, name=f"inception{stage}{letter}")
            maps.append(x)
        middle += [maps[0], maps[max(depth - 2, 0)]] if stage == 4 else []
    return [*middle, head.level(x)]


def _body(
    x: Any, head: Head, depths: tuple[int, ...], *, unit: ScaledConv, kernel: int, auxiliary: bool, dropout: float
) -> Any:
    """Add what follows the first convolution; return the head's output, with that of the auxiliary classifiers."""
    x = unit(unit(x, 64, 1, name="conv2"), 192, 3, name="conv3")
    *middle, last = _stages(x, head, depths, kernel=kernel, unit=unit)
    logits = head(last, dropout)
    if not auxiliary:
        return logits
    named = {f"auxiliary{i}": x for i, x in enumerate(middle, start=1)}
    return head.with_auxiliary(
        logits, {name: partial(classifier, x, unit=unit, name=name) for name, x in named.items()}
    )


@register(
    "googlenet",
    ModelSpec((224, 224, 3), 1000, 15, PAPER, ("image", "inception"), CROPPED),
    params=6_624_904,
    weights=WEIGHTS["googlenet"],
    name_mappings=NAME_MAPPINGS["googlenet"],
)
def googlenet(
    x: Any,
    head: Head,
    *,
    kernel: int = 3,
    width: float = 1.0,
    auxiliary: bool = False,
    activation: str = "relu",
    dropout: float = 0.2,
) -> Any:
    """Build GoogLeNet for ImageNet: a stem at stride 8 and nine Inception blocks in three stages.

    Args:
        x: images (n, height, width, channels), at least 15 pixels high and wide.
        head: computes logits from the feature map (n, height/32, width/32, 1024).
        kernel: kernel size of the third branch: 3 in the published weights, 5 in the paper.
        width: width multiplier of all channels.
        auxiliary: add the two auxiliary classifiers of the paper's section 5, for training.
        activation: Keras activation after each convolution.
        dropout: fraction of the pooled features dropped in training.

    Returns:
        The head's output, logits (n, classes), or a dictionary of "logits", "auxiliary1" and "auxiliary2".
    """
    check_counts("kernel", (kernel,))
    unit = ScaledConv(width, activation)
    x = max_pool(head.level(unit(x, 64, 7, 2, name="conv1")), 3, name="pool1")
    return _body(x, head, DEPTHS, unit=unit, kernel=kernel, auxiliary=auxiliary, dropout=dropout)


@register(
    "googlenet_tiny",
    ModelSpec((32, 32, 3), 10, 4, PAPER, ("image", "inception", "small"), SYMMETRIC),
    params=87_642,
    depths=(1, 1, 1),
)
def small_googlenet(
    x: Any,
    head: Head,
    *,
    depths: tuple[int, ...],
    width: float = 0.25,
    auxiliary: bool = False,
    activation: str = "relu",
    dropout: float = 0.2,
) -> Any:
    """Build a GoogLeNet for small images: a stem at stride 2 and fewer, narrower blocks.

    Args:
        x: images (n, height, width, channels), at least 4 pixels high and wide.
        head: computes logits from the feature map (n, height/8, width/8, channels).
        depths: number of Inception blocks in each of the three stages, at most 2, 5 and 2.
        width: width multiplier, relative to GoogLeNet.
        auxiliary: add the two auxiliary classifiers, for training.
        activation: Keras activation after each convolution.
        dropout: fraction of the pooled features dropped in training.

    Returns:
        The head's output, logits (n, classes), or a dictionary of "logits", "auxiliary1" and "auxiliary2".
    """
    unit = ScaledConv(width, activation)
    x, depths = unit(x, 64, 3, name="conv1"), check_depths(depths, DEPTHS)
    return _body(x, head, depths, unit=unit, kernel=3, auxiliary=auxiliary, dropout=dropout)
