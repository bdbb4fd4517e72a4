"""Small smooth images as pixels, as the bytes of a file, and in folders of classes."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

FORMATS = {".jpg": "JPEG", ".png": "PNG", ".bmp": "BMP", ".gif": "GIF", ".webp": "WEBP"}


def noise(height=12, width=16, channels=3, seed=0):
    """Return smooth random pixels."""
    small = np.random.default_rng(seed).integers(0, 256, (4, 4, channels)).astype("uint8")
    image = Image.fromarray(small.squeeze()).resize((width, height), Image.Resampling.BICUBIC)
    return np.asarray(image).reshape(height, width, channels)


def save(path, pixels):
    """Write pixels in the format of the suffix."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels.squeeze()).save(path, FORMATS[path.suffix])


def encoded(pixels, kind="PNG"):
    """Return pixels as the bytes of a file."""
    buffer = io.BytesIO()
    Image.fromarray(pixels.squeeze()).save(buffer, kind)
    return buffer.getvalue()


def fill(root, classes=("cat", "dog"), count=10, suffixes=(".png",)):
    """Write images of different sizes into a folder for each class."""
    for number, name in enumerate(classes):
        for i in range(count):
            suffix = suffixes[i % len(suffixes)]
            save(root / name / f"{i:02d}{suffix}", noise(10 + i, 20 - i, seed=100 * number + i))
    return root
