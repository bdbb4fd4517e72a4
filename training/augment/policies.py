"""RandAugment and TrivialAugment: random operations for each image, with torchvision's operations and ranges.

Each operation runs on the images of a batch that drew it.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

from training.augment.affine import centered_maps, matrices, project
from training.augment.color import (
    autocontrast,
    brightness,
    contrast,
    equalize,
    posterize,
    saturation,
    sharpness,
    solarize,
)
from training.common.sharding import draw_by_row
from training.recipe.config import AugmentConfig
from zoo.common.lazy import tf


@dataclasses.dataclass(frozen=True)
class Ranges:
    """Magnitudes of the operations at full strength.

    Args:
        shear: tangent of the angle.
        across: translation, as a fraction of the side.
        pixels: additional translation, pixels.
        turn: rotation, degrees.
        blend: deviation of the factors of brightness, color, contrast and sharpness from 1.
        bits: bits of 8 that posterization removes.
    """

    shear: float
    across: float
    pixels: float
    turn: float
    blend: float
    bits: float


RAND = Ranges(0.3, 150 / 331, 0, 30, 0.9, 4)
WIDE = Ranges(0.99, 0, 32, 135, 0.99, 6)
# Levels of strength in TrivialAugment, from none to full.
BINS = 31

# An operation takes images, strengths (n,) from -1 to 1 of full strength, the ranges, and the fill mode.
Operation = Callable[[Any, Any, Ranges, str], Any]


def rand_augment(images: Any, config: AugmentConfig, seed: Any) -> Any:
    """Return images float32 (n, height, width, channels), 0 to 255, after `rand_augment` random operations each.

    A magnitude of 10 equals torchvision's 30 of 30 and timm's m10; torchvision's default, 9 of 30, is 3 here.
    """
    for i in range(config.rand_augment):
        strength = tf.fill([tf.shape(images)[0]], config.magnitude / 10)
        images = _one_each(images, strength, (RAND, config.fill), _fold(seed, i))
    return images


def trivial_augment(images: Any, config: AugmentConfig, seed: Any) -> Any:
    """Return images float32 (n, height, width, channels), 0 to 255, after one random operation each."""
    count, first = tf.shape(images)[0], _fold(seed, 0)
    bins = draw_by_row(count, lambda n: tf.random.stateless_uniform([n], first, 0, BINS, tf.int32))
    return _one_each(images, tf.cast(bins, tf.float32) / (BINS - 1), (WIDE, config.fill), _fold(seed, 1))


def _fold(seed: Any, number: int) -> Any:
    return tf.random.experimental.stateless_fold_in(seed, number)


def _one_each(images: Any, strength: Any, how: tuple[Ranges, str], seed: Any) -> Any:
    """Return each image after one random operation, at a strength (n,) in a random direction."""
    count = tf.shape(images)[0]
    seeds = [_fold(seed, i) for i in range(2)]
    drawn = draw_by_row(count, lambda n: tf.random.stateless_uniform([n], seeds[0], 0, len(OPERATIONS), tf.int32))
    sign = tf.where(draw_by_row(count, lambda n: tf.random.stateless_uniform([n], seeds[1])) < 0.5, -1.0, 1.0)
    parts = tf.dynamic_partition(tf.round(images), drawn, len(OPERATIONS))
    strengths = tf.dynamic_partition(strength * sign, drawn, len(OPERATIONS))
    places = tf.dynamic_partition(tf.range(count), drawn, len(OPERATIONS))
    done = [_apply(f, x, s, how) for f, x, s in zip(OPERATIONS.values(), parts, strengths, strict=True)]
    return tf.ensure_shape(tf.dynamic_stitch(places, done), images.shape)


def _apply(operation: Operation, images: Any, strength: Any, how: tuple[Ranges, str]) -> Any:
    """Return the images that drew an operation after it, if there are any."""
    some = tf.shape(strength)[0] > 0
    return tf.cond(some, lambda: operation(images, strength, *how), lambda: images)


def _shear(along_x: bool) -> Operation:
    def shear(images: Any, strength: Any, ranges: Ranges, fill: str) -> Any:
        by, one, zero = strength * ranges.shear, tf.ones_like(strength), tf.zeros_like(strength)
        # Around the corner of the image, half a pixel from the center of its first pixel.
        sheared = (one, by, by / 2, zero, one, zero) if along_x else (one, zero, zero, by, one, by / 2)
        return project(images, matrices(*sheared), fill)

    return shear


def _translate(along_x: bool) -> Operation:
    def translate(images: Any, strength: Any, ranges: Ranges, fill: str) -> Any:
        side = images.shape[2 if along_x else 1]
        by = tf.cast(tf.cast(strength * (ranges.across * side + ranges.pixels), tf.int32), tf.float32)
        one, zero = tf.ones_like(strength), tf.zeros_like(strength)
        moved = (one, zero, -by, zero, one, zero) if along_x else (one, zero, zero, zero, one, -by)
        return project(images, matrices(*moved), fill)

    return translate


def _rotate(images: Any, strength: Any, ranges: Ranges, fill: str) -> Any:
    one, zero = tf.ones_like(strength), tf.zeros_like(strength)
    turn = strength * math.radians(ranges.turn)
    y0, x0 = ((size - 1) / 2 for size in images.shape[1:3])
    return project(images, centered_maps(turn, one, zero, zero, one, y0, x0), fill)


def _blending(change: Callable[[Any, Any], Any]) -> Operation:
    return lambda images, strength, ranges, _: change(images, 1.0 + strength * ranges.blend)


OPERATIONS: dict[str, Operation] = {
    "identity": lambda images, *_: images,
    "shear_x": _shear(True),
    "shear_y": _shear(False),
    "translate_x": _translate(True),
    "translate_y": _translate(False),
    "rotate": _rotate,
    "brightness": _blending(brightness),
    "color": _blending(saturation),
    "contrast": _blending(contrast),
    "sharpness": _blending(sharpness),
    "posterize": lambda images, strength, ranges, _: posterize(images, 8.0 - tf.round(tf.abs(strength) * ranges.bits)),
    "solarize": lambda images, strength, *_: solarize(images, 255.0 * (1.0 - tf.abs(strength))),
    "autocontrast": lambda images, *_: autocontrast(images),
    "equalize": lambda images, *_: equalize(images),
}
