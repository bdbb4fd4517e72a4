"""Densely connected networks (Huang, Liu, van der Maaten, Weinberger 2016, arXiv:1608.06993).

All are DenseNet-BC: each 3x3 convolution follows a 1x1 convolution to four times the growth rate (B), and the
transitions between the blocks halve the channels (C).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from zoo.common.errors import BadOption
from zoo.common.lazy import keras
from zoo.layers import blocks
from zoo.layers.blocks import HE_IN, activate, check_activation, check_counts, drop, norm
from zoo.layers.heads import Head
from zoo.specs.preprocessing import IMAGENET_BICUBIC, SYMMETRIC
from zoo.specs.registry import ModelSpec, register
from zoo.weights.published.densenet import NAME_MAPPINGS, WEIGHTS

PAPER = "Huang et al. 2016, arXiv:1608.06993"
BOTTLENECK = 4


# Layers have far more input channels than output channels: initialization scales with fan_in.
conv = partial(blocks.conv, kernel=HE_IN)


def dense_layer(x: Any, growth: int, *, before: Callable[..., Any], layer_dropout: float, name: str) -> Any:
    """Concatenate x and `growth` new maps of a 1x1 and a 3x3 convolution, each after normalization and activation."""
    y = conv(before(x, name=f"{name}_conv1"), BOTTLENECK * growth, 1, name=f"{name}_conv1")
    y = conv(before(y, name=f"{name}_conv2"), growth, 3, name=f"{name}_conv2")
    y = drop(y, layer_dropout, name=f"{name}_dropout")
    return keras.layers.Concatenate(name=name)([x, y])


def transition(x: Any, *, before: Callable[..., Any], name: str) -> Any:
    """Halve the channels by a 1x1 convolution, height and width by 2x2 average pooling."""
    x = conv(before(x, name=name), x.shape[-1] // 2, 1, name=name)
    return keras.layers.AveragePooling2D(2, name=f"{name}_pool")(x)


def norm_activate(x: Any, *, epsilon: float, activation: str, name: str) -> Any:
    """Normalize and activate the input of the convolution NAME."""
    return activate(norm(x, epsilon=epsilon, name=f"{name}_norm"), activation, name=name)


def dense_blocks(
    x: Any, head: Head, depths: tuple[int, ...], growth: int, *, before: Callable[..., Any], layer_dropout: float
) -> Any:
    """Stack the dense blocks with transitions between them; return the last map, normalized and activated."""
    for stage, depth in enumerate(depths, start=1):
        for i in range(1, depth + 1):
            x = dense_layer(x, growth, before=before, layer_dropout=layer_dropout, name=f"stage{stage}_layer{i}")
        if stage < len(depths):
            # The feature map is marked before the transition halves its channels.
            x = transition(head.level(x), before=before, name=f"transition{stage}")
    return head.level(before(x, name="final"))


def check_sizes(depths: tuple[int, ...], stages: int, growth: int) -> None:
    """Raise BadOption unless there is a depth of at least 1 for each stage and a growth rate of at least 1."""
    check_counts("growth", (growth,))
    if len(check_counts("depths", depths)) != stages:
        raise BadOption(f"depths must have one number for each of the {stages} blocks. Received: depths={depths}")


DENSENET = ModelSpec((224, 224, 3), 1000, 29, PAPER, ("image", "dense connections"), IMAGENET_BICUBIC)
CIFAR = ModelSpec((32, 32, 3), 10, 4, f"{PAPER}, section 3", ("image", "small"), SYMMETRIC)


def imagenet(name: str, **options: Any) -> Callable[..., Any]:
    """Register a variant for ImageNet with its published weights."""
    return register(name, DENSENET, weights=WEIGHTS[name], name_mappings=NAME_MAPPINGS[name], **options)


@imagenet("densenet121", params=7_978_856, depths=(6, 12, 24, 16))
@imagenet("densenet161", params=28_681_000, depths=(6, 12, 36, 24), growth=48)
@imagenet("densenet169", params=14_149_480, depths=(6, 12, 32, 32))
@imagenet("densenet201", params=20_013_928, depths=(6, 12, 48, 32))
def densenet(
    x: Any,
    head: Head,
    *,
    depths: tuple[int, ...],
    growth: int = 32,
    layer_dropout: float = 0.0,
    epsilon: float = 1e-5,
    activation: str = "relu",
    dropout: float = 0.0,
) -> Any:
    """Build a DenseNet for ImageNet: a 7x7 stem and max pooling, each at stride 2, then four dense blocks.

    Args:
        x: images (n, height, width, channels), at least 29 pixels high and wide.
        head: computes logits from the feature map (n, height/32, width/32, channels).
        depths: number of layers in each block.
        growth: channels that each layer adds; the stem has twice as many.
        layer_dropout: fraction of each layer's new values dropped in training.
        epsilon: added to the variance in batch normalization; Keras' weights expect 1.001e-5.
        activation: Keras activation before each convolution and after the last normalization.
        dropout: fraction of the pooled features dropped in training.

    Returns:
        The head's output, logits (n, classes).
    """
    check_sizes(depths, 4, growth)
    check_activation("activation", activation)
    before = partial(norm_activate, epsilon=epsilon, activation=activation)
    x = head.level(before(conv(x, 2 * growth, 7, 2, name="stem"), name="stem"))
    x = keras.layers.ZeroPadding2D(1, name="stem_pool_pad")(x)
    # ReLU leaves no value below 0, so zero padding and padding with minus infinity give the same maxima.
    x = keras.layers.MaxPooling2D(3, 2, name="stem_pool")(x)
    x = dense_blocks(x, head, depths, growth, before=before, layer_dropout=layer_dropout)
    return head(x, dropout)


@register("densenet_bc_100_12", CIFAR, params=769_162, depths=(16, 16, 16))
@register("densenet_tiny", CIFAR, params=31_994, depths=(2, 3, 4), growth=8)
def cifar_densenet(
    x: Any,
    head: Head,
    *,
    depths: tuple[int, ...],
    growth: int = 12,
    layer_dropout: float = 0.0,
    activation: str = "relu",
    dropout: float = 0.0,
) -> Any:
    """Build a DenseNet for small images: a 3x3 stem and three dense blocks.

    Args:
        x: images (n, height, width, channels), at least 4 pixels high and wide.
        head: computes logits from the feature map (n, height/4, width/4, channels).
        depths: number of layers in each block.
        growth: channels that each layer adds; the stem has twice as many.
        layer_dropout: fraction of each layer's new values dropped in training, 0.2 in the paper without augmentation.
        activation: Keras activation before each convolution and after the last normalization.
        dropout: fraction of the pooled features dropped in training.

    Returns:
        The head's output, logits (n, classes).
    """
    check_sizes(depths, 3, growth)
    check_activation("activation", activation)
    x = conv(x, 2 * growth, 3, name="stem")
    before = partial(norm_activate, epsilon=1e-5, activation=activation)
    x = dense_blocks(x, head, depths, growth, before=before, layer_dropout=layer_dropout)
    return head(x, dropout)
