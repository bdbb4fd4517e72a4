"""Color operations on batches of images, float32 (n, height, width, channels) from 0 to 255.

The operations on 8-bit levels are Pillow's, as in RandAugment; here nothing is rounded in between.
"""

from __future__ import annotations

from typing import Any

from training.common.sharding import draw_by_row
from training.recipe.config import AugmentConfig
from zoo.common.lazy import tf

# ITU-R 601, as Pillow converts to grayscale.
LUMINANCE = (0.299, 0.587, 0.114)
# Weights of Pillow's SMOOTH filter, times 13.
SMOOTH = ((1.0, 1.0, 1.0), (1.0, 5.0, 1.0), (1.0, 1.0, 1.0))


def has_jitter(config: AugmentConfig) -> bool:
    """Return whether colors change or noise is added."""
    return bool(config.brightness or config.contrast or config.saturation or config.hue or config.noise)


def color_jitter(images: Any, config: AugmentConfig, seed: Any) -> Any:
    """Return images with random brightness, contrast, saturation, hue and noise, in this order, drawn for each image.

    Factors are uniform in 1 ± the value of the config, as in torchvision's ColorJitter, which also shuffles the order.
    """
    seeds = tf.random.experimental.stateless_split(seed, 5)

    def uniform(i: int, middle: float, most: float) -> Any:
        return draw_by_row(
            tf.shape(images)[0], lambda n: tf.random.stateless_uniform([n], seeds[i], middle - most, middle + most)
        )

    for i, (change, most) in enumerate(
        ((brightness, config.brightness), (contrast, config.contrast), (saturation, config.saturation))
    ):
        images = change(images, uniform(i, 1.0, most)) if most else images
    if config.hue:
        images = shift_hue(images, uniform(3, 0.0, config.hue))
    if config.noise:
        noise = draw_by_row(
            tf.shape(images)[0],
            lambda n: tf.random.stateless_normal([n, *images.shape[1:]], seeds[4], stddev=255 * config.noise),
        )
        images = tf.clip_by_value(images + noise, 0.0, 255.0)
    return images


def to_grayscale(images: Any) -> Any:
    """Return the luminance (n, height, width, 1) of images of 1 or 3 channels."""
    if images.shape[-1] != 3:
        return images
    return tf.tensordot(images, tf.constant(LUMINANCE), 1)[..., None]


def blend(images: Any, other: Any, factor: Any) -> Any:
    """Return other + factor x (images - other), clipped, one factor per image; 1 changes nothing."""
    return tf.clip_by_value(other + _each(factor) * (images - other), 0.0, 255.0)


def brightness(images: Any, factor: Any) -> Any:
    """Return images times a factor (n,)."""
    return blend(images, tf.zeros_like(images[:, :1, :1, :1]), factor)


def contrast(images: Any, factor: Any) -> Any:
    """Return images blended with their mean luminance by a factor (n,)."""
    return blend(images, tf.round(tf.reduce_mean(to_grayscale(images), axis=(1, 2, 3), keepdims=True)), factor)


def saturation(images: Any, factor: Any) -> Any:
    """Return images blended with their grayscale version by a factor (n,)."""
    return blend(images, to_grayscale(images), factor)


def sharpness(images: Any, factor: Any) -> Any:
    """Return images blended with their smoothed version by a factor (n,); the border does not change."""
    channels = images.shape[-1]
    kernel = tf.repeat(tf.constant(SMOOTH)[:, :, None, None] / 13, channels, axis=2)
    smooth = tf.nn.depthwise_conv2d(images, kernel, (1, 1, 1, 1), "SAME")
    rows, columns = (tf.range(size) for size in images.shape[1:3])
    inner = _inside(rows)[:, None] & _inside(columns)[None]
    return blend(images, tf.where(inner[None, :, :, None], smooth, images), factor)


def _inside(numbers: Any) -> Any:
    return (numbers > 0) & (numbers < tf.shape(numbers)[0] - 1)


def shift_hue(images: Any, by: Any) -> Any:
    """Return color images with their hue rotated by a fraction (n,) of the circle."""
    hue, strength, value = tf.unstack(tf.image.rgb_to_hsv(images / 255), axis=-1)
    hue = tf.math.floormod(hue + by[:, None, None], 1.0)
    return 255 * tf.image.hsv_to_rgb(tf.stack([hue, strength, value], axis=-1))


def posterize(images: Any, bits: Any) -> Any:
    """Return images with only the highest bits (n,) of each value."""
    step = _each(tf.pow(2.0, 8.0 - bits))
    return tf.floor(images / step) * step


def solarize(images: Any, threshold: Any) -> Any:
    """Return images with values at or above a threshold (n,) inverted."""
    return tf.where(images >= _each(threshold), 255.0 - images, images)


def autocontrast(images: Any) -> Any:
    """Return images with each channel stretched to 0 to 255."""
    low, high = (f(images, axis=(1, 2), keepdims=True) for f in (tf.reduce_min, tf.reduce_max))
    return tf.where(high > low, (images - low) * tf.math.divide_no_nan(255.0, high - low), images)


def equalize(images: Any) -> Any:
    """Return images with an equalized histogram of each channel; values are rounded first."""
    count, height, width, channels = tf.shape(images)[0], *images.shape[1:]
    flat = tf.reshape(tf.transpose(images, (0, 3, 1, 2)), (count * channels, height * width))
    levels = tf.cast(tf.clip_by_value(tf.round(flat), 0.0, 255.0), tf.int32)
    even = tf.gather(_even_table(levels), levels, batch_dims=1)
    return tf.transpose(tf.reshape(tf.cast(even, tf.float32), (count, channels, height, width)), (0, 2, 3, 1))


def _even_table(levels: Any) -> Any:
    """Return the lookup table of each row, int32 (m, 256), for rows (m, pixels) of levels, as Pillow computes it."""
    one_hot_rows = tf.range(tf.shape(levels)[0])[:, None] * 256
    counts = tf.math.bincount(tf.reshape(levels + one_hot_rows, [-1]), minlength=256 * tf.shape(levels)[0])
    counts = tf.reshape(counts, (-1, 256))
    last = tf.reduce_max(levels, axis=1)
    step = (levels.shape[1] - tf.gather(counts, last, batch_dims=1)) // 255
    before = tf.cumsum(counts, axis=1, exclusive=True)
    even = tf.minimum((step[:, None] // 2 + before) // tf.maximum(step, 1)[:, None], 255)
    return tf.where((step > 0)[:, None], even, tf.range(256)[None])


def _each(values: Any) -> Any:
    """Return one value per image (n,) in a shape that broadcasts with images."""
    return values[:, None, None, None]
