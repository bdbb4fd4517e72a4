"""Images as encoded bytes, for signatures that decode, resize and crop them."""

from __future__ import annotations

import io
from typing import Any

from zoo.common.lazy import np


def with_frame(image: Any, crop: float) -> Any:
    """Return an image (height, width, channels) in a frame that resizing to size / crop and cropping remove again."""
    sizes = [(round(size / crop), size) for size in image.shape[:2]]
    frame = [((whole - size) // 2, whole - size - (whole - size) // 2) for whole, size in sizes]
    return np.pad(image, [*frame, (0, 0)], mode="edge")


def encode_png(image: Any) -> bytes:
    """Return pixels (height, width, 1, 3 or 4) in [0, 255] as a lossless PNG."""
    from PIL import Image

    file = io.BytesIO()
    pixels = image.astype("uint8")
    Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels).save(file, "PNG")
    return file.getvalue()
