"""Blocks that several families share: convolutions with normalization, dense layers, pooling; and option checks."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any

from zoo.common.errors import BadOption, did_you_mean
from zoo.common.lazy import keras
from zoo.layers.lazy import layers

# He initialization (arXiv:1502.01852), uniform: as accurate as the normal one and three times as fast to draw. Scaling
# by the output channels preserves the variance of gradients; scaling by the input channels that of feature maps, which
# models with thin branches and concatenations need.
HE = (2.0, "fan_out", "uniform")
HE_IN = (2.0, "fan_in", "uniform")
# Glorot and Bengio 2010, the default of Keras' dense layers.
GLOROT = (1.0, "fan_avg", "uniform")


def conv(
    x: Any,
    filters: int,
    size: int | tuple[int, int],
    stride: int = 1,
    *,
    name: str,
    padding: str = "even",
    kernel: tuple[float, str, str] = HE,
    **options: Any,
) -> Any:
    """Convolve.

    TensorFlow's strided "same" convolutions pad unevenly; most published models and their weights pad evenly.

    Args:
        x: feature map (n, h, w, c).
        filters: output channels.
        size: height and width of the kernel.
        stride: pixels between output positions.
        name: the layer's name.
        padding: "even" for size // 2 on every side, or "same" or "valid" of Keras.
        kernel: scale, mode and distribution of the initial kernel.
        **options: options of keras.layers.Conv2D, such as groups; use_bias is False by default.
    """
    x, padding = _padded(x, size, stride, padding, name)
    options = {"use_bias": False, "kernel_initializer": layers.VarianceScaling(*kernel), **options}
    return layers.Conv2D(filters, size, strides=stride, padding=padding, name=name, **options)(x)


def depthwise(x: Any, size: int, stride: int = 1, *, name: str, padding: str = "even", use_bias: bool = False) -> Any:
    """Convolve each channel separately; padding as in `conv`."""
    x, padding = _padded(x, size, stride, padding, name)
    return layers.DepthwiseConv2D(
        size,
        strides=stride,
        padding=padding,
        use_bias=use_bias,
        depthwise_initializer=layers.VarianceScaling(*HE),
        name=name,
    )(x)


def _padded(x: Any, size: int | tuple[int, int], stride: int, padding: str, name: str) -> tuple[Any, str]:
    """Return the tensor to convolve and Keras' padding."""
    if padding != "even":
        return x, padding
    if stride == 1 or size == 1:
        return x, "same"
    return keras.layers.ZeroPadding2D(size // 2, name=f"{name}_pad")(x), "valid"


def norm(x: Any, *, name: str, zero: bool = False, epsilon: float = 1e-5, momentum: float = 0.9) -> Any:
    """Normalize over the batch; with `zero` the scale starts at 0, so that a residual branch starts as zeros."""
    if not epsilon > 0:
        raise BadOption(f"epsilon must be above 0. Received: epsilon={epsilon}")
    return layers.BatchNormalization(
        momentum=momentum, epsilon=epsilon, gamma_initializer="zeros" if zero else "ones", name=name
    )(x)


def conv_norm(
    x: Any,
    filters: int,
    size: int | tuple[int, int],
    stride: int = 1,
    *,
    name: str,
    activation: str | None = "relu",
    norm: Callable[..., Any] = norm,
    **convolution: Any,
) -> Any:
    """Convolve, normalize and, unless `activation` is None, activate; the layers are NAME, NAME_norm and NAME_relu."""
    x = norm(conv(x, filters, size, stride, name=name, **convolution), name=f"{name}_norm")
    return activate(x, activation, name=name)


@dataclasses.dataclass(frozen=True)
class ScaledConv:
    """Convolutions with `width` times the filters of a paper, normalized and activated, as in the Inception families.

    Args:
        width: channel multiplier.
        activation: Keras activation.
        strided: padding of strided convolutions, as in `conv`.
    """

    width: float
    activation: str
    strided: str = "even"

    def __post_init__(self) -> None:
        check_activation("activation", self.activation)
        check_factor("width", self.width)

    def scale(self, channels: int) -> int:
        """Return `width` times a number of channels, at least 1."""
        return max(1, round(self.width * channels))

    def __call__(self, x: Any, filters: int, size: int | tuple[int, int], stride: int = 1, **more: Any) -> Any:
        """Convolve, normalize and activate; see `conv_norm`."""
        options = {"padding": self.strided} if stride > 1 else {}
        options |= {"norm": partial(norm, epsilon=1e-3), "kernel": HE_IN, "activation": self.activation}
        return conv_norm(x, self.scale(filters), size, stride, **options, **more)


def depthwise_norm(
    x: Any,
    size: int,
    stride: int = 1,
    *,
    name: str,
    activation: str | None = "relu",
    norm: Callable[..., Any] = norm,
    padding: str = "even",
) -> Any:
    """Convolve each channel separately, normalize and, unless `activation` is None, activate."""
    x = norm(depthwise(x, size, stride, name=name, padding=padding), name=f"{name}_norm")
    return activate(x, activation, name=name)


def activate(x: Any, activation: str | None, *, name: str) -> Any:
    """Activate in a layer named NAME_ACTIVATION; None returns the input."""
    return x if activation is None else layers.Activation(activation, name=f"{name}_{activation}")(x)


def dense(
    x: Any,
    units: int,
    activation: str | None = None,
    *,
    name: str,
    dtype: str | None = None,
    regularizer: Any = None,
    drop_connect: float = 0.0,
    use_bias: bool = True,
) -> Any:
    """Apply a dense layer with Keras' default initializer and, unless `activation` is None, activate in it."""
    options = {
        "use_bias": use_bias,
        "kernel_initializer": layers.VarianceScaling(*GLOROT),
        "kernel_regularizer": regularizer,
        "dtype": dtype,
        "name": name,
    }
    if drop_connect:
        return layers.DropConnectDense(units, activation, drop_connect=drop_connect, **options)(x)
    return layers.Dense(units, activation, **options)(x)


def adaptive_pool(x: Any, size: int, *, name: str) -> Any:
    """Average (n, h, w, c) to (n, size, size, c) over the windows of PyTorch's adaptive average pooling."""
    for axis in (0, 1):
        x = _adapt(x, size, axis, name)
    return x


def _adapt(x: Any, size: int, axis: int, name: str) -> Any:
    """Pool one axis: rows for 0, columns for 1."""
    length, name = x.shape[axis + 1], f"{name}_{'rows' if axis == 0 else 'columns'}"
    if length == size:
        return x
    if length % size == 0:
        return keras.layers.AveragePooling2D(_on(axis, length // size, 1), name=name)(x)
    windows = []
    for i in range(size):
        start, stop = i * length // size, -(-(i + 1) * length // size)
        cut = keras.layers.Cropping2D(_on(axis, (start, length - stop), (0, 0)), name=f"{name}{i}_crop")(x)
        windows.append(keras.layers.AveragePooling2D(_on(axis, stop - start, 1), name=f"{name}{i}")(cut))
    return keras.layers.Concatenate(axis=axis + 1, name=name)(windows)


def _on(axis: int, value: Any, other: Any) -> tuple[Any, Any]:
    """Return (for rows, for columns) with `value` on one axis and `other` on the other."""
    return (value, other) if axis == 0 else (other, value)


def drop(x: Any, rate: float, *, name: str) -> Any:
    """Drop a fraction of the features in training; return the input if the rate is 0."""
    return keras.layers.Dropout(rate, name=name)(x) if check_rate(rate) else x


def drop_path(x: Any, rate: float, *, name: str) -> Any:
    """Drop the whole branch for a fraction of the examples in training (stochastic depth, arXiv:1603.09382)."""
    if not check_rate(rate, "drop_path"):
        return x
    return keras.layers.Dropout(rate, noise_shape=(None,) + (1,) * (len(x.shape) - 1), name=name)(x)


def divisible(channels: float) -> int:
    """Return the nearest multiple of 8, or the next one if the nearest removes over a tenth of the channels."""
    nearest = max(8, int(channels + 4) // 8 * 8)
    return nearest if nearest >= 0.9 * channels else nearest + 8


def check_rate(rate: float, name: str = "dropout") -> float:
    """Return a checked dropout rate, or raise BadOption for the option `name`."""
    if not 0 <= rate < 1:
        raise BadOption(f"{name} must be at least 0 and below 1. Received: {name}={rate}")
    return rate


def check_activation(name: str, activation: str, extra: tuple[str, ...] = ()) -> str:
    """Return the checked name of a Keras activation or one of `extra`, or raise BadOption for the option `name`."""
    known = [n for n in dir(keras.activations) if n[0].islower() and n not in ("deserialize", "get", "serialize")]
    known += extra
    if activation not in known:
        raise BadOption(
            f"{name} must be a Keras activation. Received: {name}={activation!r}. {did_you_mean(activation, known)}"
        )
    return activation


def check_factor(name: str, value: float) -> float:
    """Return a checked channel multiplier, or raise BadOption for the option `name`."""
    if not 0 < value < float("inf"):
        raise BadOption(f"{name} must be above 0 and finite. Received: {name}={value}")
    return value


def check_depths(depths: tuple[int, ...], most: tuple[int, ...]) -> tuple[int, ...]:
    """Return the checked numbers of blocks per stage, each from 1 to `most`, or raise BadOption."""
    if len(check_counts("depths", depths)) != len(most) or any(map(int.__gt__, depths, most)):
        raise BadOption(f"depths must be {len(most)} numbers, at most {most}. Received: depths={depths}")
    return depths


def check_counts(name: str, counts: tuple[int, ...]) -> tuple[int, ...]:
    """Return checked numbers of layers or channels, each at least 1, or raise BadOption."""
    if any(count < 1 for count in counts):
        raise BadOption(f"{name} must be at least 1 everywhere. Received: {name}={counts}")
    return counts
