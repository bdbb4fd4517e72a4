"""Pre-activation residual networks (He, Zhang, Ren, Sun 2016, arXiv:1603.05027).

Normalization and activation stand before each convolution, so that nothing but sums lies on the way of the shortcuts.
Names ending in _v2 are built as TensorFlow's Slim and Keras build them, the others as timm does.
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
from zoo.specs.preprocessing import PreprocessingConfig
from zoo.specs.published import NameMapping, Weights
from zoo.specs.registry import ModelSpec, register

INCEPTION = PreprocessingConfig((127.5,), (127.5,))
LIKE = ModelSpec(
    input_shape=(224, 224, 3),
    classes=1000,
    min_size=32,
    paper="He et al. 2016, arXiv:1603.05027",
    tags=("image", "residual", "pre-activation"),
    preprocessing=dataclasses.replace(INCEPTION, crop=0.875),
)
SMALL = dataclasses.replace(
    LIKE, input_shape=(32, 32, 3), classes=10, min_size=8, tags=(*LIKE.tags, "small"), preprocessing=INCEPTION
)
R50, R101, R152 = (3, 4, 6, 3), (3, 4, 23, 3), (3, 8, 36, 3)
BLOCK = r"stage(\d+)_block(\d+)"
TIMM = NameMapping(
    (
        ("stem", "stem.conv"),
        (rf"{BLOCK}_preact_norm", "stages.{0:-1}.blocks.{1:-1}.norm1"),
        (rf"{BLOCK}_conv(\d)", "stages.{0:-1}.blocks.{1:-1}.conv{2}"),
        (rf"{BLOCK}_conv(\d)_norm", "stages.{0:-1}.blocks.{1:-1}.norm{2:+1}"),
        (rf"{BLOCK}_shortcut", "stages.{0:-1}.blocks.{1:-1}.downsample.conv"),
        ("final_norm", "norm"),
        ("logits", "head.fc"),
    )
)
KERAS = NameMapping(
    (
        ("stem", "conv1_conv"),
        (rf"{BLOCK}_preact_norm", "conv{0:+1}_block{1}_preact_bn"),
        (rf"{BLOCK}_conv(\d)", "conv{0:+1}_block{1}_{2}_conv"),
        (rf"{BLOCK}_conv(\d)_norm", "conv{0:+1}_block{1}_{2}_bn"),
        (rf"{BLOCK}_shortcut", "conv{0:+1}_block{1}_0_conv"),
        ("final_norm", "post_bn"),
        ("logits", "predictions"),
    )
)


def imagenet_stem(x: Any, head: Head, *, slim: bool, **_: Any) -> Any:
    """A 7x7 convolution and max pooling, each at stride 2; nothing is activated before the pooling."""
    x = head.level(conv(x, 64, 7, 2, use_bias=slim, name="stem"))
    if slim:
        # Values below 0 lose to the zeros at the edge, as they did when the weights were trained.
        return keras.layers.MaxPooling2D(3, 2, name="stem_pool")(zero_border(x, name="stem_pool_pad"))
    # At stride 2 "same" would pad even sizes at the end only; every second one of all maxima is PyTorch's pooling.
    x = keras.layers.MaxPooling2D(3, 1, padding="same", name="stem_pool")(x)
    return keras.layers.MaxPooling2D(1, 2, name="stem_pool_subsample")(x)


def zero_border(x: Any, *, name: str) -> Any:
    """Put one pixel of zeros around a map.

    ONNX Runtime takes a padding layer before maximum pooling for the pooling's own, which is minus infinity.
    """
    for axis, part in ((1, "rows"), (2, "columns")):
        rest = [(0, 0), (0, 0)]
        rest[axis - 1] = (0, x.shape[axis] - 1)
        edge = keras.layers.Cropping2D(rest, name=f"{name}_{part}_edge")(x)
        edge = keras.layers.Rescaling(0.0, name=f"{name}_{part}_zeros")(edge)
        x = keras.layers.Concatenate(axis=axis, name=f"{name}_{part}")([edge, x, edge])
    return x


def small_stem(x: Any, _: Head, *, slim: bool, width: int) -> Any:
    """A 3x3 convolution for small images."""
    return conv(x, width, 3, use_bias=slim, name="stem")


@dataclasses.dataclass(frozen=True)
class Bottleneck:
    """Pre-activated 1x1, 3x3 and 1x1 convolutions beside a shortcut; four times `filters` come out.

    Args:
        activation: Keras activation of the hidden layers.
        epsilon: what is added to the variance in normalization.
        slim: the convolutions that no normalization follows have biases.
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


as_in_keras = partial(
    register, like=LIKE, stem=imagenet_stem, slim=True, epsilon=1.001e-5, name_mappings={"keras": KERAS}
)
as_in_timm = partial(register, like=LIKE, stem=imagenet_stem, name_mappings={"timm": TIMM})
keras_weights = partial(Weights, preprocessing=INCEPTION)
# Tested at 288 pixels, uncropped (arXiv:2110.00476).
timm_weights = partial(Weights, size=288, preprocessing=dataclasses.replace(INCEPTION, interpolation="bicubic"))


@as_in_keras("resnet50_v2", params=25_568_360, depths=R50, weights=(keras_weights("keras/ResNet50V2", 76.0),))
@as_in_keras("resnet101_v2", params=44_577_896, depths=R101, weights=(keras_weights("keras/ResNet101V2", 77.2),))
@as_in_keras("resnet152_v2", params=60_236_904, depths=R152, weights=(keras_weights("keras/ResNet152V2", 78.0),))
@as_in_timm("resnetv2_50", params=25_549_352, depths=R50, weights=(timm_weights("timm/resnetv2_50.a1h_in1k", 81.398),))
@as_in_timm(
    "resnetv2_101", params=44_541_480, depths=R101, weights=(timm_weights("timm/resnetv2_101.a1h_in1k", 83.002),)
)
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
    """Build a pre-activation ResNet of bottlenecks; each stage doubles the stem's channels inside its blocks.

    Args:
        x: images (n, height, width, channels).
        head: turns the last feature map, normalized and activated, into logits.
        stem: `imagenet_stem` or `small_stem`.
        depths: number of blocks of each stage.
        slim: as TensorFlow's Slim has it: the last block of a stage halves the map, not the first of the next, and
            convolutions that no normalization follows have biases.
        activation: Keras activation of the hidden layers.
        dropout: share of the pooled features dropped in training.
        epsilon: what is added to the variance in normalization.

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
            halve = i == depth and stage < len(depths) if slim else i == 1 and stage > 1
            if halve:
                head.level(x)
            x = block(x, width * 2 ** (stage - 1), 2 if halve else 1, name=f"stage{stage}_block{i}")
    x = block.normalize(x, name="final")
    return head(head.level(x), dropout)
