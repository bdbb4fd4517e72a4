"""Very deep convolutional networks (Simonyan and Zisserman 2014, arXiv:1409.1556).

Configurations A (11 layers with weights), B (13), D (16) and E (19) of table 1. Names with `_bn` have batch
normalization (Ioffe and Szegedy 2015, arXiv:1502.03167) after each convolution, which keeps its bias, as in torchvision
and timm.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from zoo.common.errors import BadOption
from zoo.common.lazy import keras
from zoo.layers.blocks import activate, adaptive_pool, check_activation, check_counts, conv, conv_norm, dense, drop
from zoo.layers.heads import Head
from zoo.specs.preprocessing import IMAGENET, SYMMETRIC
from zoo.specs.registry import ModelSpec, register
from zoo.weights.published.vgg import NAME_MAPPINGS, WEIGHTS

PAPER = "Simonyan and Zisserman 2014, arXiv:1409.1556"
TAGS = ("image", "plain")
VGG = ModelSpec((224, 224, 3), 1000, 32, PAPER, TAGS, IMAGENET)
SMALL = ModelSpec((32, 32, 3), 10, 8, PAPER, (*TAGS, "small"), SYMMETRIC)
# Table 1: convolutions in each stage.
A, B, D, E = (1, 1, 2, 2, 2), (2, 2, 2, 2, 2), (2, 2, 3, 3, 3), (2, 2, 4, 4, 4)


def imagenet(name: str, **options: Any) -> Callable[..., Any]:
    """Register a variant for ImageNet with its published weights."""
    return register(name, VGG, weights=WEIGHTS[name], name_mappings=NAME_MAPPINGS[name], **options)


@imagenet("vgg11", params=132_863_336, depths=A)
@imagenet("vgg13", params=133_047_848, depths=B)
@imagenet("vgg16", params=138_357_544, depths=D)
@imagenet("vgg19", params=143_667_240, depths=E)
@imagenet("vgg11_bn", params=132_868_840, depths=A, batch_norm=True)
@imagenet("vgg13_bn", params=133_053_736, depths=B, batch_norm=True)
@imagenet("vgg16_bn", params=138_365_992, depths=D, batch_norm=True)
@imagenet("vgg19_bn", params=143_678_248, depths=E, batch_norm=True)
@register("vgg_tiny", SMALL, params=111_210, depths=(1, 1, 2), width=16, classifier=(2, 128, 128))
@register("vgg_bn_tiny", SMALL, params=111_562, depths=(1, 1, 2), width=16, classifier=(2, 128, 128), batch_norm=True)
def vgg(
    x: Any,
    head: Head,
    *,
    depths: tuple[int, ...],
    width: int = 64,
    batch_norm: bool = False,
    classifier: tuple[int, ...] = (7, 4096, 4096),
    activation: str = "relu",
    dropout: float = 0.5,
) -> Any:
    """Build a VGG: stages of 3x3 convolutions, each followed by 2x2 max pooling, then dense layers.

    Args:
        x: images (n, height, width, channels), at least 2 ** len(depths) pixels high and wide.
        head: computes logits from the last dense layer (n, classifier[-1]).
        depths: number of convolutions in each stage.
        width: channels of the first stage; they double from stage to stage, up to 8 * width.
        batch_norm: add batch normalization after each convolution.
        classifier: height and width of the pooled last map, then the units of each dense layer.
        activation: Keras activation of the hidden layers.
        dropout: fraction of the units dropped after each dense layer in training.

    Returns:
        The head's output, logits (n, classes).
    """
    check_counts("width", (width,))
    check_depths(depths, min(x.shape[1:3]))
    check_activation("activation", activation)
    check_classifier(classifier)
    for stage, depth in enumerate(depths, start=1):
        for i in range(1, depth + 1):
            x = _conv(x, width * min(2 ** (stage - 1), 8), activation, batch_norm, name=f"stage{stage}_conv{i}")
        x = keras.layers.MaxPooling2D(2, name=f"stage{stage}_pool")(head.level(x))
    return head(head.level(x), dropout, neck=lambda x: _dense_layers(x, classifier, activation, dropout))


def _conv(x: Any, filters: int, activation: str, batch_norm: bool, *, name: str) -> Any:
    """Convolve 3x3 with biases, normalize if `batch_norm`, and activate."""
    if batch_norm:
        return conv_norm(x, filters, 3, use_bias=True, activation=activation, name=name)
    return activate(conv(x, filters, 3, use_bias=True, name=name), activation, name=name)


def _dense_layers(x: Any, classifier: tuple[int, ...], activation: str, dropout: float) -> Any:
    """Apply the dense layers from fc6 on; the head applies the dropout after the last one."""
    size, *units = classifier
    x = keras.layers.Flatten(name="flatten")(adaptive_pool(x, size, name="grid"))
    for i, width in enumerate(units, start=6):
        x = drop(x, dropout if i > 6 else 0.0, name=f"fc{i}_dropout")
        x = dense(x, width, activation, name=f"fc{i}")
    return x


def check_depths(depths: tuple[int, ...], size: int) -> None:
    """Raise BadOption unless each stage has a convolution and a map of at least 2x2 pixels to pool."""
    if not check_counts("depths", depths) or size < 2 ** len(depths):
        raise BadOption(
            f"depths must have at least one stage, and each stage halves the {size} pixels. Received: depths={depths}"
        )


def check_classifier(classifier: tuple[int, ...]) -> None:
    """Raise BadOption unless there is a size, and it and the units of each layer are at least 1."""
    if not check_counts("classifier", classifier):
        raise BadOption(
            "classifier must start with the size of the pooled map. Received: classifier=(). Pass (7, 4096, 4096)."
        )
