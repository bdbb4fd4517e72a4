"""Affine transformations of batches: one map per image, from output to input pixels."""

from __future__ import annotations

import math
from typing import Any

from training.common.sharding import draw_by_row
from training.recipe.config import AugmentConfig
from zoo.common.lazy import tf


def has_affine(config: AugmentConfig) -> bool:
    """Return whether images are transformed, other than flipped."""
    return bool(config.shift or config.rotate or config.zoom or config.pad_crop)


def random_flip(images: Any, config: AugmentConfig, seed: Any) -> Any:
    """Return images (n, height, width, channels) of any dtype, half of them flipped left to right; exact."""
    sign = _draw(config, tf.shape(images)[0], images.shape[1], images.shape[2], seed)[4]
    return tf.where((sign < 0)[:, None, None, None], tf.reverse(images, [2]), images)


def random_affine(images: Any, config: AugmentConfig, seed: Any) -> Any:
    """Return images float32 (n, height, width, channels) with random shift, rotation, zoom and flip."""
    count, height, width = tf.shape(images)[0], images.shape[1], images.shape[2]
    turn, scale, down, right, sign = _draw(config, count, height, width, seed)
    return project(
        images, centered_maps(turn, scale, down, right, sign, (height - 1) / 2, (width - 1) / 2), config.fill
    )


def project(images: Any, matrices: Any, fill: str) -> Any:
    """Return images (n, height, width, channels) transformed by maps (n, 8) from output to input pixels, bilinear."""
    return tf.raw_ops.ImageProjectiveTransformV3(
        images=images,
        transforms=matrices,
        output_shape=images.shape[1:3],
        interpolation="BILINEAR",
        fill_mode=fill.upper(),
        fill_value=0.0,
    )


def _draw(config: AugmentConfig, count: Any, height: int, width: int, seed: Any) -> list[Any]:
    """Draw radians, scale, pixels down, pixels right and the sign of x for each image, each (n,)."""
    seeds = tf.random.experimental.stateless_split(seed, 5)

    def uniform(i: int, most: float) -> Any:
        return draw_by_row(count, lambda n: tf.random.stateless_uniform([n], seeds[i], -most, most))

    turn = uniform(0, math.radians(config.rotate))
    scale = 1.0 + uniform(1, config.zoom)
    down, right = uniform(2, config.shift * height), uniform(3, config.shift * width)
    if not (config.rotate or config.zoom):
        # Whole pixels keep images sharp.
        down, right = tf.round(down), tf.round(right)
    if config.pad_crop:
        # The crop of a padded image is a shift by whole pixels.
        most = config.pad_crop
        by = draw_by_row(
            count, lambda n: tf.random.stateless_uniform([2, n], _crop_seed(seed), -most, most + 1, tf.int32), axis=1
        )
        down, right = down + tf.cast(by[0], tf.float32), right + tf.cast(by[1], tf.float32)
    sign = tf.where(uniform(4, 1.0) < 0, -1.0, 1.0) if config.flip else tf.ones([count])
    return [turn, scale, down, right, sign]


def _crop_seed(seed: Any) -> Any:
    return tf.random.experimental.stateless_fold_in(seed, 1000)


def centered_maps(turn: Any, scale: Any, down: Any, right: Any, sign: Any, y0: float, x0: float) -> Any:
    """Return maps (n, 8) from output to input pixels around the center (x0, y0), as TensorFlow defines them."""
    cos, sin = tf.cos(turn) / scale, tf.sin(turn) / scale
    a, b, c, d = sign * cos, -sign * sin, sin, cos
    return matrices(a, b, x0 - a * x0 - b * y0 + right, c, d, y0 - c * x0 - d * y0 + down)


def matrices(a: Any, b: Any, right: Any, c: Any, d: Any, down: Any) -> Any:
    """Return maps (n, 8): output (x, y) shows input (a x + b y + right, c x + d y + down); each argument is (n,)."""
    zero = tf.zeros_like(right)
    return tf.stack([a, b, right, c, d, down, zero, zero], axis=1)
