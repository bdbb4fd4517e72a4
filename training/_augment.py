"""Augmentation of whole batches in the data pipeline: one affine map an image, drawn from the step's own seed."""

from __future__ import annotations

import math
from typing import Any

from training._configs import AugmentConfig
from zoo._lazy import tf


def is_active(config: AugmentConfig) -> bool:
    """Tell whether the configuration changes any image."""
    return bool(config.flip or config.shift or config.rotate or config.zoom)


def augment(images: Any, config: AugmentConfig, seed: Any) -> Any:
    """Return images moved, turned, scaled and mirrored at random.

    Args:
        images: float32 (n, height, width, channels).
        config: what may happen, and how far.
        seed: int64 (2,); the same seed gives the same images.

    Returns:
        float32 (n, height, width, channels).
    """
    count, height, width = tf.shape(images)[0], images.shape[1], images.shape[2]
    turn, scale, down, right, mirror = _draw(config, count, height, width, seed)
    matrices = _matrices(turn, scale, down, right, mirror, (height - 1) / 2, (width - 1) / 2)
    return tf.raw_ops.ImageProjectiveTransformV3(
        images=images,
        transforms=matrices,
        output_shape=[height, width],
        interpolation="BILINEAR",
        fill_mode=config.fill.upper(),
        fill_value=0.0,
    )


def _draw(config: AugmentConfig, count: Any, height: int, width: int, seed: Any) -> list[Any]:
    """Draw radians, scale, pixels down, pixels right and the sign of x for each image, each (n,)."""
    seeds = tf.random.experimental.stateless_split(seed, 5)

    def uniform(i: int, most: float) -> Any:
        return tf.random.stateless_uniform([count], seeds[i], -most, most)

    turn = uniform(0, math.radians(config.rotate))
    scale = 1.0 + uniform(1, config.zoom)
    down, right = uniform(2, config.shift * height), uniform(3, config.shift * width)
    if not (config.rotate or config.zoom):
        # Whole pixels leave the images sharp.
        down, right = tf.round(down), tf.round(right)
    mirror = tf.where(uniform(4, 1.0) < 0, -1.0, 1.0) if config.flip else tf.ones([count])
    return [turn, scale, down, right, mirror]


def _matrices(turn: Any, scale: Any, down: Any, right: Any, mirror: Any, y0: float, x0: float) -> Any:
    """Return the map from output to input pixels around the centre (x0, y0), (n, 8) as TensorFlow wants it."""
    cos, sin = tf.cos(turn) / scale, tf.sin(turn) / scale
    a, b, c, d = mirror * cos, -mirror * sin, sin, cos
    zero = tf.zeros_like(turn)
    shift_x = x0 - a * x0 - b * y0 + right
    shift_y = y0 - c * x0 - d * y0 + down
    return tf.stack([a, b, shift_x, c, d, shift_y, zero, zero], axis=1)
