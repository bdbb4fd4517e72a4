"""The convolutional network of textbooks: two convolutions with pooling, then dense layers.

LeCun, Bottou, Bengio, Haffner, "Gradient-based learning applied to document recognition", Proceedings of the IEEE 86,
1998, in its current form: 3x3 kernels, ReLU, max pooling and dropout (Srivastava et al. 2014, JMLR 15:1929).
"""

from __future__ import annotations

import dataclasses
from typing import Any

from zoo.common.errors import BadOption
from zoo.common.lazy import keras
from zoo.layers.blocks import activate, check_activation, check_counts, conv, dense
from zoo.layers.heads import Head
from zoo.specs.preprocessing import SYMMETRIC, PreprocessingConfig
from zoo.specs.registry import ModelSpec, register

CNN = ModelSpec(
    input_shape=(28, 28, 1),
    classes=10,
    min_size=10,
    paper="LeCun et al. 1998, Proceedings of the IEEE 86:2278",
    tags=("image", "small"),
    preprocessing=PreprocessingConfig(std=(255.0,)),
)
COLOR = dataclasses.replace(CNN, input_shape=(32, 32, 3), preprocessing=SYMMETRIC)


@register("cnn", CNN, params=225_034)
@register("cnn_tiny", COLOR, params=79_530, widths=(16, 32), units=64)
def cnn(
    x: Any,
    head: Head,
    *,
    widths: tuple[int, ...] = (32, 64),
    units: int = 128,
    activation: str = "relu",
    dropout: float = 0.5,
) -> Any:
    """Build a plain convolutional network: 3x3 convolutions without padding, each followed by 2x2 max pooling.

    Args:
        x: images (n, height, width, channels), at least 10 pixels high and wide for two convolutions.
        head: computes logits from the dense layer (n, units).
        widths: channels of each convolution.
        units: units of the dense layer after them.
        activation: Keras activation of the hidden layers.
        dropout: fraction of the dense layer's units dropped in training.

    Returns:
        The head's output, logits (n, classes).
    """
    check_counts("widths", widths)
    check_counts("units", (units,))
    check_activation("activation", activation)
    for i, width in enumerate(widths, start=1):
        x = _conv_pool(x, width, activation, head, i)

    def neck(x: Any) -> Any:
        return dense(keras.layers.Flatten(name="flatten")(x), units, activation, name="dense1")

    return head(head.level(x), dropout, neck=neck)


def _conv_pool(x: Any, width: int, activation: str, head: Head, i: int) -> Any:
    """Convolve, activate and pool at stride 2."""
    if min(x.shape[1:3]) < 4:
        raise BadOption(
            f"Each convolution needs at least 4 pixels. Received: width={width} on {x.shape[1:3]} pixels. "
            "Use fewer widths or larger images."
        )
    x = conv(x, width, 3, padding="valid", use_bias=True, name=f"conv{i}")
    x = head.level(activate(x, activation, name=f"conv{i}"))
    return keras.layers.MaxPooling2D(2, name=f"pool{i}")(x)
