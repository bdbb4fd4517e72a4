"""AlexNet (Krizhevsky, Sutskever, Hinton 2012, "ImageNet classification with deep convolutional neural networks").

`alexnet` is the network of the paper, which ran on two GPUs: convolutions 2, 4 and 5 have two groups; local response
normalization follows convolutions 1 and 2. `alexnet_owt` (Krizhevsky 2014, "One weird trick", arXiv:1404.5997) has
neither, and the sizes of torchvision.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from zoo.common.errors import BadOption
from zoo.common.lazy import keras
from zoo.layers.blocks import activate, adaptive_pool, check_activation, check_counts, check_rate, conv, dense, drop
from zoo.layers.heads import Head
from zoo.layers.lazy import layers
from zoo.specs.preprocessing import IMAGENET, SYMMETRIC
from zoo.specs.registry import ModelSpec, register
from zoo.weights.published.alexnet import NAME_MAPPINGS, WEIGHTS

TAGS = ("image", "plain")
# The paper names 224 pixels, but its 55 x 55 map needs 227: center crops of 256 pixels, mean subtracted, not scaled.
ORIGINAL = ModelSpec(
    input_shape=(227, 227, 3),
    classes=1000,
    min_size=67,
    paper="Krizhevsky, Sutskever, Hinton 2012, NeurIPS",
    tags=TAGS,
    preprocessing=dataclasses.replace(IMAGENET, std=(1.0,), crop=227 / 256),
)
SMALL = dataclasses.replace(
    ORIGINAL,
    input_shape=(32, 32, 3),
    classes=10,
    min_size=19,
    tags=(*TAGS, "small"),
    preprocessing=SYMMETRIC,
)
OWT = ModelSpec((224, 224, 3), 1000, 63, "Krizhevsky 2014, arXiv:1404.5997", TAGS, IMAGENET)


@register("alexnet", ORIGINAL, params=60_965_224)
@register("alexnet_tiny", SMALL, params=144_074, widths=(24, 32, 48, 48, 32), stem=(5, 1), classifier=(2, 256, 256))
def alexnet(
    x: Any,
    head: Head,
    *,
    widths: tuple[int, ...] = (96, 256, 384, 384, 256),
    groups: int = 2,
    stem: tuple[int, ...] = (11, 4),
    classifier: tuple[int, ...] = (6, 4096, 4096),
    activation: str = "relu",
    dropout: float = 0.5,
) -> Any:
    """Build the AlexNet of 2012: five convolutions in groups, local response normalization, overlapping pooling.

    Args:
        x: images (n, height, width, channels), at least 67 pixels high and wide for the stem of the paper.
        head: computes logits from the last dense layer (n, classifier[-1]).
        widths: channels of the five convolutions.
        groups: groups of convolutions 2, 4 and 5; the paper had one on each GPU.
        stem: kernel size and stride of the first convolution, without padding.
        classifier: height and width of the pooled last map, then the units of each dense layer.
        activation: Keras activation of the hidden layers.
        dropout: fraction of the units dropped after each dense layer in training.

    Returns:
        The head's output, logits (n, classes).
    """
    check_counts("stem", stem)
    if len(stem) != 2:
        raise BadOption(f"stem must be a kernel size and a stride. Received: stem={stem}")
    x = _trunk(x, head, widths, (*stem, 0), activation, groups=groups, normalize=True)
    return head(x, dropout, neck=lambda x: _dense_layers(x, classifier, activation, (0.0, dropout)))


@register(
    "alexnet_owt",
    OWT,
    params=61_100_840,
    weights=WEIGHTS["alexnet_owt"],
    name_mappings=NAME_MAPPINGS["alexnet_owt"],
)
def alexnet_owt(
    x: Any,
    head: Head,
    *,
    widths: tuple[int, ...] = (64, 192, 384, 256, 256),
    classifier: tuple[int, ...] = (6, 4096, 4096),
    activation: str = "relu",
    dropout: float = 0.5,
) -> Any:
    """Build the AlexNet of 2014: narrower, without groups and without local response normalization.

    Args:
        x: images (n, height, width, channels), at least 63 pixels high and wide.
        head: computes logits from the last dense layer (n, classifier[-1]).
        widths: channels of the five convolutions.
        classifier: height and width of the pooled last map, then the units of each dense layer.
        activation: Keras activation of the hidden layers.
        dropout: fraction of the inputs dropped before each dense layer but the last in training.

    Returns:
        The head's output, logits (n, classes).
    """
    rate = check_rate(dropout)
    x = _trunk(x, head, widths, (11, 4, 2), activation)
    return head(x, neck=lambda x: _dense_layers(x, classifier, activation, (rate, rate)))


def _trunk(
    x: Any,
    head: Head,
    widths: tuple[int, ...],
    stem: tuple[int, ...],
    activation: str,
    *,
    groups: int = 1,
    normalize: bool = False,
) -> Any:
    """Stack the five convolutions; pooling follows the first, the second and the last."""
    check_activation("activation", activation)
    if len(check_counts("widths", widths)) != 5:
        raise BadOption(f"widths must be five numbers, one for each convolution. Received: widths={widths}")
    if groups < 1 or any(width % groups for width in widths):
        raise BadOption(f"groups must divide every width. Received: groups={groups}, widths={widths}")
    x = _stem(x, widths[0], *stem)
    for i, (width, split) in enumerate(zip(widths, (1, groups, 1, groups, groups), strict=True), start=1):
        if i > 1:
            x = conv(x, width, 5 if i == 2 else 3, use_bias=True, groups=split, name=f"conv{i}")
        x = activate(x, activation, name=f"conv{i}")
        if normalize and i <= 2:
            x = layers.LocalResponseNormalization(2, 2.0, 1e-4, 0.75, name=f"conv{i}_response_norm")(x)
        if i in (1, 2, 5):
            x = keras.layers.MaxPooling2D(3, 2, name=f"pool{i}")(head.level(x))
    return head.level(x)


def _stem(x: Any, width: int, size: int, stride: int, padding: int) -> Any:
    """Apply the first convolution with explicit padding."""
    if min(x.shape[1:3]) + 2 * padding < size + 14 * stride:  # the three pooling layers need 15 pixels
        raise BadOption(f"stem must leave at least 15 pixels. Received: stem={(size, stride)} on {x.shape[1:3]} pixels")
    if padding:
        x = keras.layers.ZeroPadding2D(padding, name="conv1_pad")(x)
    return conv(x, width, size, stride, padding="valid", use_bias=True, name="conv1")


def _dense_layers(x: Any, classifier: tuple[int, ...], activation: str, rates: tuple[float, float]) -> Any:
    """Apply the dense layers from fc6 on; `rates` are the dropout before the first and before each other."""
    if not check_counts("classifier", classifier):
        raise BadOption(
            "classifier must start with the size of the pooled map. Received: classifier=(). Pass (6, 4096, 4096)."
        )
    size, *units = classifier
    x = keras.layers.Flatten(name="flatten")(adaptive_pool(x, size, name="grid"))
    for i, width in enumerate(units, start=6):
        x = drop(x, rates[i > 6], name=f"fc{i}_dropout")
        x = dense(x, width, activation, name=f"fc{i}")
    return x
