"""Residual networks (He, Zhang, Ren, Sun 2015, arXiv:1512.03385).

Plain names are "v1.5": the 3x3 convolution of a bottleneck has the stride, as in torchvision and in Goyal et al. 2017
(arXiv:1706.02677). In names ending in _v1 the first 1x1 convolution has it, as published and as in Keras. ResNeXt is
arXiv:1611.05431, Wide ResNet is arXiv:1605.07146, ResNet-D is arXiv:1812.01187 (He et al. 2018). The CIFAR networks
follow section 4.2 of the first paper: three stages of 16, 32 and 64 channels and shortcuts without parameters (option
A).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any

from zoo.common.errors import BadOption
from zoo.common.lazy import keras
from zoo.layers import blocks
from zoo.layers.blocks import activate, check_activation, check_counts, check_rate, norm
from zoo.layers.heads import Head
from zoo.specs.preprocessing import IMAGENET, SYMMETRIC
from zoo.specs.registry import ModelSpec, register
from zoo.weights.published.resnet import NAME_MAPPINGS, WEIGHTS

# Channels of the 3x3 convolutions and stride of the first block, by stage. The stem and its pooling have stride 2 each.
WIDTHS, STRIDES = (64, 128, 256, 512), (1, 2, 2, 2)
CIFAR_STRIDES = (1, 2, 2)


@dataclasses.dataclass(frozen=True)
class BlockConfig:
    """Options of every block.

    Args:
        activation: Keras activation of the hidden layers.
        zero_init: initialize the last scale of each branch to 0 (arXiv:1706.02677, section 5.1).
        epsilon: added to the variance in batch normalization.
        drop_path: probability of dropping the last block's branch for an example in training (arXiv:1603.09382); it
            grows linearly from 0 at the first block.
    """

    activation: str = "relu"
    zero_init: bool = False
    epsilon: float = 1e-5
    drop_path: float = 0.0

    def check(self) -> BlockConfig:
        """Return the options, or raise BadOption."""
        check_activation("activation", self.activation)
        check_rate(self.drop_path, "drop_path")
        return self

    def conv_norm(self, x: Any, filters: int, size: int, *, name: str, stride: int = 1, zero: bool = False) -> Any:
        """Convolve and normalize."""
        normalize = partial(norm, epsilon=self.epsilon, zero=zero)
        return blocks.conv_norm(x, filters, size, stride, name=name, activation=None, norm=normalize)

    def conv_norm_act(self, x: Any, filters: int, size: int, *, name: str, stride: int = 1, groups: int = 1) -> Any:
        """Convolve, normalize and activate."""
        normalize = partial(norm, epsilon=self.epsilon)
        more = {"activation": self.activation, "norm": normalize, "groups": groups}
        return blocks.conv_norm(x, filters, size, stride, name=name, **more)

    def add(self, branch: Any, shortcut: Any, *, name: str) -> Any:
        """Add a branch to its shortcut and activate."""
        branch = blocks.drop_path(branch, self.drop_path, name=f"{name}_drop_path")
        return activate(keras.layers.Add(name=f"{name}_add")([branch, shortcut]), self.activation, name=name)


def projection(x: Any, filters: int, stride: int, config: BlockConfig, *, name: str) -> Any:
    """Option B: a 1x1 convolution where the shape changes."""
    if stride == 1 and x.shape[-1] == filters:
        return x
    return config.conv_norm(x, filters, 1, stride=stride, name=f"{name}_shortcut")


def pooled_projection(x: Any, filters: int, stride: int, config: BlockConfig, *, name: str) -> Any:
    """Option B of ResNet-D: 2x2 average pooling instead of a strided convolution."""
    if stride > 1:
        # "same" counts only real pixels at an odd edge, as PyTorch does with ceil_mode and without padding.
        x = keras.layers.AveragePooling2D(2, stride, padding="same", name=f"{name}_shortcut_pool")(x)
    return projection(x, filters, 1, config, name=name)


def zero_padding(x: Any, filters: int, stride: int, _: BlockConfig, *, name: str) -> Any:
    """Option A: subsampling, and zeros for the missing channels."""
    if stride > 1:
        x = keras.layers.MaxPooling2D(1, stride, name=f"{name}_subsample")(x)
    missing = filters - x.shape[-1]
    if not missing:
        return x
    # With data_format="channels_first" the layer pads the last two axes, width and channels.
    around = ((0, 0), (missing // 2, missing - missing // 2))
    return keras.layers.ZeroPadding2D(around, data_format="channels_first", name=f"{name}_channels")(x)


@dataclasses.dataclass(frozen=True)
class Basic:
    """Two 3x3 convolutions with a shortcut; the first has the stride."""

    shortcut: Callable[..., Any] = projection

    def __call__(self, x: Any, filters: int, stride: int, config: BlockConfig, *, name: str) -> Any:
        """Return a map (n, height/stride, width/stride, filters)."""
        y = config.conv_norm_act(x, filters, 3, stride=stride, name=f"{name}_conv1")
        y = config.conv_norm(y, filters, 3, zero=config.zero_init, name=f"{name}_conv2")
        return config.add(y, self.shortcut(x, filters, stride, config, name=name), name=name)


@dataclasses.dataclass(frozen=True)
class Bottleneck:
    """1x1, 3x3 and 1x1 convolutions with a shortcut.

    Args:
        groups: groups of the 3x3 convolution.
        width_per_group: channels of each group where `filters` is 64.
        stride_in_1x1: the first 1x1 convolution has the stride, not the 3x3 convolution.
        shortcut: `projection` or `pooled_projection`.
    """

    groups: int = 1
    width_per_group: int = 64
    stride_in_1x1: bool = False
    shortcut: Callable[..., Any] = projection

    def __call__(self, x: Any, filters: int, stride: int, config: BlockConfig, *, name: str) -> Any:
        """Return a map (n, height/stride, width/stride, 4 * filters)."""
        inner = filters * self.width_per_group // 64 * self.groups
        first, second = (stride, 1) if self.stride_in_1x1 else (1, stride)
        y = config.conv_norm_act(x, inner, 1, stride=first, name=f"{name}_conv1")
        y = config.conv_norm_act(y, inner, 3, stride=second, groups=self.groups, name=f"{name}_conv2")
        y = config.conv_norm(y, 4 * filters, 1, zero=config.zero_init, name=f"{name}_conv3")
        return config.add(y, self.shortcut(x, 4 * filters, stride, config, name=name), name=name)


def plain_stem(x: Any, config: BlockConfig) -> Any:
    """7x7 convolution at stride 2."""
    return config.conv_norm_act(x, 64, 7, stride=2, name="stem")


def deep_stem(x: Any, config: BlockConfig) -> Any:
    """Three 3x3 convolutions, the first at stride 2 (ResNet-D)."""
    x = config.conv_norm_act(x, 32, 3, stride=2, name="stem1")
    x = config.conv_norm_act(x, 32, 3, name="stem2")
    return config.conv_norm_act(x, 64, 3, name="stem3")


PAPER = "He et al. 2015, arXiv:1512.03385"
RESNET = ModelSpec((224, 224, 3), 1000, 32, PAPER, ("image", "residual"), IMAGENET)
RESNEXT = dataclasses.replace(RESNET, paper="Xie et al. 2017, arXiv:1611.05431")
WIDE = dataclasses.replace(RESNET, paper="Zagoruyko and Komodakis 2016, arXiv:1605.07146")
RESNET_D = dataclasses.replace(RESNET, paper="He et al. 2018, arXiv:1812.01187")
CIFAR = ModelSpec((32, 32, 3), 10, 8, f"{PAPER}, section 4.2", ("image", "residual", "small"), SYMMETRIC)
R18, R50, R101, R152 = (2, 2, 2, 2), (3, 4, 6, 3), (3, 4, 23, 3), (3, 8, 36, 3)
RESNEXT_BLOCK = Bottleneck(groups=32, width_per_group=4)
WIDE_BLOCK = Bottleneck(width_per_group=128)
V1_BLOCK = Bottleneck(stride_in_1x1=True)
D_BLOCK = Bottleneck(shortcut=pooled_projection)


def imagenet(
    name: str, like: ModelSpec = RESNET, *, stem: Callable[..., Any] = plain_stem, **options: Any
) -> Callable[..., Any]:
    """Register a variant for ImageNet with its published weights."""
    return register(name, like, weights=WEIGHTS[name], name_mappings=NAME_MAPPINGS[name], stem=stem, **options)


@imagenet("resnet18", params=11_689_512, block=Basic(), depths=R18)
@imagenet("resnet34", params=21_797_672, block=Basic(), depths=R50)
@imagenet("resnet50", params=25_557_032, block=Bottleneck(), depths=R50)
@imagenet("resnet101", params=44_549_160, block=Bottleneck(), depths=R101)
@imagenet("resnet152", params=60_192_808, block=Bottleneck(), depths=R152)
@imagenet("resnet50_v1", params=25_557_032, block=V1_BLOCK, depths=R50)
@imagenet("resnet101_v1", params=44_549_160, block=V1_BLOCK, depths=R101)
@imagenet("resnet152_v1", params=60_192_808, block=V1_BLOCK, depths=R152)
@imagenet("resnext50_32x4d", RESNEXT, params=25_028_904, block=RESNEXT_BLOCK, depths=R50)
@imagenet("wide_resnet50_2", WIDE, params=68_883_240, block=WIDE_BLOCK, depths=R50)
@imagenet("resnet50d", RESNET_D, params=25_576_264, stem=deep_stem, block=D_BLOCK, depths=R50)
def resnet(
    x: Any,
    head: Head,
    *,
    stem: Callable[..., Any],
    block: Callable[..., Any],
    depths: tuple[int, ...],
    dropout: float = 0.0,
    config: BlockConfig = BlockConfig(),
) -> Any:
    """Build a ResNet for ImageNet: a stem at stride 2, max pooling at stride 2, four stages.

    Args:
        x: images (n, height, width, channels), at least 32 pixels high and wide.
        head: computes logits from the feature map (n, height/32, width/32, channels).
        stem: `plain_stem` or `deep_stem`.
        block: a `Basic` or a `Bottleneck`.
        depths: number of blocks in each stage.
        dropout: fraction of the pooled features dropped in training.
        config: activation, zero_init, epsilon and drop_path.

    Returns:
        The head's output, logits (n, classes).
    """
    check_depths(depths, len(STRIDES))
    x = head.level(stem(x, config.check()))
    x = keras.layers.ZeroPadding2D(1, name="stem_pool_pad")(x)
    # ReLU leaves no value below 0, so zero padding and padding with minus infinity give the same maxima.
    x = keras.layers.MaxPooling2D(3, 2, name="stem_pool")(x)
    return head(_stages(x, head, block, WIDTHS, STRIDES, depths, config), dropout)


@register("resnet20", CIFAR, params=269_722, depths=(3, 3, 3))
@register("resnet32", CIFAR, params=464_154, depths=(5, 5, 5))
@register("resnet44", CIFAR, params=658_586, depths=(7, 7, 7))
@register("resnet56", CIFAR, params=853_018, depths=(9, 9, 9))
@register("resnet110", CIFAR, params=1_727_962, depths=(18, 18, 18))
@register("resnet_tiny", CIFAR, params=19_218, depths=(1, 1, 1), width=8)
def cifar_resnet(
    x: Any,
    head: Head,
    *,
    depths: tuple[int, ...],
    width: int = 16,
    dropout: float = 0.0,
    config: BlockConfig = BlockConfig(),
) -> Any:
    """Build a ResNet for small images: a 3x3 stem and stages of `width`, 2 and 4 times `width` channels.

    Args:
        x: images (n, height, width, channels), at least 8 pixels high and wide.
        head: computes logits from the feature map (n, height/4, width/4, 4 * width).
        depths: number of blocks in each stage.
        width: channels of the first stage.
        dropout: fraction of the pooled features dropped in training.
        config: activation, zero_init, epsilon and drop_path.

    Returns:
        The head's output, logits (n, classes).
    """
    check_depths(depths, len(CIFAR_STRIDES))
    check_counts("width", (width,))
    x = config.check().conv_norm_act(x, width, 3, name="stem")
    widths = (width, 2 * width, 4 * width)
    return head(_stages(x, head, Basic(zero_padding), widths, CIFAR_STRIDES, depths, config), dropout)


def _stages(
    x: Any,
    head: Head,
    block: Callable[..., Any],
    widths: tuple[int, ...],
    strides: tuple[int, ...],
    depths: tuple[int, ...],
    config: BlockConfig,
) -> Any:
    """Stack the stages; the first block of each has the stride."""
    step = config.drop_path / max(1, sum(depths) - 1)
    rates = iter([step * i for i in range(sum(depths))])
    for stage, (width, stride, depth) in enumerate(zip(widths, strides, depths, strict=True), start=1):
        for i in range(1, depth + 1):
            own = dataclasses.replace(config, drop_path=next(rates))
            x = block(x, width, stride if i == 1 else 1, own, name=f"stage{stage}_block{i}")
        head.level(x)
    return x


def check_depths(depths: tuple[int, ...], stages: int) -> None:
    """Raise BadOption unless there is a depth of at least 1 for each stage."""
    if len(check_counts("depths", depths)) != stages:
        raise BadOption(f"depths must have one number for each of the {stages} stages. Received: depths={depths}")
