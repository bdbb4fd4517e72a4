"""Random-resized crop (Szegedy et al. 2015, arXiv:1409.4842), with torchvision's sampling."""

from __future__ import annotations

import math
from typing import Any

from training.augment.affine import matrices, project
from training.common.orientation import UPRIGHT, orientation_of, stored_box, upright, upright_size
from training.common.preprocess import INSIDE, decode_opaque, with_channels
from training.common.sharding import draw_by_row
from training.recipe.config import AugmentConfig
from zoo.common.lazy import tf
from zoo.specs.preprocessing import PreprocessingConfig

# Tries to draw a crop that fits; then it is the largest center crop.
TRIES = 10
# Factors by which the JPEG decoder can downscale.
SHRINKS = (1, 2, 4, 8)
# The header of a JPEG of one pixel, a placeholder where an image is no JPEG.
SMALLEST = bytes.fromhex("ffd8ffc0000b080001000101011100ffda0008010100003f00ffd9")


def draw_crops(count: Any, seed: Any) -> tuple[Any, Any]:
    """Draw the random numbers of the crops of a batch, float32 (n, 4, tries) in [0, 1), and the flips, bool (n,)."""
    seeds = tf.random.experimental.stateless_split(seed, 2)
    return (
        draw_by_row(count, lambda n: tf.random.stateless_uniform([n, 4, TRIES], seeds[0])),
        draw_by_row(count, lambda n: tf.random.stateless_uniform([n], seeds[1])) < 0.5,
    )


def boxes(numbers: Any, height: Any, width: Any, config: AugmentConfig) -> Any:
    """Return crops (..., 4) as int32 (top, left, height, width).

    Args:
        numbers: float32 (..., 4, tries) in [0, 1) from `draw_crops`.
        height: of the images, float32.
        width: of the images, float32.
        config: `crop_scale` and `crop_ratio`.
    """
    least, most = config.crop_scale
    low, high = (math.log(ratio) for ratio in config.crop_ratio)
    area = height * width * (least + (most - least) * numbers[..., 0, :])
    ratio = tf.exp(low + (high - low) * numbers[..., 1, :])
    wide, tall = tf.round(tf.sqrt(area * ratio)), tf.round(tf.sqrt(area / ratio))
    fits = (wide <= width) & (tall <= height) & (wide > 0) & (tall > 0)
    top = tf.floor(numbers[..., 2, :] * (height - tall + 1))
    left = tf.floor(numbers[..., 3, :] * (width - wide + 1))
    tries = tf.stack([top, left, tall, wide], axis=-1)
    drawn = tf.gather(tries, tf.argmax(fits, axis=-1), batch_dims=len(fits.shape) - 1, axis=len(fits.shape) - 1)
    return tf.cast(
        tf.where(tf.reduce_any(fits, -1, keepdims=True), drawn, _center_crop(height, width, config)), tf.int32
    )


def _center_crop(height: Any, width: Any, config: AugmentConfig) -> Any:
    """Return the largest center crop with an aspect ratio within bounds, float32 (4,)."""
    low, high = config.crop_ratio
    tall = tf.minimum(height, tf.round(width / low))
    wide = tf.minimum(width, tf.round(height * high))
    return tf.stack([(height - tall) // 2, (width - wide) // 2, tall, wide])


def crop_batch(images: Any, config: AugmentConfig, seed: Any) -> Any:
    """Return a random crop of each image float32 (n, height, width, channels), resized to the image size, bilinear."""
    height, width = images.shape[1:3]
    numbers, _ = draw_crops(tf.shape(images)[0], seed)
    found = boxes(numbers, float(height), float(width), config)
    top, left, tall, wide = (tf.cast(found[:, i], tf.float32) for i in range(4))
    down, right, zero = tall / height, wide / width, tf.zeros_like(top)
    # Pixel centers: output x is input left + (x + 1/2) wide / width - 1/2.
    maps = matrices(right, zero, left + right / 2 - 0.5, zero, down, top + down / 2 - 0.5)
    return project(images, maps, "nearest")


def crop_encoded(
    encoded: Any,
    numbers: Any,
    shape: tuple[int, ...],
    preprocessing: PreprocessingConfig,
    config: AugmentConfig,
    *,
    turns: bool = True,
) -> Any:
    """Decode a random crop of an image and resize it; of a JPEG nothing else is decoded.

    If a crop is at least 2, 4 or 8 times as large as the output, the JPEG decoder downscales it by this factor, which
    also averages pixels. The remaining factor is below 2 and resized without antialiasing, as in TensorFlow's ImageNet
    pipelines: antialiasing takes three times as long (3.4 ms of processor time instead of 1.1, more than decoding), and
    crops of photographs of 400x500 pixels to 224x224 differ by 1.5 of 255 levels in the mean, 2.9 in the worst of 64.

    Args:
        encoded: scalar string, the bytes of a JPEG, PNG, GIF, BMP or WebP file.
        numbers: float32 (4, tries), of this image.
        shape: (height, width, channels) of the output.
        preprocessing: its interpolation and background are used.
        config: `crop_scale` and `crop_ratio`.
        turns: whether to turn photographs upright by their EXIF orientation; it costs half more time.

    Returns:
        uint8 of `shape`.
    """
    jpeg = tf.io.is_jpeg(encoded)
    orientation = tf.where(jpeg, orientation_of(encoded), UPRIGHT) if turns else UPRIGHT
    size = tf.io.extract_jpeg_shape(tf.where(jpeg, encoded, SMALLEST))[:2]
    size = upright_size(size, orientation) if turns else size
    box = boxes(numbers, *tf.unstack(tf.cast(size, tf.float32)), config)
    times = tf.reduce_min(box[2:] // tf.constant(shape[:2]))
    shrink = tf.reduce_sum(tf.cast(times >= tf.constant(SHRINKS[1:]), tf.int32))
    box = stored_box(box, size, orientation) if turns else box
    branches = [
        lambda by=by: tf.io.decode_and_crop_jpeg(encoded, box // by, channels=shape[2], ratio=by) for by in SHRINKS
    ]
    branches.append(lambda: _crop_other(numbers, shape, decode_opaque(encoded, preprocessing, turns=turns), config))
    # A single switch, as each costs a tenth of the decoding.
    image = tf.switch_case(tf.where(jpeg, shrink, len(SHRINKS)), branches)
    image = upright(image, orientation) if turns else image
    image = tf.image.resize(image, shape[:2], method=preprocessing.interpolation)
    if preprocessing.interpolation not in INSIDE:
        image = tf.clip_by_value(image, 0.0, 255.0)
    return tf.ensure_shape(tf.cast(tf.round(image), tf.uint8), shape)


def _crop_other(numbers: Any, shape: tuple[int, ...], image: Any, config: AugmentConfig) -> Any:
    size = tf.cast(tf.shape(image)[:2], tf.float32)
    top, left, tall, wide = tf.unstack(boxes(numbers, size[0], size[1], config))
    return tf.cast(tf.round(with_channels(image[top : top + tall, left : left + wide], shape[2])), tf.uint8)
