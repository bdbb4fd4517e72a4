"""Residual networks (He, Zhang, Ren, Sun 2015, arXiv:1512.03385).

The ImageNet networks are "v1.5": the stride sits in the 3x3 convolution of a bottleneck, as in torchvision and in
Goyal et al. 2017 (arXiv:1706.02677). The CIFAR networks follow section 4.2 of the paper: three stages of 16, 32 and
64 channels and shortcuts without parameters (option A).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from zoo._blocks import Head, check_counts, conv_norm
from zoo._errors import BadOption
from zoo._lazy import keras
from zoo._preprocessing import IMAGENET as IMAGENET_PIXELS
from zoo._preprocessing import Preprocessing
from zoo._registry import ModelSpec, register

PAPER = "He et al. 2015, arXiv:1512.03385"


def basic(x: Any, filters: int, stride: int, *, shortcut: Callable[..., Any], name: str, zero: bool) -> Any:
    """Two 3x3 convolutions beside a shortcut."""
    y = conv_norm(x, filters, 3, stride, name=f"{name}_conv1")
    y = conv_norm(y, filters, 3, name=f"{name}_conv2", activation=None, zero=zero)
    return _join(y, shortcut(x, filters, stride, name=name), name)


def bottleneck(x: Any, filters: int, stride: int, *, shortcut: Callable[..., Any], name: str, zero: bool) -> Any:
    """1x1, 3x3 and 1x1 convolutions beside a shortcut; four times `filters` come out."""
    y = conv_norm(x, filters, 1, name=f"{name}_conv1")
    y = conv_norm(y, filters, 3, stride, name=f"{name}_conv2")
    y = conv_norm(y, 4 * filters, 1, name=f"{name}_conv3", activation=None, zero=zero)
    return _join(y, shortcut(x, 4 * filters, stride, name=name), name)


def _join(branch: Any, shortcut: Any, name: str) -> Any:
    x = keras.layers.Add(name=f"{name}_add")([branch, shortcut])
    return keras.layers.Activation("relu", name=f"{name}_relu")(x)


def projection(x: Any, filters: int, stride: int, *, name: str) -> Any:
    """Option B: a 1x1 convolution where the shape changes."""
    if stride == 1 and x.shape[-1] == filters:
        return x
    return conv_norm(x, filters, 1, stride, name=f"{name}_shortcut", activation=None)


def padding(x: Any, filters: int, stride: int, *, name: str) -> Any:
    """Option A: every stride-th pixel, and zeros for the channels that are missing."""
    if stride > 1:
        x = keras.layers.MaxPooling2D(1, stride, name=f"{name}_subsample")(x)
    missing = filters - x.shape[-1]
    if not missing:
        return x
    # Told that the channels come first, the layer takes width and channels for height and width.
    around = ((0, 0), (missing // 2, missing - missing // 2))
    return keras.layers.ZeroPadding2D(around, data_format="channels_first", name=f"{name}_channels")(x)


def check_depths(depths: tuple[int, ...], stages: int) -> None:
    """Raise BadOption unless there is a depth of at least 1 for each stage."""
    if len(check_counts("depths", depths)) != stages:
        raise BadOption(f"depths must have one number for each of the {stages} stages. Received: depths={depths}")


imagenet = partial(
    register,
    like=ModelSpec((224, 224, 3), 1000, 32, PAPER, ("image", "residual"), IMAGENET_PIXELS),
)


@imagenet("resnet18", params=11_689_512, block=basic, depths=(2, 2, 2, 2))
@imagenet("resnet34", params=21_797_672, block=basic, depths=(3, 4, 6, 3))
@imagenet("resnet50", params=25_557_032, block=bottleneck, depths=(3, 4, 6, 3))
@imagenet("resnet101", params=44_549_160, block=bottleneck, depths=(3, 4, 23, 3))
@imagenet("resnet152", params=60_192_808, block=bottleneck, depths=(3, 8, 36, 3))
def resnet(
    x: Any,
    head: Head,
    *,
    block: Callable[..., Any],
    depths: tuple[int, ...],
    dropout: float = 0.0,
    zero_init: bool = False,
) -> Any:
    """Build a ResNet for ImageNet: a 7x7 stem at stride 2, max pooling, four stages.

    Args:
        x: images (n, height, width, channels), at least 32 pixels high and wide.
        head: turns the feature map (n, height/32, width/32, channels) into logits.
        block: `basic` or `bottleneck`.
        depths: number of blocks of each stage.
        dropout: share of the pooled features dropped in training.
        zero_init: start the last scale of each branch at 0 (arXiv:1706.02677, section 5.1).

    Returns:
        The head's output, logits (n, classes).
    """
    check_depths(depths, 4)
    x = conv_norm(x, 64, 7, 2, name="stem")
    x = keras.layers.ZeroPadding2D(1, name="stem_pool_pad")(x)
    # The values are at least 0 after the ReLU, so that zeros pad a maximum as well as minus infinity does.
    x = keras.layers.MaxPooling2D(3, 2, name="stem_pool")(x)
    x = _stages(x, block, (64, 128, 256, 512), depths, shortcut=projection, zero=zero_init)
    return head(x, dropout)


cifar = partial(
    register,
    like=ModelSpec(
        (32, 32, 3), 10, 8, f"{PAPER}, section 4.2", ("image", "residual", "small"), Preprocessing((127.5,), (127.5,))
    ),
)


@cifar("resnet20", params=269_722, depths=(3, 3, 3))
@cifar("resnet32", params=464_154, depths=(5, 5, 5))
@cifar("resnet44", params=658_586, depths=(7, 7, 7))
@cifar("resnet56", params=853_018, depths=(9, 9, 9))
@cifar("resnet110", params=1_727_962, depths=(18, 18, 18))
@cifar("resnet_tiny", params=19_218, depths=(1, 1, 1), width=8)
def cifar_resnet(
    x: Any,
    head: Head,
    *,
    depths: tuple[int, ...],
    width: int = 16,
    dropout: float = 0.0,
    zero_init: bool = False,
) -> Any:
    """Build a ResNet for small images: a 3x3 stem and stages of `width`, 2 and 4 times `width` channels.

    Args:
        x: images (n, height, width, channels), at least 8 pixels high and wide.
        head: turns the feature map (n, height/4, width/4, 4 * width) into logits.
        depths: number of blocks of each stage.
        width: channels of the first stage.
        dropout: share of the pooled features dropped in training.
        zero_init: start the last scale of each branch at 0 (arXiv:1706.02677, section 5.1).

    Returns:
        The head's output, logits (n, classes).
    """
    check_depths(depths, 3)
    check_counts("width", (width,))
    x = conv_norm(x, width, 3, name="stem")
    widths = tuple(width * 2**stage for stage in range(len(depths)))
    x = _stages(x, basic, widths, depths, shortcut=padding, zero=zero_init)
    return head(x, dropout)


def _stages(
    x: Any,
    block: Callable[..., Any],
    widths: tuple[int, ...],
    depths: tuple[int, ...],
    *,
    shortcut: Callable[..., Any],
    zero: bool,
) -> Any:
    """Stack the blocks; every stage but the first halves the map with its first block."""
    for stage, (width, depth) in enumerate(zip(widths, depths, strict=True), start=1):
        for i in range(1, depth + 1):
            stride = 2 if stage > 1 and i == 1 else 1
            x = block(x, width, stride, shortcut=shortcut, name=f"stage{stage}_block{i}", zero=zero)
    return x
