"""Residual networks (He, Zhang, Ren, Sun 2015, arXiv:1512.03385).

Plain names are "v1.5": the stride sits in the 3x3 convolution of a bottleneck, as in torchvision and in Goyal et al.
2017 (arXiv:1706.02677); names ending in _v1 have it in the first 1x1 convolution, as published and as in Keras.
ResNeXt is arXiv:1611.05431, the wide networks are arXiv:1605.07146, the D networks He et al. 2018, arXiv:1812.01187.
The CIFAR networks follow section 4.2 of the first paper: three stages of 16, 32 and 64 channels and shortcuts without
parameters (option A).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from zoo.common.errors import BadOption
from zoo.common.lazy import keras
from zoo.layers.blocks import activate, check_activation, check_counts, check_rate, conv_norm, norm
from zoo.layers.blocks import drop_path as drop_branch
from zoo.layers.heads import Head
from zoo.specs.preprocessing import IMAGENET as IMAGENET_PIXELS
from zoo.specs.preprocessing import PreprocessingConfig
from zoo.specs.published import TORCHVISION_RESULTS, NameMapping, Weights
from zoo.specs.registry import ModelSpec, register

PAPER = "He et al. 2015, arXiv:1512.03385"


@dataclasses.dataclass(frozen=True)
class Units:
    """Convolutions with what follows them, the same throughout a network.

    Args:
        activation: Keras activation of the hidden layers.
        zero_init: start the last scale of each branch at 0 (arXiv:1706.02677, section 5.1).
        epsilon: what is added to the variance in normalization.
        drop_path: share of examples for which the last branch is dropped in training (arXiv:1603.09382); those before
            are dropped less, in proportion to their depth.
    """

    activation: str = "relu"
    zero_init: bool = False
    epsilon: float = 1e-5
    drop_path: float = 0.0

    def check(self) -> Units:
        """Return the units, or raise BadOption."""
        check_activation("activation", self.activation)
        check_rate(self.drop_path, "drop_path")
        return self

    def active(self, x: Any, filters: int, size: int, stride: int = 1, **more: Any) -> Any:
        """Convolve, normalize and activate."""
        normalize = partial(norm, epsilon=self.epsilon)
        return conv_norm(x, filters, size, stride, activation=self.activation, norm=normalize, **more)

    def linear(self, x: Any, filters: int, size: int, stride: int = 1, *, name: str, zero: bool = False) -> Any:
        """Convolve and normalize."""
        normalize = partial(norm, epsilon=self.epsilon, zero=zero)
        return conv_norm(x, filters, size, stride, name=name, activation=None, norm=normalize)

    def join(self, branch: Any, shortcut: Any, *, name: str) -> Any:
        """Add a branch to its shortcut and activate."""
        branch = drop_branch(branch, self.drop_path, name=f"{name}_drop_path")
        return activate(keras.layers.Add(name=f"{name}_add")([branch, shortcut]), self.activation, name=name)


NORMAL = Units()


def projection(x: Any, filters: int, stride: int, units: Units, *, name: str) -> Any:
    """Option B: a 1x1 convolution where the shape changes."""
    if stride == 1 and x.shape[-1] == filters:
        return x
    return units.linear(x, filters, 1, stride, name=f"{name}_shortcut")


def pooled_projection(x: Any, filters: int, stride: int, units: Units, *, name: str) -> Any:
    """Option B of the D networks: the mean of 2x2 pixels in place of every second pixel."""
    if stride > 1:
        # "same" counts only real pixels at an odd edge, as PyTorch does with ceil_mode and without padding.
        x = keras.layers.AveragePooling2D(2, stride, padding="same", name=f"{name}_shortcut_pool")(x)
    return projection(x, filters, 1, units, name=name)


def padding(x: Any, filters: int, stride: int, _: Units, *, name: str) -> Any:
    """Option A: every stride-th pixel, and zeros for the channels that are missing."""
    if stride > 1:
        x = keras.layers.MaxPooling2D(1, stride, name=f"{name}_subsample")(x)
    missing = filters - x.shape[-1]
    if not missing:
        return x
    # Told that the channels come first, the layer takes width and channels for height and width.
    around = ((0, 0), (missing // 2, missing - missing // 2))
    return keras.layers.ZeroPadding2D(around, data_format="channels_first", name=f"{name}_channels")(x)


def basic(
    x: Any, filters: int, stride: int, units: Units, *, name: str, shortcut: Callable[..., Any] = projection
) -> Any:
    """Two 3x3 convolutions beside a shortcut."""
    y = units.active(x, filters, 3, stride, name=f"{name}_conv1")
    y = units.linear(y, filters, 3, name=f"{name}_conv2", zero=units.zero_init)
    return units.join(y, shortcut(x, filters, stride, units, name=name), name=name)


def bottleneck(
    x: Any,
    filters: int,
    stride: int,
    units: Units,
    *,
    name: str,
    shortcut: Callable[..., Any] = projection,
    grouping: tuple[int, int] = (1, 64),
    early: bool = False,
) -> Any:
    """1x1, 3x3 and 1x1 convolutions beside a shortcut; four times `filters` come out.

    `grouping` is (groups of the 3x3 convolution, channels of each where `filters` is 64); with `early` the stride is
    in the first convolution.
    """
    groups, width = grouping
    inner = filters * width // 64 * groups
    first, second = (stride, 1) if early else (1, stride)
    y = units.active(x, inner, 1, first, name=f"{name}_conv1")
    y = units.active(y, inner, 3, second, name=f"{name}_conv2", groups=groups)
    y = units.linear(y, 4 * filters, 1, name=f"{name}_conv3", zero=units.zero_init)
    return units.join(y, shortcut(x, 4 * filters, stride, units, name=name), name=name)


def check_depths(depths: tuple[int, ...], stages: int) -> None:
    """Raise BadOption unless there is a depth of at least 1 for each stage."""
    if len(check_counts("depths", depths)) != stages:
        raise BadOption(f"depths must have one number for each of the {stages} stages. Received: depths={depths}")


def _layout(
    shortcut: int = 0, stem: tuple[tuple[str, str], ...] = (("stem", "conv1"), ("stem_norm", "bn1"))
) -> NameMapping:
    """Return the names of torchvision and timm, given the place of the convolution in a shortcut, and the stem."""
    block = r"stage(\d+)_block(\d+)"
    return NameMapping(
        (
            *stem,
            (rf"{block}_conv(\d)", "layer{0}.{1:-1}.conv{2}"),
            (rf"{block}_conv(\d)_norm", "layer{0}.{1:-1}.bn{2}"),
            (rf"{block}_shortcut", f"layer{{0}}.{{1:-1}}.downsample.{shortcut}"),
            (rf"{block}_shortcut_norm", f"layer{{0}}.{{1:-1}}.downsample.{shortcut + 1}"),
            ("logits", "fc"),
        )
    )


TORCH = {"torchvision": _layout(), "timm": _layout()}
DEEP_STEM = (
    ("stem1", "conv1.0"),
    ("stem1_norm", "conv1.1"),
    ("stem2", "conv1.3"),
    ("stem2_norm", "conv1.4"),
    ("stem3", "conv1.6"),
    ("stem3_norm", "bn1"),
)
KERAS = NameMapping(
    (
        ("stem", "conv1_conv"),
        ("stem_norm", "conv1_bn"),
        (r"stage(\d+)_block(\d+)_conv(\d)", "conv{0:+1}_block{1}_{2}_conv"),
        (r"stage(\d+)_block(\d+)_conv(\d)_norm", "conv{0:+1}_block{1}_{2}_bn"),
        (r"stage(\d+)_block(\d+)_shortcut", "conv{0:+1}_block{1}_0_conv"),
        (r"stage(\d+)_block(\d+)_shortcut_norm", "conv{0:+1}_block{1}_0_bn"),
        ("logits", "predictions"),
    ),
    arguments={"epsilon": 1.001e-5},
)

LIKE = ModelSpec((224, 224, 3), 1000, 32, PAPER, ("image", "residual"), IMAGENET_PIXELS)
R50, R101, R152 = (3, 4, 6, 3), (3, 4, 23, 3), (3, 8, 36, 3)
BICUBIC = dataclasses.replace(IMAGENET_PIXELS, interpolation="bicubic", crop=0.95)
# How timm tests its checkpoints by the recipe in their names; "a" is arXiv:2110.00476.
UNCROPPED = {"size": 288, "preprocessing": dataclasses.replace(BICUBIC, crop=1.0)}
RECIPES: dict[str, dict[str, Any]] = {
    "a1": UNCROPPED,
    "a1h": UNCROPPED,
    "ra2": {"size": 288, "preprocessing": BICUBIC},
    "racm": {"size": 288, "preprocessing": BICUBIC},
    "tv": {},
    "tv2": {"preprocessing": dataclasses.replace(IMAGENET_PIXELS, crop=0.965)},
}


def imagenet(
    name: str,
    *,
    top1: Mapping[str, float],
    like: ModelSpec = LIKE,
    name_mappings: Mapping[str, NameMapping] = TORCH,
    weights: tuple[Weights, ...] = (),
    **arguments: Any,
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Register a network with timm's checkpoints of it, accuracies by recipe, before other weights."""
    timm = [Weights(f"timm/{name}.{recipe}_in1k", value, **RECIPES[recipe]) for recipe, value in top1.items()]
    return register(name, like, weights=(*timm, *weights), name_mappings=name_mappings, **arguments)


def as_published(keras_name: str, top1: float, **arguments: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Register a network of the first paper, which keras.applications has."""
    blue_first = PreprocessingConfig((123.68, 116.779, 103.939), (1.0,))
    weights = (Weights(f"keras/{keras_name}", top1, preprocessing=blue_first, bgr=True),)
    block = partial(bottleneck, early=True)
    return imagenet(
        f"{keras_name.lower()}_v1", top1={}, name_mappings={"keras": KERAS}, weights=weights, block=block, **arguments
    )


# timm's table lacks this one.
RESNET34 = Weights("timm/resnet34.tv_in1k", 73.314, reference=TORCHVISION_RESULTS)
RESNEXT = dataclasses.replace(LIKE, paper="Xie et al. 2017, arXiv:1611.05431")
WIDE = dataclasses.replace(LIKE, paper="Zagoruyko and Komodakis 2016, arXiv:1605.07146")
RESNET_D = dataclasses.replace(LIKE, paper="He et al. 2018, arXiv:1812.01187")
resnext = partial(bottleneck, grouping=(32, 4))
wide = partial(bottleneck, grouping=(1, 128))


@imagenet("resnet18", params=11_689_512, block=basic, depths=(2, 2, 2, 2), top1={"a1": 73.158, "tv": 69.760})
@imagenet("resnet34", params=21_797_672, block=basic, depths=R50, top1={"a1": 77.918}, weights=(RESNET34,))
@imagenet("resnet50", params=25_557_032, block=bottleneck, depths=R50, top1={"a1": 81.214, "tv2": 80.850, "tv": 76.130})
@imagenet(
    "resnet101", params=44_549_160, block=bottleneck, depths=R101, top1={"a1h": 82.778, "tv2": 81.890, "tv": 77.376}
)
@imagenet(
    "resnet152", params=60_192_808, block=bottleneck, depths=R152, top1={"a1h": 83.450, "tv2": 82.288, "tv": 78.322}
)
@imagenet(
    "resnext50_32x4d",
    params=25_028_904,
    block=resnext,
    depths=R50,
    like=RESNEXT,
    top1={"a1h": 82.014, "tv2": 81.182, "tv": 77.618},
)
@imagenet(
    "wide_resnet50_2",
    params=68_883_240,
    block=wide,
    depths=R50,
    like=WIDE,
    top1={"racm": 82.280, "tv2": 81.606, "tv": 78.480},
)
@as_published("ResNet50", 74.9, params=25_557_032, depths=R50)
@as_published("ResNet101", 76.4, params=44_549_160, depths=R101)
@as_published("ResNet152", 76.6, params=60_192_808, depths=R152)
def resnet(
    x: Any,
    head: Head,
    *,
    block: Callable[..., Any],
    depths: tuple[int, ...],
    dropout: float = 0.0,
    units: Units = NORMAL,
) -> Any:
    """Build a ResNet for ImageNet: a 7x7 stem at stride 2, max pooling, four stages.

    Args:
        x: images (n, height, width, channels), at least 32 pixels high and wide.
        head: turns the feature map (n, height/32, width/32, channels) into logits.
        block: `basic` or `bottleneck`.
        depths: number of blocks of each stage.
        dropout: share of the pooled features dropped in training.
        units: activation, zero_init, epsilon and drop_path.

    Returns:
        The head's output, logits (n, classes).
    """
    x = units.check().active(x, 64, 7, 2, name="stem")
    return head(_imagenet_stages(x, head, block, depths, units), dropout)


@imagenet(
    "resnet50d",
    params=25_576_264,
    block=partial(bottleneck, shortcut=pooled_projection),
    depths=R50,
    like=RESNET_D,
    name_mappings={"timm": _layout(1, DEEP_STEM)},
    top1={"a1": 81.450, "ra2": 81.356},
)
def resnet_d(
    x: Any,
    head: Head,
    *,
    block: Callable[..., Any],
    depths: tuple[int, ...],
    dropout: float = 0.0,
    units: Units = NORMAL,
) -> Any:
    """Build a ResNet-D for ImageNet: three 3x3 convolutions as the stem, and shortcuts that average.

    Args:
        x: images (n, height, width, channels), at least 32 pixels high and wide.
        head: turns the feature map (n, height/32, width/32, channels) into logits.
        block: `basic` or `bottleneck` with shortcuts that average.
        depths: number of blocks of each stage.
        dropout: share of the pooled features dropped in training.
        units: activation, zero_init, epsilon and drop_path.

    Returns:
        The head's output, logits (n, classes).
    """
    units.check()
    for i, (filters, stride) in enumerate(((32, 2), (32, 1), (64, 1)), start=1):
        x = units.active(x, filters, 3, stride, name=f"stem{i}")
    return head(_imagenet_stages(x, head, block, depths, units), dropout)


def _imagenet_stages(x: Any, head: Head, block: Callable[..., Any], depths: tuple[int, ...], units: Units) -> Any:
    """Halve the stem's map (n, height/2, width/2, 64) and stack four stages."""
    check_depths(depths, 4)
    x = keras.layers.ZeroPadding2D(1, name="stem_pool_pad")(head.level(x))
    # After a ReLU the values are at least 0, so that zeros pad a maximum as well as minus infinity does.
    x = keras.layers.MaxPooling2D(3, 2, name="stem_pool")(x)
    return _stages(x, head, block, (64, 128, 256, 512), depths, units)


cifar = partial(
    register,
    like=ModelSpec(
        (32, 32, 3),
        10,
        8,
        f"{PAPER}, section 4.2",
        ("image", "residual", "small"),
        PreprocessingConfig((127.5,), (127.5,)),
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
    units: Units = NORMAL,
) -> Any:
    """Build a ResNet for small images: a 3x3 stem and stages of `width`, 2 and 4 times `width` channels.

    Args:
        x: images (n, height, width, channels), at least 8 pixels high and wide.
        head: turns the feature map (n, height/4, width/4, 4 * width) into logits.
        depths: number of blocks of each stage.
        width: channels of the first stage.
        dropout: share of the pooled features dropped in training.
        units: activation, zero_init, epsilon and drop_path.

    Returns:
        The head's output, logits (n, classes).
    """
    check_depths(depths, 3)
    check_counts("width", (width,))
    x = units.check().active(x, width, 3, name="stem")
    widths = tuple(width * 2**stage for stage in range(len(depths)))
    return head(_stages(x, head, partial(basic, shortcut=padding), widths, depths, units), dropout)


def _stages(
    x: Any, head: Head, block: Callable[..., Any], widths: tuple[int, ...], depths: tuple[int, ...], units: Units
) -> Any:
    """Stack the blocks; every stage but the first halves the map with its first block."""
    step = units.drop_path / max(1, sum(depths) - 1)
    for stage, (width, depth) in enumerate(zip(widths, depths, strict=True), start=1):
        for i in range(1, depth + 1):
            stride = 2 if stage > 1 and i == 1 else 1
            own = dataclasses.replace(units, drop_path=step * (sum(depths[: stage - 1]) + i - 1))
            x = block(x, width, stride, own, name=f"stage{stage}_block{i}")
        head.level(x)
    return x
