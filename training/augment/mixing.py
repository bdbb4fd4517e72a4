"""Random erasing, mixup and CutMix, on normalized batches and their labels."""

from __future__ import annotations

import math
from typing import Any

from training.common.sharding import draw_by_row
from training.recipe.config import AugmentConfig
from zoo.common.lazy import tf

# Erased fraction of the area, ratio of height to width, and tries to fit a rectangle (torchvision).
ERASED, RATIO, TRIES = (0.02, 0.33), (0.3, 3.3), 10


def has_mixing(config: AugmentConfig) -> bool:
    """Return whether examples of a batch are mixed."""
    return bool(config.mixup or config.cutmix)


def erase(images: Any, fraction: float, seed: Any) -> Any:
    """Return normalized images float32 (n, height, width, channels), a fraction of them with a rectangle of zeros.

    Zero is the mean of the data after normalization. Zhong et al. 2020, arXiv:1708.04896, equations 1 to 3.
    """
    count, height, width = tf.shape(images)[0], images.shape[1], images.shape[2]
    numbers = draw_by_row(count, lambda n: tf.random.stateless_uniform([5, n, TRIES], seed), axis=1)
    area = height * width * _between(numbers[0], *ERASED)
    ratio = tf.exp(_between(numbers[1], math.log(RATIO[0]), math.log(RATIO[1])))
    tall, wide = tf.round(tf.sqrt(area * ratio)), tf.round(tf.sqrt(area / ratio))
    fits = (tall < height) & (wide < width)
    first = tf.argmax(fits, axis=1)
    tall, wide, y, x = (tf.gather(v, first, batch_dims=1) for v in (tall, wide, numbers[2], numbers[3]))
    top, left = tf.floor(y * (height - tall + 1)), tf.floor(x * (width - wide + 1))
    chosen = tf.reduce_any(fits, axis=1) & (numbers[4, :, 0] < fraction)
    hole = _rectangle((top, left, tall, wide), height, width) & chosen[:, None, None]
    return tf.where(hole[..., None], 0.0, images)


def mix(images: Any, labels: Any, config: AugmentConfig, seed: Any) -> tuple[Any, Any]:
    """Return a batch mixed with itself in reverse order, by mixup or CutMix, drawn for each batch.

    Args:
        images: float32 (n, height, width, channels).
        labels: float32 (n, classes), one-hot or several per row; mixed labels are weighted means, -1 (unknown) where
            one of the two is -1.
        config: alpha of each; one weight per batch, from Beta(alpha, alpha).
        seed: int64 (2,).
    """
    seeds = tf.random.experimental.stateless_split(seed, 3)
    methods = [(method, alpha) for method, alpha in ((_mixup, config.mixup), (_cutmix, config.cutmix)) if alpha]
    branches = [
        lambda method=method, alpha=alpha: method(images, beta(alpha, seeds[0]), seeds[1]) for method, alpha in methods
    ]
    drawn = tf.random.stateless_uniform([], seeds[2], 0, len(methods), tf.int32)
    mixed, weight = tf.switch_case(drawn, branches)
    others = tf.reverse(labels, [0])
    # -1 marks an unknown label of several.
    known = tf.minimum(labels, others) >= 0
    return mixed, tf.where(known, _weigh(labels, others, weight), -1.0)


def beta(alpha: float, seed: Any) -> Any:
    """Draw a scalar from Beta(alpha, alpha), in logarithms, as the gammas of a small alpha underflow."""
    seeds = tf.random.experimental.stateless_split(seed, 2)
    gammas = tf.random.stateless_gamma([2], seeds[0], alpha + 1)
    powers = tf.math.log(1.0 - tf.random.stateless_uniform([2], seeds[1])) / alpha
    logs = tf.math.log(gammas) + powers
    return tf.sigmoid(logs[0] - logs[1])


def _mixup(images: Any, weight: Any, _: Any) -> tuple[Any, Any]:
    return _weigh(images, tf.reverse(images, [0]), weight), weight


def _cutmix(images: Any, weight: Any, seed: Any) -> tuple[Any, Any]:
    """Return images with one rectangle of the reversed batch, and the fraction of the area that is their own."""
    height, width = images.shape[1], images.shape[2]
    center, side = tf.random.stateless_uniform([2], seed), tf.sqrt(1.0 - weight) / 2
    edges = []
    for i, size in enumerate((height, width)):
        middle, half = tf.floor(center[i] * size), tf.floor(side * size)
        low, high = tf.maximum(middle - half, 0.0), tf.minimum(middle + half, float(size))
        edges.append((low, high - low))
    (top, tall), (left, wide) = edges
    hole = _rectangle(tuple(v[None] for v in (top, left, tall, wide)), height, width)
    return tf.where(hole[..., None], tf.reverse(images, [0]), images), 1.0 - tall * wide / (height * width)


def _rectangle(box: tuple[Any, ...], height: int, width: int) -> Any:
    """Return masks of rectangles (top, left, height, width), each (n,), bool (n, height, width)."""
    top, left, tall, wide = (v[:, None] for v in box)
    y, x = tf.range(height, dtype=tf.float32), tf.range(width, dtype=tf.float32)
    rows, columns = (y >= top) & (y < top + tall), (x >= left) & (x < left + wide)
    return rows[:, :, None] & columns[:, None]


def _weigh(one: Any, other: Any, weight: Any) -> Any:
    return weight * one + (1.0 - weight) * other


def _between(numbers: Any, low: float, high: float) -> Any:
    return low + (high - low) * numbers
