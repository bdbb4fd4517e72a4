"""Inception v3 (Szegedy et al. 2015, arXiv:1512.00567): large convolutions factorized into small and asymmetric ones.

The architecture and the names of the blocks, 5b to 7c, are those of torchvision and timm; the paper shows the kinds of
blocks in figures 5, 6, 7 and 10.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from zoo.common.lazy import keras
from zoo.layers.blocks import ScaledConv, adaptive_pool, check_depths
from zoo.layers.heads import Head
from zoo.specs.preprocessing import IMAGENET_BICUBIC, SYMMETRIC
from zoo.specs.registry import ModelSpec, register
from zoo.weights.published.inception import NAME_MAPPINGS, WEIGHTS

PAPER = "Szegedy et al. 2015, arXiv:1512.00567"
# Blocks by kind: filters after the pooling of A, filters inside the 7x7 branches of C.
MIXED_A = {"5b": 32, "5c": 64, "5d": 64}
MIXED_C = {"6b": 128, "6c": 160, "6d": 160, "6e": 192}
MIXED_E = ("7b", "7c")
DEPTHS = (len(MIXED_A), len(MIXED_C), len(MIXED_E))


def sequence(x: Any, *steps: tuple[Any, ...], unit: ScaledConv, name: str) -> Any:
    """Apply convolutions in sequence, each given as (filters, size) or (filters, size, stride)."""
    for i, step in enumerate(steps, start=1):
        x = unit(x, *step, name=f"{name}_{i}")
    return x


def average(x: Any, *, pad_counts: bool, name: str) -> Any:
    """3x3 average pooling at stride 1; `pad_counts` includes the zeros around the map in the averages."""
    if not pad_counts:
        return keras.layers.AveragePooling2D(3, 1, "same", name=name)(x)
    return keras.layers.AveragePooling2D(3, 1, name=name)(keras.layers.ZeroPadding2D(1, name=f"{name}_pad")(x))


def mixed_a(x: Any, pooled: int, *, unit: ScaledConv, average: Callable[..., Any], name: str) -> Any:
    """Parallel 1x1, 5x5 and double 3x3 convolutions and pooling (figure 5)."""
    branches = [
        unit(x, 64, 1, name=f"{name}_branch1x1"),
        sequence(x, (48, 1), (64, 5), unit=unit, name=f"{name}_branch5x5"),
        sequence(x, (64, 1), (96, 3), (96, 3), unit=unit, name=f"{name}_branch3x3dbl"),
        unit(average(x, name=f"{name}_pool"), pooled, 1, name=f"{name}_branch_pool"),
    ]
    return keras.layers.Concatenate(name=name)(branches)


def mixed_b(x: Any, *, unit: ScaledConv, name: str) -> Any:
    """Parallel 3x3 and double 3x3 convolutions and pooling, at stride 2 (figure 10)."""
    branches = [
        unit(x, 384, 3, 2, name=f"{name}_branch3x3"),
        sequence(x, (64, 1), (96, 3), (96, 3, 2), unit=unit, name=f"{name}_branch3x3dbl"),
        keras.layers.MaxPooling2D(3, 2, name=f"{name}_pool")(x),
    ]
    return keras.layers.Concatenate(name=name)(branches)


def mixed_c(x: Any, inner: int, *, unit: ScaledConv, average: Callable[..., Any], name: str) -> Any:
    """Parallel 1x1, 7x7 and double 7x7 convolutions and pooling, 7x7 as 1x7 and 7x1 (figure 6)."""
    wide, high = (1, 7), (7, 1)
    twice = ((inner, 1), (inner, high), (inner, wide), (inner, high), (192, wide))
    branches = [
        unit(x, 192, 1, name=f"{name}_branch1x1"),
        sequence(x, (inner, 1), (inner, wide), (192, high), unit=unit, name=f"{name}_branch7x7"),
        sequence(x, *twice, unit=unit, name=f"{name}_branch7x7dbl"),
        unit(average(x, name=f"{name}_pool"), 192, 1, name=f"{name}_branch_pool"),
    ]
    return keras.layers.Concatenate(name=name)(branches)


def mixed_d(x: Any, *, unit: ScaledConv, name: str) -> Any:
    """Parallel 3x3, 7x7 and 3x3 convolutions and pooling, at stride 2."""
    branches = [
        sequence(x, (192, 1), (320, 3, 2), unit=unit, name=f"{name}_branch3x3"),
        sequence(x, (192, 1), (192, (1, 7)), (192, (7, 1)), (192, 3, 2), unit=unit, name=f"{name}_branch7x7x3"),
        keras.layers.MaxPooling2D(3, 2, name=f"{name}_pool")(x),
    ]
    return keras.layers.Concatenate(name=name)(branches)


def mixed_e(x: Any, *, unit: ScaledConv, average: Callable[..., Any], name: str) -> Any:
    """Parallel 1x1, 3x3 and double 3x3 convolutions and pooling; the last 3x3 is 1x3 and 3x1 in parallel (figure 7)."""
    once = unit(x, 384, 1, name=f"{name}_branch3x3_1")
    twice = sequence(x, (448, 1), (384, 3), unit=unit, name=f"{name}_branch3x3dbl")
    branches = [
        unit(x, 320, 1, name=f"{name}_branch1x1"),
        unit(once, 384, (1, 3), name=f"{name}_branch3x3_2a"),
        unit(once, 384, (3, 1), name=f"{name}_branch3x3_2b"),
        unit(twice, 384, (1, 3), name=f"{name}_branch3x3dbl_3a"),
        unit(twice, 384, (3, 1), name=f"{name}_branch3x3dbl_3b"),
        unit(average(x, name=f"{name}_pool"), 192, 1, name=f"{name}_branch_pool"),
    ]
    return keras.layers.Concatenate(name=name)(branches)


def classifier(x: Any, *, unit: ScaledConv) -> Any:
    """Return the features of the auxiliary classifier: 5x5 averages, 1x1 and 5x5 convolutions, global pooling."""
    if min(x.shape[1:3]) < 17:
        # The convolution needs a 5x5 map; images smaller than the published 299 pixels leave less.
        x = adaptive_pool(x, 5, name="auxiliary_pool")
    else:
        x = keras.layers.AveragePooling2D(5, 3, name="auxiliary_pool")(x)
    x = unit(x, 128, 1, name="auxiliary_conv1")
    x = unit(x, 768, 5, padding="valid", name="auxiliary_conv2")
    return keras.layers.GlobalAveragePooling2D(name="auxiliary_features")(x)


def _body(
    x: Any, head: Head, depths: tuple[int, ...], *, unit: ScaledConv, pad_counts: bool, auxiliary: bool, dropout: float
) -> Any:
    """Stack the blocks on a stem; return the head's output, with that of the auxiliary classifier."""
    mean = partial(average, pad_counts=pad_counts)
    first, second, third = depths
    for block, pooled in list(MIXED_A.items())[:first]:
        x = mixed_a(x, pooled, unit=unit, average=mean, name=f"mixed{block}")
    x = mixed_b(head.level(x), unit=unit, name="mixed6a")
    for block, inner in list(MIXED_C.items())[:second]:
        x = mixed_c(x, inner, unit=unit, average=mean, name=f"mixed{block}")
    middle = head.level(x)
    x = mixed_d(middle, unit=unit, name="mixed7a")
    for block in MIXED_E[:third]:
        x = mixed_e(x, unit=unit, average=mean, name=f"mixed{block}")
    logits = head(head.level(x), dropout)
    return head.with_auxiliary(logits, {"auxiliary": partial(classifier, middle, unit=unit)}) if auxiliary else logits


@register(
    "inception_v3",
    ModelSpec((299, 299, 3), 1000, 75, PAPER, ("image", "inception"), IMAGENET_BICUBIC),
    params=23_834_568,
    weights=WEIGHTS["inception_v3"],
    name_mappings=NAME_MAPPINGS["inception_v3"],
)
def inception_v3(
    x: Any,
    head: Head,
    *,
    width: float = 1.0,
    auxiliary: bool = False,
    pad_counts: bool = True,
    activation: str = "relu",
    dropout: float = 0.5,
) -> Any:
    """Build Inception v3 for ImageNet: a stem at stride 8, then blocks 5b to 7c.

    Args:
        x: images (n, height, width, channels), at least 75 pixels high and wide.
        head: computes logits from the feature map, (n, 8, 8, 2048) for 299x299 pixels.
        width: width multiplier of all channels.
        auxiliary: add the auxiliary classifier of the paper's section 4, for training.
        pad_counts: include zero padding in average pooling, as in PyTorch; TensorFlow excludes it.
        activation: Keras activation after each convolution.
        dropout: fraction of the pooled features dropped in training.

    Returns:
        The head's output, logits (n, classes), or a dictionary of "logits" and "auxiliary".
    """
    unit = ScaledConv(width, activation, strided="valid")
    x = unit(x, 32, 3, 2, name="stem_conv1")
    x = unit(x, 32, 3, padding="valid", name="stem_conv2")
    x = head.level(unit(x, 64, 3, name="stem_conv3"))
    x = keras.layers.MaxPooling2D(3, 2, name="stem_pool1")(x)
    x = unit(x, 80, 1, name="stem_conv4")
    x = head.level(unit(x, 192, 3, padding="valid", name="stem_conv5"))
    x = keras.layers.MaxPooling2D(3, 2, name="stem_pool2")(x)
    return _body(x, head, DEPTHS, unit=unit, pad_counts=pad_counts, auxiliary=auxiliary, dropout=dropout)


@register(
    "inception_tiny",
    ModelSpec((32, 32, 3), 10, 15, PAPER, ("image", "inception", "small"), SYMMETRIC),
    params=149_714,
    depths=(1, 1, 1),
)
def small_inception(
    x: Any,
    head: Head,
    *,
    depths: tuple[int, ...],
    width: float = 0.125,
    auxiliary: bool = False,
    activation: str = "relu",
    dropout: float = 0.2,
) -> Any:
    """Build an Inception v3 for small images: a stem at stride 2 and fewer, narrower blocks.

    Args:
        x: images (n, height, width, channels), at least 15 pixels high and wide.
        head: computes logits from the feature map, (n, 3, 3, channels) for 32x32 pixels.
        depths: number of blocks of kinds A, C and E, at most 3, 4 and 2.
        width: width multiplier, relative to Inception v3.
        auxiliary: add the auxiliary classifier, for training.
        activation: Keras activation after each convolution.
        dropout: fraction of the pooled features dropped in training.

    Returns:
        The head's output, logits (n, classes), or a dictionary of "logits" and "auxiliary".
    """
    unit = ScaledConv(width, activation, strided="valid")
    x = unit(x, 32, 3, name="stem_conv1")
    x = head.level(unit(x, 64, 3, name="stem_conv2"))
    x = keras.layers.MaxPooling2D(3, 2, name="stem_pool")(x)
    depths = check_depths(depths, DEPTHS)
    return _body(x, head, depths, unit=unit, pad_counts=True, auxiliary=auxiliary, dropout=dropout)
