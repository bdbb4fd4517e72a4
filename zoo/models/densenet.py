"""Densely connected networks (Huang, Liu, van der Maaten, Weinberger 2016, arXiv:1608.06993).

All are DenseNet-BC: a 1x1 convolution to four times the growth rate stands before each 3x3 convolution (B), and the
transitions between the blocks halve the channels (C).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

from zoo.common.errors import BadOption
from zoo.common.lazy import keras
from zoo.layers import blocks
from zoo.layers.blocks import HE_IN, activate, check_activation, check_counts, drop, norm
from zoo.layers.heads import Head
from zoo.specs.preprocessing import IMAGENET, PreprocessingConfig
from zoo.specs.published import NameMapping, Weights
from zoo.specs.registry import ModelSpec, register

PAPER = "Huang et al. 2016, arXiv:1608.06993"
BICUBIC = replace(IMAGENET, interpolation="bicubic")
LARGER = replace(IMAGENET, interpolation="bicubic", crop=0.95)
BOTTLENECK = 4


# The layers take far more channels than they give.
conv = partial(blocks.conv, kernel=HE_IN)


def dense_layer(x: Any, growth: int, *, before: Callable[..., Any], layer_dropout: float, name: str) -> Any:
    """Concatenate `growth` new maps to x: 1x1 and 3x3 convolutions, each with its norm and activation before it."""
    y = conv(before(x, name=f"{name}_conv1"), BOTTLENECK * growth, 1, name=f"{name}_conv1")
    y = conv(before(y, name=f"{name}_conv2"), growth, 3, name=f"{name}_conv2")
    y = drop(y, layer_dropout, name=f"{name}_dropout")
    return keras.layers.Concatenate(name=name)([x, y])


def transition(x: Any, *, before: Callable[..., Any], name: str) -> Any:
    """Halve the channels by a 1x1 convolution, height and width by averages."""
    x = conv(before(x, name=name), x.shape[-1] // 2, 1, name=name)
    return keras.layers.AveragePooling2D(2, name=f"{name}_pool")(x)


def norm_activate(x: Any, *, epsilon: float, activation: str, name: str) -> Any:
    """Normalize and activate, next to the convolution NAME."""
    return activate(norm(x, epsilon=epsilon, name=f"{name}_norm"), activation, name=name)


def dense_blocks(
    x: Any, head: Head, depths: tuple[int, ...], growth: int, *, before: Callable[..., Any], layer_dropout: float
) -> Any:
    """Stack the dense blocks with transitions between them; return the last map, normalized and activated."""
    for stage, depth in enumerate(depths, start=1):
        for i in range(1, depth + 1):
            x = dense_layer(x, growth, before=before, layer_dropout=layer_dropout, name=f"stage{stage}_layer{i}")
        if stage < len(depths):
            # Marked before the transition, which leaves half of the channels.
            x = transition(head.level(x), before=before, name=f"transition{stage}")
    return head.level(before(x, name="final"))


def check_sizes(depths: tuple[int, ...], stages: int, growth: int) -> None:
    """Raise BadOption unless there is a depth of at least 1 for each stage and a growth rate of at least 1."""
    check_counts("growth", (growth,))
    if len(check_counts("depths", depths)) != stages:
        raise BadOption(f"depths must have one number for each of the {stages} blocks. Received: depths={depths}")


TORCH = NameMapping(
    rules=(
        ("stem", "features.conv0"),
        ("stem_norm", "features.norm0"),
        (r"stage(\d)_layer(\d+)_conv(\d)", "features.denseblock{0}.denselayer{1}.conv{2}"),
        (r"stage(\d)_layer(\d+)_conv(\d)_norm", "features.denseblock{0}.denselayer{1}.norm{2}"),
        (r"transition(\d)", "features.transition{0}.conv"),
        (r"transition(\d)_norm", "features.transition{0}.norm"),
        ("final_norm", "features.norm5"),
        ("logits", "classifier"),
    ),
)
KERAS = NameMapping(
    rules=(
        ("stem", "conv1_conv"),
        ("stem_norm", "conv1_bn"),
        (r"stage(\d)_layer(\d+)_conv(\d)", "conv{0:+1}_block{1}_{2}_conv"),
        (r"stage(\d)_layer(\d+)_conv(\d)_norm", "conv{0:+1}_block{1}_{2:-1}_bn"),
        (r"transition(\d)", "pool{0:+1}_conv"),
        (r"transition(\d)_norm", "pool{0:+1}_bn"),
        ("final_norm", "bn"),
        ("logits", "predictions"),
    ),
    arguments={"epsilon": 1.001e-5},
)
imagenet = partial(
    register,
    like=ModelSpec((224, 224, 3), 1000, 29, PAPER, ("image", "dense connections"), BICUBIC),
    name_mappings={"torchvision": TORCH, "timm": TORCH, "keras": KERAS},
)
RA121 = Weights("timm/densenet121.ra_in1k", 76.5, 288, LARGER)
TV121 = Weights("timm/densenet121.tv_in1k", 74.764, preprocessing=BICUBIC)
TV161 = Weights("timm/densenet161.tv_in1k", 77.358, preprocessing=BICUBIC)
TV169 = Weights("timm/densenet169.tv_in1k", 75.9, preprocessing=BICUBIC)
TV201 = Weights("timm/densenet201.tv_in1k", 77.286, preprocessing=BICUBIC)
KERAS121, KERAS169, KERAS201 = (
    Weights(f"keras/DenseNet{depth}", top1) for depth, top1 in ((121, 75.0), (169, 76.2), (201, 77.3))
)


@imagenet("densenet121", params=7_978_856, depths=(6, 12, 24, 16), weights=(RA121, TV121, KERAS121))
@imagenet("densenet161", params=28_681_000, depths=(6, 12, 36, 24), growth=48, weights=(TV161,))
@imagenet("densenet169", params=14_149_480, depths=(6, 12, 32, 32), weights=(TV169, KERAS169))
@imagenet("densenet201", params=20_013_928, depths=(6, 12, 48, 32), weights=(TV201, KERAS201))
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
    """Build a DenseNet for ImageNet: a 7x7 stem at stride 2, max pooling, four dense blocks.

    Args:
        x: images (n, height, width, channels), at least 29 pixels high and wide.
        head: turns the feature map (n, height/32, width/32, channels) into logits.
        depths: number of layers of each block.
        growth: maps that each layer adds; the stem has twice as many.
        layer_dropout: share of each layer's new maps dropped in training.
        epsilon: added to the variance by every batch normalization; Keras' weights had 1.001e-5.
        activation: Keras activation before every convolution and after the last norm.
        dropout: share of the pooled features dropped in training.

    Returns:
        The head's output, logits (n, classes).
    """
    check_sizes(depths, 4, growth)
    check_activation("activation", activation)
    before = partial(norm_activate, epsilon=epsilon, activation=activation)
    x = head.level(before(conv(x, 2 * growth, 7, 2, name="stem"), name="stem"))
    x = keras.layers.ZeroPadding2D(1, name="stem_pool_pad")(x)
    # The values are at least 0 after the ReLU, so that zeros pad a maximum as well as minus infinity does.
    x = keras.layers.MaxPooling2D(3, 2, name="stem_pool")(x)
    x = dense_blocks(x, head, depths, growth, before=before, layer_dropout=layer_dropout)
    return head(x, dropout)


cifar = partial(
    register,
    like=ModelSpec(
        (32, 32, 3), 10, 4, f"{PAPER}, section 3", ("image", "small"), PreprocessingConfig((127.5,), (127.5,))
    ),
)


@cifar("densenet_bc_100_12", params=769_162, depths=(16, 16, 16))
@cifar("densenet_tiny", params=31_994, depths=(2, 3, 4), growth=8)
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
        head: turns the feature map (n, height/4, width/4, channels) into logits.
        depths: number of layers of each block.
        growth: maps that each layer adds; the stem has twice as many.
        layer_dropout: share of each layer's new maps dropped in training, 0.2 in the paper without augmentation.
        activation: Keras activation before every convolution and after the last norm.
        dropout: share of the pooled features dropped in training.

    Returns:
        The head's output, logits (n, classes).
    """
    check_sizes(depths, 3, growth)
    check_activation("activation", activation)
    x = conv(x, 2 * growth, 3, name="stem")
    before = partial(norm_activate, epsilon=1e-5, activation=activation)
    x = dense_blocks(x, head, depths, growth, before=before, layer_dropout=layer_dropout)
    return head(x, dropout)
