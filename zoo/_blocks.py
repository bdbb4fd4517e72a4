"""What two or more families share: the convolution with its normalization, and the head."""

from __future__ import annotations

import dataclasses
from typing import Any

from zoo._errors import BadOption, did_you_mean
from zoo._lazy import keras, layers


def conv(x: Any, filters: int, size: int, stride: int = 1, *, name: str, bias: bool = False) -> Any:
    """Convolve with He initialization (arXiv:1502.01852), padding by size // 2 on every side.

    Strided "same" convolutions of TensorFlow pad unevenly; the published networks do not, and their weights
    expect it so.
    """
    padding = "same"
    if stride > 1 and size > 1:
        x = keras.layers.ZeroPadding2D(size // 2, name=f"{name}_pad")(x)
        padding = "valid"
    return layers.Conv2D(
        filters,
        size,
        strides=stride,
        padding=padding,
        use_bias=bias,
        kernel_initializer=keras.initializers.VarianceScaling(2.0, "fan_out", "untruncated_normal"),
        name=name,
    )(x)


def norm(x: Any, *, name: str, zero: bool = False) -> Any:
    """Normalize over the batch; with `zero` the scale starts at 0, so that a residual branch starts as nothing."""
    return layers.BatchNormalization(
        momentum=0.9, epsilon=1e-5, gamma_initializer="zeros" if zero else "ones", name=name
    )(x)


def conv_norm(
    x: Any, filters: int, size: int, stride: int = 1, *, name: str, activation: str | None = "relu", zero: bool = False
) -> Any:
    """Convolve, normalize and, unless `activation` is None, activate."""
    x = norm(conv(x, filters, size, stride, name=name), name=f"{name}_norm", zero=zero)
    return x if activation is None else keras.layers.Activation(activation, name=f"{name}_{activation}")(x)


@dataclasses.dataclass(frozen=True)
class Head:
    """What follows the feature map: pooling, dropout, logits and an activation.

    Args:
        classes: number of logits; 0 returns the pooled features.
        include_top: False returns the feature map as it is.
        activation: a Keras activation after the logits, such as "softmax"; None returns logits.
        dropout: share of pooled features dropped in training.
    """

    classes: int
    include_top: bool = True
    activation: str | None = None
    dropout: float = 0.0

    def __call__(self, x: Any, dropout: float | None = None) -> Any:
        """Return float32 logits (n, classes) of a feature map (n, h, w, c) or features (n, c)."""
        rate = check_rate(self.dropout if dropout is None else dropout)
        if not self.include_top:
            return x
        if len(x.shape) > 2:
            x = keras.layers.GlobalAveragePooling2D(name="pool")(x)
        x = drop(x, rate, name="head_dropout")
        return self.logits(x) if self.classes else x

    def logits(self, x: Any) -> Any:
        """Return the last dense layer, in float32 whatever the precision before it."""
        x = keras.layers.Dense(self.classes, dtype="float32", name="logits")(x)
        if self.activation is None:
            return x
        return keras.layers.Activation(self.activation, dtype="float32", name="scores")(x)


def drop(x: Any, rate: float, *, name: str) -> Any:
    """Drop a share of the features in training; nothing at all where the rate is 0."""
    return keras.layers.Dropout(rate, name=name)(x) if check_rate(rate) else x


def check_rate(rate: float) -> float:
    """Return a rate of dropout, or raise BadOption."""
    if not 0 <= rate < 1:
        raise BadOption(f"dropout must be at least 0 and below 1. Received: dropout={rate}")
    return rate


def check_activation(name: str, activation: str) -> str:
    """Return the name of a Keras activation, or raise BadOption for the option `name`."""
    known = [n for n in dir(keras.activations) if n[0].islower() and n not in ("deserialize", "get", "serialize")]
    if activation not in known:
        raise BadOption(
            f"{name} must be one of Keras' activations. Received: {name}={activation!r}. "
            f"{did_you_mean(activation, known)}"
        )
    return activation


def check_counts(name: str, counts: tuple[int, ...]) -> tuple[int, ...]:
    """Return numbers of layers or channels, or raise BadOption if one is less than 1."""
    if any(count < 1 for count in counts):
        raise BadOption(f"{name} must be at least 1 everywhere. Received: {name}={counts}")
    return counts
