"""The preprocessing config: how raw values become the inputs of a model. Pure data, no framework."""

from __future__ import annotations

import dataclasses
from typing import Any

from zoo.common.errors import BadOption

INTERPOLATIONS = ("nearest", "bilinear", "bicubic", "area", "lanczos3")


@dataclasses.dataclass(frozen=True)
class PreprocessingConfig:
    """Preprocessing, defined once with the data, applied in training and included in every artifact.

    An encoded image is decoded, its shorter side resized to `size / crop`, and cropped at the center; then every value
    x becomes (x - mean) / std in float32.

    Args:
        mean: subtracted from raw values, one for all channels or one per channel, in raw units (pixels: 0 to 255).
        std: divides the difference, like `mean`.
        interpolation: resizing method, one of `INTERPOLATIONS`.
        crop: fraction of the resized shorter side that the center crop keeps, above 0 and up to 1.
    """

    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    interpolation: str = "bilinear"
    crop: float = 1.0

    def __post_init__(self) -> None:
        if not self.std or any(s <= 0 for s in self.std):
            raise BadOption(f"preprocessing.std must be numbers above 0. Received: std={self.std}")
        if not self.mean or (len(self.mean) != len(self.std) and 1 not in (len(self.mean), len(self.std))):
            raise BadOption(
                "preprocessing.mean and std must have one number for all channels or one per channel. "
                f"Received: mean={self.mean}, std={self.std}"
            )
        if not 0 < self.crop <= 1:
            raise BadOption(f"preprocessing.crop must be above 0 and at most 1. Received: crop={self.crop}")
        if self.interpolation not in INTERPOLATIONS:
            raise BadOption(
                f"preprocessing.interpolation must be one of {', '.join(INTERPOLATIONS)}. "
                f"Received: interpolation={self.interpolation!r}"
            )

    def check(self, channels: int) -> None:
        """Raise BadOption if `mean` or `std` has neither 1 nor `channels` numbers."""
        for name, values in (("mean", self.mean), ("std", self.std)):
            if len(values) not in (1, channels):
                wanted = "1 number" if channels == 1 else f"1 or {channels} numbers"
                raise BadOption(
                    f"preprocessing.{name} must have {wanted} for data of {channels} channels. "
                    f"Received: {name}={values}"
                )

    def affine(self) -> tuple[list[float], list[float]]:
        """Return (scale, offset), by channel or for all: (x - mean) / std is x * scale + offset."""
        size = max(len(self.mean), len(self.std))
        means, stds = self.mean * (size // len(self.mean)), self.std * (size // len(self.std))
        return [1.0 / s for s in stds], [-m / s for m, s in zip(means, stds, strict=True)]

    def to_json(self) -> dict[str, Any]:
        """Return the config as JSON-safe values."""
        return dataclasses.asdict(self) | {"mean": list(self.mean), "std": list(self.std)}


# Mean and standard deviation of ImageNet's training pixels, as published by torchvision and timm, in pixel units.
IMAGENET = PreprocessingConfig(
    mean=(123.675, 116.28, 103.53), std=(58.395, 57.12, 57.375), interpolation="bilinear", crop=0.875
)
IMAGENET_BICUBIC = dataclasses.replace(IMAGENET, interpolation="bicubic")
# Pixels scaled to [-1, 1]: "tf" in keras.applications, IMAGENET_INCEPTION_MEAN in timm.
SYMMETRIC = PreprocessingConfig(mean=(127.5,), std=(127.5,))
