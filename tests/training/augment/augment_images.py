"""Small photographs in batches, and what Pillow makes of them."""

from __future__ import annotations

import numpy as np
from PIL import Image

SEED = [3, 4]


def photo(seed=0, height=40, width=50, channels=3):
    """Return a smooth image with a little noise, uint8 (height, width, channels)."""
    random = np.random.default_rng(seed)
    small = Image.fromarray(random.integers(0, 256, (5, 6, channels)).astype("uint8").squeeze())
    smooth = np.asarray(small.resize((width, height), Image.Resampling.BICUBIC), "float64").reshape(height, width, -1)
    return np.clip(smooth + random.normal(0, 3, smooth.shape), 0, 255).astype("uint8")


def batch(count=4, **sizes):
    """Return a batch of such images."""
    return np.stack([photo(seed, **sizes) for seed in range(count)])


def floats(images):
    """Return images in the dtype that operations take."""
    return images.astype("float32")


def pillow(change, images):
    """Apply a function of Pillow images to each image."""
    return np.stack([np.asarray(change(Image.fromarray(image))) for image in images]).astype("float64")


def each(value, count=4):
    """Return the same value for each image of a batch."""
    return np.full(count, value, "float32")
