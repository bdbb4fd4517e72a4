"""Pre-activation residual networks (He, Zhang, Ren, Sun 2016, arXiv:1603.05027).

Normalization and activation come before each convolution, so that the shortcuts contain only additions. Names ending
in _v2 follow TensorFlow-Slim and Keras, the others follow timm.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any

from zoo.common.errors import BadOption
from zoo.common.lazy import keras
from zoo.layers.blocks import activate, check_activation, check_counts, conv, conv_norm, norm
from zoo.layers.heads import Head
from zoo.specs.preprocessing import SYMMETRIC
from zoo.specs.registry import ModelSpec, register
from zoo.weights.published.resnetv2 import NAME_MAPPINGS, WEIGHTS


def imagenet_stem(x: Any, head: Head, *, slim: bool, **_: Any) -> Any:
    """7x7 convolution and 3x3 max pooling, each at stride 2, without an activation."""
    x = head.level(conv(x, 64, 7, 2, use_bias=slim, name="stem"))
    if slim:
        # The weights were trained with zero padding, which is the maximum of negative values at the edge.
        return keras.layers.MaxPooling2D(3, 2, name="stem_pool")(zero_border(x, name="stem_pool_pad"))
    # At stride 2 "same" pads even sizes at the end only; PyTorch's pooling is every second maximum of stride 1.
    x = keras.layers.MaxPooling2D(3, 1, padding="same", name="stem_pool")(x)
    return keras.layers.MaxPooling2D(1, 2, name="stem_pool_subsample")(x)


def zero_border(x: Any, *, name: str) -> Any:
    """Pad a map by one pixel of zeros.

    ONNX Runtime fuses a padding layer into the max pooling that follows it, which pads with minus infinity.
    """
    for axis, part in ((1, "rows"), (2, "columns")):
        rest = [(0, 0), (0, 0)]
        rest[axis - 1] = (0, x.shape[axis] - 1)
        edge = keras.layers.Cropping2D(rest, name=f"{name}_{part}_edge")(x)
        edge = keras.layers.Rescaling(0.0, name=f"{name}_{part}_zeros")(edge)
        x = keras.layers.Concatenate(axis=axis, name=f"{name}_{part}")([edge, x, edge])
    return x


def small_stem(x: Any, _: Head, *, slim: bool, width: int) -> Any:
    """3x3 convolution for small images."""
    return conv(x, width, 3, use_bias=slim, name="stem")


@dataclasses.dataclass(frozen=True)
class Bottleneck:
    """Pre-activation block: 1x1, 3x3 and 1x1 convolutions with a shortcut; the 3x3 convolution has the stride.

    Args:
        activation: Keras activation of the hidden layers.
        epsilon: added to the variance in batch normalization.
        slim: convolutions without a normalization after them have biases.
    """

    activation: str
    epsilon: float
    slim: bool

    def __call__(self, x: Any, filters: int, stride: int, *, name: str) -> Any:
        """Return the sum of the branch and the shortcut (n, height/stride, width/stride, 4 * filters)."""
        start = self.normalize(x, name=f"{name}_preact")
        unit = partial(conv_norm, activation=self.activation, norm=partial(norm, epsilon=self.epsilon))
        y = unit(start, filters, 1, name=f"{name}_conv1")
        y = unit(y, filters, 3, stride, name=f"{name}_conv2")
        y = conv(y, 4 * filters, 1, use_bias=self.slim, name=f"{name}_conv3")
        return keras.layers.Add(name=f"{name}_add")([self._shortcut(x, start, 4 * filters, stride, name), y])

    def normalize(self, x: Any, *, name: str) -> Any:
        """Normalize and activate."""
        return activate(norm(x, epsilon=self.epsilon, name=f"{name}_norm"), self.activation, name=name)

    def _shortcut(self, x: Any, start: Any, filters: int, stride: int, name: str) -> Any:
        if x.shape[-1] != filters:
            return conv(start, filters, 1, stride, use_bias=self.slim, name=f"{name}_shortcut")
        return x if stride == 1 else keras.layers.MaxPooling2D(1, stride, name=f"{name}_subsample")(x)


RESNETV2 = ModelSpec(
    input_shape=(224, 224, 3),
    classes=1000,
    min_size=32,
    paper="He et al. 2016, arXiv:1603.05027",
    tags=("image", "residual", "pre-activation"),
    preprocessing=dataclasses.replace(SYMMETRIC, crop=0.875),
)
SMALL = dataclasses.replace(
    RESNETV2, input_shape=(32, 32, 3), classes=10, min_size=8, tags=(*RESNETV2.tags, "small"), preprocessing=SYMMETRIC
)
R50, R101, R152 = (3, 4, 6, 3), (3, 4, 23, 3), (3, 8, 36, 3)
SLIM = {"slim": True, "epsilon": 1.001e-5}


def imagenet(name: str, **options: Any) -> Callable[..., Any]:
    """Register a variant for ImageNet with its published weights."""
    published = {"weights": WEIGHTS[name], "name_mappings": NAME_MAPPINGS[name]}
    return register(name, RESNETV2, stem=imagenet_stem, **published, **options)


@imagenet("resnet50_v2", params=25_568_360, depths=R50, **SLIM)
@imagenet("resnet101_v2", params=44_577_896, depths=R101, **SLIM)
@imagenet("resnet152_v2", params=60_236_904, depths=R152, **SLIM)
@imagenet("resnetv2_50", params=25_549_352, depths=R50)
@imagenet("resnetv2_101", params=44_541_480, depths=R101)
@register("resnetv2_tiny", SMALL, params=32_786, stem=partial(small_stem, width=8), depths=(1, 1, 1))
def resnetv2(
    x: Any,
    head: Head,
    *,
    stem: Callable[..., Any],
    depths: tuple[int, ...],
    slim: bool = False,
    activation: str = "relu",
    dropout: float = 0.0,
    epsilon: float = 1e-5,
) -> Any:
    """Build a pre-activation ResNet of bottlenecks; the inner channels are those of the stem and double by stage.

    Args:
        x: images (n, height, width, channels).
        head: computes logits from the last feature map after normalization and activation.
        stem: `imagenet_stem` or `small_stem`.
        depths: number of blocks in each stage.
        slim: as in TensorFlow-Slim, the last block of a stage has stride 2, not the first block of the next stage,
            and convolutions without a normalization after them have biases.
        activation: Keras activation of the hidden layers.
        dropout: fraction of the pooled features dropped in training.
        epsilon: added to the variance in batch normalization.

    Returns:
        The head's output, logits (n, classes).
    """
    if not check_counts("depths", depths):
        raise BadOption("depths must have a number for each stage. Received: depths=()")
    block = Bottleneck(check_activation("activation", activation), epsilon, slim)
    x = stem(x, head, slim=slim)
    width = x.shape[-1]
    for stage, depth in enumerate(depths, start=1):
        for i in range(1, depth + 1):
            halves = i == depth and stage < len(depths) if slim else i == 1 and stage > 1
            if halves:
                head.level(x)
            x = block(x, width * 2 ** (stage - 1), 2 if halves else 1, name=f"stage{stage}_block{i}")
    x = block.normalize(x, name="final")
    return head(head.level(x), dropout)
