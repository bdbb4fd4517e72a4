"""Inception v3 (Szegedy et al. 2015, arXiv:1512.00567): large convolutions factorized into small and one-sided ones.

As published by torchvision and timm. The blocks are called as there, 5b to 7c; the paper shows their kinds in figures
5, 6, 7 and 10.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

from zoo.common.lazy import keras
from zoo.layers.blocks import (
    HE_IN,
    adaptive_pool,
    check_activation,
    check_depths,
    check_factor,
    conv_norm,
    norm,
)
from zoo.layers.heads import Head
from zoo.specs.preprocessing import IMAGENET, PreprocessingConfig
from zoo.specs.published import NameMapping, Weights
from zoo.specs.registry import ModelSpec, register

PAPER = "Szegedy et al. 2015, arXiv:1512.00567"
PIXELS = PreprocessingConfig((127.5,), (127.5,))
CROPPED = PreprocessingConfig((127.5,), (127.5,), "bicubic", 0.875)
IMAGENET_CROPPED = replace(IMAGENET, interpolation="bicubic")

# By kind, what tells one block from the other: filters after the pooling of A, inside the 7x7 branches of C.
MIXED_A = {"5b": 32, "5c": 64, "5d": 64}
MIXED_C = {"6b": 128, "6c": 160, "6d": 160, "6e": 192}
MIXED_E = ("7b", "7c")
DEPTHS = (len(MIXED_A), len(MIXED_C), len(MIXED_E))


def unit(
    x: Any,
    filters: int,
    size: int | tuple[int, int],
    stride: int = 1,
    *,
    width: float = 1.0,
    padding: str = "same",
    **more: Any,
) -> Any:
    """Convolve with `width` times `filters`, normalize and activate; at a stride nothing is padded."""
    filters, padding = max(1, round(width * filters)), "valid" if stride > 1 else padding
    normalize = partial(norm, epsilon=1e-3)
    return conv_norm(x, filters, size, stride, norm=normalize, kernel=HE_IN, padding=padding, **more)


def chain(x: Any, *steps: tuple[Any, ...], unit: Callable[..., Any], name: str) -> Any:
    """Apply units one after the other, each given as (filters, size) or (filters, size, stride)."""
    for i, step in enumerate(steps, start=1):
        x = unit(x, *step, name=f"{name}_{i}")
    return x


def average(x: Any, *, pad_counts: bool, name: str) -> Any:
    """Average 3x3 pixels around each; the zeros around the map count or not."""
    if not pad_counts:
        return keras.layers.AveragePooling2D(3, 1, "same", name=name)(x)
    return keras.layers.AveragePooling2D(3, 1, name=name)(keras.layers.ZeroPadding2D(1, name=f"{name}_pad")(x))


def mixed_a(x: Any, pooled: int, *, unit: Callable[..., Any], average: Callable[..., Any], name: str) -> Any:
    """1x1, 5x5 and twice 3x3 convolutions and a pooling beside each other (figure 5)."""
    branches = [
        unit(x, 64, 1, name=f"{name}_branch1x1"),
        chain(x, (48, 1), (64, 5), unit=unit, name=f"{name}_branch5x5"),
        chain(x, (64, 1), (96, 3), (96, 3), unit=unit, name=f"{name}_branch3x3dbl"),
        unit(average(x, name=f"{name}_pool"), pooled, 1, name=f"{name}_branch_pool"),
    ]
    return keras.layers.Concatenate(name=name)(branches)


def mixed_b(x: Any, *, unit: Callable[..., Any], name: str) -> Any:
    """Halve the map by 3x3, twice 3x3 and a pooling (figure 10)."""
    branches = [
        unit(x, 384, 3, 2, name=f"{name}_branch3x3"),
        chain(x, (64, 1), (96, 3), (96, 3, 2), unit=unit, name=f"{name}_branch3x3dbl"),
        keras.layers.MaxPooling2D(3, 2, name=f"{name}_pool")(x),
    ]
    return keras.layers.Concatenate(name=name)(branches)


def mixed_c(x: Any, inner: int, *, unit: Callable[..., Any], average: Callable[..., Any], name: str) -> Any:
    """1x1, 7x7 and twice 7x7 convolutions and a pooling beside each other, 7x7 as 1x7 and 7x1 (figure 6)."""
    wide, high = (1, 7), (7, 1)
    twice = ((inner, 1), (inner, high), (inner, wide), (inner, high), (192, wide))
    branches = [
        unit(x, 192, 1, name=f"{name}_branch1x1"),
        chain(x, (inner, 1), (inner, wide), (192, high), unit=unit, name=f"{name}_branch7x7"),
        chain(x, *twice, unit=unit, name=f"{name}_branch7x7dbl"),
        unit(average(x, name=f"{name}_pool"), 192, 1, name=f"{name}_branch_pool"),
    ]
    return keras.layers.Concatenate(name=name)(branches)


def mixed_d(x: Any, *, unit: Callable[..., Any], name: str) -> Any:
    """Halve the map by 3x3, by 7x7 and 3x3, and by a pooling."""
    branches = [
        chain(x, (192, 1), (320, 3, 2), unit=unit, name=f"{name}_branch3x3"),
        chain(x, (192, 1), (192, (1, 7)), (192, (7, 1)), (192, 3, 2), unit=unit, name=f"{name}_branch7x7x3"),
        keras.layers.MaxPooling2D(3, 2, name=f"{name}_pool")(x),
    ]
    return keras.layers.Concatenate(name=name)(branches)


def mixed_e(x: Any, *, unit: Callable[..., Any], average: Callable[..., Any], name: str) -> Any:
    """1x1, 3x3 and twice 3x3 convolutions and a pooling; the last 3x3 is 1x3 beside 3x1 (figure 7)."""
    once = unit(x, 384, 1, name=f"{name}_branch3x3_1")
    twice = chain(x, (448, 1), (384, 3), unit=unit, name=f"{name}_branch3x3dbl")
    branches = [
        unit(x, 320, 1, name=f"{name}_branch1x1"),
        unit(once, 384, (1, 3), name=f"{name}_branch3x3_2a"),
        unit(once, 384, (3, 1), name=f"{name}_branch3x3_2b"),
        unit(twice, 384, (1, 3), name=f"{name}_branch3x3dbl_3a"),
        unit(twice, 384, (3, 1), name=f"{name}_branch3x3dbl_3b"),
        unit(average(x, name=f"{name}_pool"), 192, 1, name=f"{name}_branch_pool"),
    ]
    return keras.layers.Concatenate(name=name)(branches)


def classifier(x: Any, *, unit: Callable[..., Any]) -> Any:
    """Return the features of the auxiliary classifier: 5x5 averages, 1x1 and 5x5 convolutions, global pooling."""
    if min(x.shape[1:3]) < 17:
        # Images smaller than the published 299 pixels leave less than the 5x5 positions that the convolution takes.
        x = adaptive_pool(x, 5, name="auxiliary_pool")
    else:
        x = keras.layers.AveragePooling2D(5, 3, name="auxiliary_pool")(x)
    x = unit(x, 128, 1, name="auxiliary_conv1")
    x = unit(x, 768, 5, padding="valid", name="auxiliary_conv2")
    return keras.layers.GlobalAveragePooling2D(name="auxiliary_features")(x)


def _mixed(
    x: Any, head: Head, depths: tuple[int, ...], *, unit: Callable[..., Any], pad_counts: bool
) -> tuple[Any, Any]:
    """Stack the blocks; return the last map and the one that the auxiliary classifier sees."""
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
    return head.level(x), middle


# What torchvision and timm call the convolutions of the blocks, in the order in which Keras makes and numbers its own.
BRANCHES = {
    ("5b", "5c", "5d"): "1x1 5x5_1 5x5_2 3x3dbl_1 3x3dbl_2 3x3dbl_3 _pool",
    ("6a",): "3x3 3x3dbl_1 3x3dbl_2 3x3dbl_3",
    ("6b", "6c", "6d", "6e"): "1x1 7x7_1 7x7_2 7x7_3 7x7dbl_1 7x7dbl_2 7x7dbl_3 7x7dbl_4 7x7dbl_5 _pool",
    ("7a",): "3x3_1 3x3_2 7x7x3_1 7x7x3_2 7x7x3_3 7x7x3_4",
    ("7b", "7c"): "1x1 3x3_1 3x3_2a 3x3_2b 3x3dbl_1 3x3dbl_2 3x3dbl_3a 3x3dbl_3b _pool",
}
STEM = {f"stem_conv{i}": name for i, name in enumerate(("1a_3x3", "2a_3x3", "2b_3x3", "3b_1x1", "4a_3x3"), 1)}
ORDER = (
    *STEM,
    *(f"mixed{b}_branch{branch}" for blocks, names in BRANCHES.items() for b in blocks for branch in names.split()),
)
TORCH = NameMapping(
    rules=(
        *((ours, f"Conv2d_{theirs}.conv") for ours, theirs in STEM.items()),
        *((f"{ours}_norm", f"Conv2d_{theirs}.bn") for ours, theirs in STEM.items()),
        # The first rule that matches counts, and the second of these would match norms as well.
        (r"mixed(\w\w)_(branch\w+)_norm", "Mixed_{0}.{1}.bn"),
        (r"mixed(\w\w)_(branch\w+)", "Mixed_{0}.{1}.conv"),
        (r"auxiliary_conv(\d)_norm", "AuxLogits.conv{0:-1}.bn"),
        (r"auxiliary_conv(\d)", "AuxLogits.conv{0:-1}.conv"),
        ("auxiliary", "AuxLogits.fc"),
        ("logits", "fc"),
    ),
    ignored=(r"AuxLogits\..*",),
)
KERAS = NameMapping(
    rules=(
        *((name, f"conv2d_{i}") for i, name in enumerate(ORDER)),
        *((f"{name}_norm", f"batch_normalization_{i}") for i, name in enumerate(ORDER)),
        ("logits", "predictions"),
    ),
    arguments={"pad_counts": False},
)


@register(
    "inception_v3",
    ModelSpec((299, 299, 3), 1000, 75, PAPER, ("image", "inception"), IMAGENET_CROPPED),
    params=23_834_568,
    weights=(
        Weights("timm/inception_v3.gluon_in1k", 78.806, 299, IMAGENET_CROPPED),
        Weights("timm/inception_v3.tf_in1k", 77.862, 299, CROPPED),
        Weights("timm/inception_v3.tv_in1k", 77.434, 299, CROPPED),
        Weights("keras/InceptionV3", 77.9, 299, PIXELS),
    ),
    name_mappings={"torchvision": TORCH, "timm": TORCH, "keras": KERAS},
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
        head: turns the feature map, (n, 8, 8, 2048) of 299x299 pixels, into logits.
        width: factor of all numbers of channels.
        auxiliary: add the auxiliary classifier of the paper's section 4, for training.
        pad_counts: zeros around a map count in the averages of its 3x3 pixels, as in PyTorch; not so in TensorFlow.
        activation: Keras activation after every convolution.
        dropout: share of the pooled features dropped in training.

    Returns:
        The head's output, logits (n, classes), or a dictionary of "logits" and "auxiliary".
    """
    check_activation("activation", activation)
    convolve = partial(unit, width=check_factor("width", width), activation=activation)
    x = convolve(x, 32, 3, 2, name="stem_conv1")
    x = convolve(x, 32, 3, padding="valid", name="stem_conv2")
    x = head.level(convolve(x, 64, 3, name="stem_conv3"))
    x = keras.layers.MaxPooling2D(3, 2, name="stem_pool1")(x)
    x = convolve(x, 80, 1, name="stem_conv4")
    x = head.level(convolve(x, 192, 3, padding="valid", name="stem_conv5"))
    x = keras.layers.MaxPooling2D(3, 2, name="stem_pool2")(x)
    x, middle = _mixed(x, head, DEPTHS, unit=convolve, pad_counts=pad_counts)
    logits = head(x, dropout)
    return head.beside(logits, {"auxiliary": partial(classifier, middle, unit=convolve)}) if auxiliary else logits


@register(
    "inception_tiny",
    ModelSpec((32, 32, 3), 10, 15, PAPER, ("image", "inception", "small"), PIXELS),
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
        head: turns the feature map, (n, 3, 3, channels) of 32x32 pixels, into logits.
        depths: number of blocks of the kinds A, C and E, at most 3, 4 and 2.
        width: factor of all numbers of channels of Inception v3.
        auxiliary: add the auxiliary classifier, for training.
        activation: Keras activation after every convolution.
        dropout: share of the pooled features dropped in training.

    Returns:
        The head's output, logits (n, classes), or a dictionary of "logits" and "auxiliary".
    """
    check_activation("activation", activation)
    convolve = partial(unit, width=check_factor("width", width), activation=activation)
    x = convolve(x, 32, 3, name="stem_conv1")
    x = head.level(convolve(x, 64, 3, name="stem_conv2"))
    x = keras.layers.MaxPooling2D(3, 2, name="stem_pool")(x)
    x, middle = _mixed(x, head, check_depths(depths, DEPTHS), unit=convolve, pad_counts=True)
    logits = head(x, dropout)
    return head.beside(logits, {"auxiliary": partial(classifier, middle, unit=convolve)}) if auxiliary else logits
