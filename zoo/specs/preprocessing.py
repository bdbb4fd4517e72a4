"""The preprocessing config: how raw values become the inputs of a model. Pure data, no framework."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from zoo.common.errors import BadOption, did_you_mean
from zoo.reading.json_files import parse_json

INTERPOLATIONS = ("nearest", "bilinear", "bicubic", "area", "lanczos3")
CHANNEL_ORDERS = ("rgb", "bgr")
# Bits of a channel of the deepest images.
FULL = 16


@dataclasses.dataclass(frozen=True)
class PreprocessingConfig:
    """Preprocessing, defined once with the data, applied in training and included in every artifact.

    An encoded image is decoded, composited over `background` where it is transparent, its shorter side resized to
    `size / crop`, and cropped at the center; then every value x becomes (x - mean) / std in float32.

    Args:
        mean: subtracted from raw values, one for all channels or one per channel in the order R, G, B, in raw units
            (pixels: 0 to 255).
        std: divides the difference, like `mean`.
        interpolation: resizing method, one of `INTERPOLATIONS`.
        crop: fraction of the resized shorter side that the center crop keeps, above 0 and up to 1.
        channel_order: order in which the first layer of a weights file takes the channels, "rgb" or "bgr". A loaded
            model always takes RGB: loading reverses the first kernel of weights for BGR.
        background: color under transparent pixels, 0 to 255, one for all channels or one per channel.
        bits: bits that are used of images with 16 bits in a channel, 8 to 16: cameras often use 12. A value v becomes
            255 v / (2^bits - 1).
    """

    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    interpolation: str = "bilinear"
    crop: float = 1.0
    channel_order: str = "rgb"
    background: tuple[float, ...] = (255.0,)
    bits: int = FULL

    def __post_init__(self) -> None:
        for name in ("mean", "std", "background"):
            object.__setattr__(self, name, _numbers(name, getattr(self, name)))
        if not self.std or any(s <= 0 for s in self.std):
            raise BadOption(f"preprocessing.std must be numbers above 0. Received: std={self.std}")
        if not self.mean or (len(self.mean) != len(self.std) and 1 not in (len(self.mean), len(self.std))):
            raise BadOption(
                "preprocessing.mean and std must have one number for all channels or one per channel. "
                f"Received: mean={self.mean}, std={self.std}"
            )
        if not self.background or not all(0 <= value <= 255 for value in self.background):
            raise BadOption(
                "preprocessing.background must have one number for all channels or one per channel, from 0 to 255. "
                f"Received: background={self.background}"
            )
        if isinstance(self.crop, bool) or not isinstance(self.crop, (int, float)) or not 0 < self.crop <= 1:
            raise BadOption(f"preprocessing.crop must be above 0 and at most 1. Received: crop={self.crop!r}")
        if isinstance(self.bits, bool) or not isinstance(self.bits, int) or not 8 <= self.bits <= FULL:
            raise BadOption(f"preprocessing.bits must be a whole number from 8 to {FULL}. Received: bits={self.bits!r}")
        _check_choice("interpolation", self.interpolation, INTERPOLATIONS)
        _check_choice("channel_order", self.channel_order, CHANNEL_ORDERS)

    def check(self, channels: int) -> None:
        """Raise BadOption if `mean`, `std` or `background` has neither 1 nor `channels` numbers."""
        values = {"mean": self.mean, "std": self.std, "background": self.background}
        for name, numbers in values.items():
            if len(numbers) not in (1, channels):
                wanted = "1 number" if channels == 1 else f"1 or {channels} numbers"
                raise BadOption(
                    f"preprocessing.{name} must have {wanted} for data of {channels} channels. "
                    f"Received: {name}={numbers}"
                )

    def affine(self) -> tuple[list[float], list[float]]:
        """Return (scale, offset), by channel or for all: (x - mean) / std is x * scale + offset."""
        size = max(len(self.mean), len(self.std))
        means, stds = self.mean * (size // len(self.mean)), self.std * (size // len(self.std))
        return [1.0 / s for s in stds], [-m / s for m, s in zip(means, stds, strict=True)]

    def to_json(self) -> dict[str, Any]:
        """Return the config as JSON-safe values; `bits` only where not all are used."""
        values = dataclasses.asdict(self) | {name: list(getattr(self, name)) for name in ("mean", "std", "background")}
        return {name: value for name, value in values.items() if name != "bits" or value != FULL}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> PreprocessingConfig:
        """Return the config of `to_json` values; missing keys have their defaults.

        Raises:
            BadOption: an unknown key, or a value that is out of range.
        """
        known = [field.name for field in dataclasses.fields(cls)]
        for name in values:
            if name not in known:
                raise BadOption(
                    f"preprocessing has no such key. Received: {str(name)!r}. {did_you_mean(str(name), known)}"
                )
        return cls(**values)


def _numbers(name: str, value: Any) -> tuple[float, ...]:
    """Return one or more finite numbers as a tuple, or raise BadOption."""
    given = tuple(value) if isinstance(value, (list, tuple)) else (value,)
    plain = all(isinstance(number, (int, float)) and not isinstance(number, bool) for number in given)
    if not plain or not all(map(math.isfinite, given)):
        raise BadOption(f"preprocessing.{name} must be finite numbers. Received: {name}={value!r}")
    return tuple(map(float, given))


def _check_choice(name: str, value: Any, choices: tuple[str, ...]) -> None:
    """Raise BadOption unless a value is one of the choices."""
    if value not in choices:
        raise BadOption(f"preprocessing.{name} must be one of {', '.join(choices)}. Received: {name}={value!r}")


# Mean and standard deviation of ImageNet's training pixels, as published by torchvision and timm, in pixel units.
IMAGENET = PreprocessingConfig(
    mean=(123.675, 116.28, 103.53), std=(58.395, 57.12, 57.375), interpolation="bilinear", crop=0.875
)
IMAGENET_BICUBIC = dataclasses.replace(IMAGENET, interpolation="bicubic")
# Pixels scaled to [-1, 1]: "tf" in keras.applications, IMAGENET_INCEPTION_MEAN in timm.
SYMMETRIC = PreprocessingConfig(mean=(127.5,), std=(127.5,))
# "caffe" in keras.applications, which converted the authors' weights: BGR pixels minus the mean.
CAFFE = PreprocessingConfig(mean=(123.68, 116.779, 103.939), channel_order="bgr")
RAW = PreprocessingConfig()
UNIT = PreprocessingConfig(std=(255.0,))
PRESETS: dict[str, PreprocessingConfig] = {
    "imagenet": IMAGENET,
    "symmetric": SYMMETRIC,
    "tf": SYMMETRIC,
    "caffe": CAFFE,
    "raw": RAW,
    "unit": UNIT,
}


def parse_preprocessing(value: Any) -> PreprocessingConfig:
    """Return the preprocessing config that a user states.

    Args:
        value: a config, the name of one of `PRESETS`, or its keys as a dictionary or JSON text.

    Raises:
        BadOption: neither of these, or a value that is out of range.
    """
    if isinstance(value, PreprocessingConfig):
        return value
    if isinstance(value, str) and value in PRESETS:
        return PRESETS[value]
    content = _decoded(value) if isinstance(value, str) else value
    if not isinstance(content, Mapping):
        raise BadOption(
            f"preprocessing must be one of {', '.join(PRESETS)}, or JSON such as "
            f'{{"mean": [127.5], "std": [127.5]}}. Received: preprocessing={value!r}'
        )
    return PreprocessingConfig.from_json(content)


def _decoded(text: str) -> Any:
    """Return the content of JSON text; None if it is none."""
    try:
        return parse_json(text)
    except ValueError:
        return None
