"""Very deep convolutional networks (Simonyan and Zisserman 2014, arXiv:1409.1556).

Configurations A (11 layers with weights), B (13), D (16) and E (19) of table 1. Those with `_bn` normalize after each
convolution (Ioffe and Szegedy 2015, arXiv:1502.03167), whose biases stay, as in torchvision and timm.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from zoo.common.errors import BadOption
from zoo.common.lazy import keras
from zoo.layers.blocks import activate, adaptive_pool, check_activation, check_counts, conv, conv_norm, dense, drop
from zoo.layers.heads import Head
from zoo.specs.preprocessing import IMAGENET, PreprocessingConfig
from zoo.specs.published import NameMapping, Weights
from zoo.specs.registry import ModelSpec, register

PAPER = "Simonyan and Zisserman 2014, arXiv:1409.1556"
TAGS = ("image", "plain")
LIKE = ModelSpec((224, 224, 3), 1000, 32, PAPER, TAGS, IMAGENET)
SMALL = ModelSpec((32, 32, 3), 10, 8, PAPER, (*TAGS, "small"), PreprocessingConfig((127.5,), (127.5,)))
# Keras' weights are the authors' own: blue first, and the mean subtracted.
CAFFE = PreprocessingConfig((123.68, 116.779, 103.939), (1.0,))

A, B, D, E = (1, 1, 2, 2, 2), (2, 2, 2, 2, 2), (2, 2, 3, 3, 3), (2, 2, 4, 4, 4)


def name_mappings(depths: tuple[int, ...], batch_norm: bool) -> dict[str, NameMapping]:
    """Return the names of other libraries: PyTorch's number every layer, pooling and ReLU too, Keras' are like ours."""
    features, number = [], 0
    for stage, depth in enumerate(depths, start=1):
        for i in range(1, depth + 1):
            features.append((f"stage{stage}_conv{i}", f"features.{number}"))
            features.append((f"stage{stage}_conv{i}_norm", f"features.{number + 1}"))
            number += 3 if batch_norm else 2
        number += 1
    torchvision = (("fc6", "classifier.0"), ("fc7", "classifier.3"), ("logits", "classifier.6"))
    timm = (("fc([67])", "pre_logits.fc{0:-5}"), ("logits", "head.fc"))
    keras_ = (("stage(.)_conv(.)", "block{0}_conv{1}"), ("fc([67])", "fc{0:-5}"), ("logits", "predictions"))
    return {
        "torchvision": NameMapping((*features, *torchvision)),
        "timm": NameMapping((*features, *timm)),
        "keras": NameMapping(keras_),
    }


def variant(
    name: str, params: int, depths: tuple[int, ...], *weights: Weights, batch_norm: bool = False
) -> Callable[..., Any]:
    """Register one of the ImageNet networks."""
    names = name_mappings(depths, batch_norm)
    return register(
        name, LIKE, params=params, weights=weights, name_mappings=names, depths=depths, batch_norm=batch_norm
    )


def keras_weights(name: str, top1: float) -> Weights:
    """Return the entry of keras.applications."""
    return Weights(f"keras/{name}", top1, preprocessing=CAFFE, bgr=True)


@variant("vgg11", 132_863_336, A, Weights("timm/vgg11.tv_in1k", 69.022))
@variant("vgg13", 133_047_848, B, Weights("timm/vgg13.tv_in1k", 69.932))
@variant("vgg16", 138_357_544, D, Weights("timm/vgg16.tv_in1k", 71.592), keras_weights("VGG16", 71.3))
@variant("vgg19", 143_667_240, E, Weights("timm/vgg19.tv_in1k", 72.378), keras_weights("VGG19", 71.3))
@variant("vgg11_bn", 132_868_840, A, Weights("timm/vgg11_bn.tv_in1k", 70.382), batch_norm=True)
@variant("vgg13_bn", 133_053_736, B, Weights("timm/vgg13_bn.tv_in1k", 71.588), batch_norm=True)
@variant("vgg16_bn", 138_365_992, D, Weights("timm/vgg16_bn.tv_in1k", 73.370), batch_norm=True)
@variant("vgg19_bn", 143_678_248, E, Weights("timm/vgg19_bn.tv_in1k", 74.216), batch_norm=True)
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
    """Build a VGG network: stages of 3x3 convolutions, each halved by maximum pooling, then dense layers.

    Args:
        x: images (n, height, width, channels), at least 2 ** len(depths) pixels high and wide.
        head: turns the last dense layer (n, classifier[-1]) into logits.
        depths: number of convolutions of each stage.
        width: channels of the first stage; they double from stage to stage up to 8 times as many.
        batch_norm: normalize after each convolution.
        classifier: height and width that the last map is averaged to, then the units of each dense layer.
        activation: Keras activation of the hidden layers.
        dropout: share of the units dropped after each dense layer in training.

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
    """Convolve 3x3 with biases, normalize where asked, activate."""
    if batch_norm:
        return conv_norm(x, filters, 3, use_bias=True, activation=activation, name=name)
    return activate(conv(x, filters, 3, use_bias=True, name=name), activation, name=name)


def _dense_layers(x: Any, classifier: tuple[int, ...], activation: str, dropout: float) -> Any:
    """Turn the last map into features by dense layers from fc6 on; the head drops those of the last one."""
    size, *units = classifier
    x = keras.layers.Flatten(name="flatten")(adaptive_pool(x, size, name="grid"))
    for i, width in enumerate(units, start=6):
        x = drop(x, dropout if i > 6 else 0.0, name=f"fc{i}_dropout")
        x = dense(x, width, activation, name=f"fc{i}")
    return x


def check_depths(depths: tuple[int, ...], size: int) -> None:
    """Raise BadOption unless there are stages, each of at least one convolution and a map that can be halved."""
    if not check_counts("depths", depths) or size < 2 ** len(depths):
        raise BadOption(f"depths must suit {size} pixels, which each stage halves. Received: depths={depths}")


def check_classifier(classifier: tuple[int, ...]) -> None:
    """Raise BadOption unless there is a size of at least 1, and units of at least 1 for each layer."""
    if not check_counts("classifier", classifier):
        raise BadOption("classifier must begin with a height and width. Received: classifier=(). Give (7, 4096, 4096).")
