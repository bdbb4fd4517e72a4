"""Preprocessing in TensorFlow: in training, in evaluation and inside artifacts."""

from __future__ import annotations

from typing import Any

from training.common.orientation import orientation_of, upright
from zoo.common.lazy import tf
from zoo.specs.preprocessing import PreprocessingConfig

# Interpolations that do not overshoot the range of their input.
INSIDE = ("nearest", "bilinear", "area")


def decode(encoded: Any, shape: tuple[int, ...], preprocessing: PreprocessingConfig, *, turns: bool = True) -> Any:
    """Decode an image, resize its shorter side to size / crop, and crop the center.

    Args:
        encoded: scalar string, the bytes of a JPEG, PNG, GIF, BMP or WebP file.
        shape: (height, width, channels) of the output.
        preprocessing: how to resize and crop.
        turns: whether to turn photographs upright by their EXIF orientation; it costs a fifth more time.

    Returns:
        float32 of `shape`, whole numbers from 0 to 255, as in 8-bit inputs of artifacts.
    """
    height, width, channels = shape
    image = with_channels(decode_opaque(encoded, preprocessing, turns=turns), channels)
    size = tf.shape(image)[:2]
    scale = tf.reduce_max(tf.constant([height, width], tf.float32) / preprocessing.crop / tf.cast(size, tf.float32))
    resized = tf.maximum(tf.cast(tf.round(tf.cast(size, tf.float32) * scale), tf.int32), [height, width])
    image = tf.image.resize(image, resized, method=preprocessing.interpolation, antialias=True)
    top, left = (resized[0] - height) // 2, (resized[1] - width) // 2
    image = image[top : top + height, left : left + width]
    return tf.ensure_shape(tf.clip_by_value(tf.round(image), 0.0, 255.0), shape)


def decode_opaque(encoded: Any, preprocessing: PreprocessingConfig, *, turns: bool = True) -> Any:
    """Decode an image (height, width, 1, 3 or 4 channels), uint8, with transparent pixels over the background.

    What is below transparent pixels is anything, often black. The fourth channel of a BMP file is no alpha. With
    `turns`, it is upright.
    """
    image = tf.io.decode_image(still(encoded), expand_animations=False)
    channels, bitmap = tf.shape(image)[-1], tf.equal(tf.strings.substr(encoded, 0, 2), b"BM")

    def composite() -> Any:
        values = tf.cast(image, tf.float32)
        alpha = values[..., -1:] / 255.0
        background = tf.constant(preprocessing.background, tf.float32)
        return tf.cast(tf.round(values[..., :-1] * alpha + background * (1.0 - alpha)), tf.uint8)

    transparent = tf.logical_and(tf.equal(channels % 2, 0), tf.logical_not(bitmap))
    image = tf.cond(transparent, composite, lambda: image)
    return upright(image, orientation_of(encoded)) if turns else image


def still(encoded: Any) -> Any:
    """Return the bytes of an image, a scalar string; raises InvalidArgumentError for an animated WebP.

    TensorFlow 2.21's decode_image writes beyond the end of its buffer for these and ends the process.
    """
    # Byte 21 holds the flag for animation; shorter files are padded.
    head = tf.strings.join([tf.strings.substr(encoded, 0, 21), tf.constant(b"\0" * 21)])
    extended = tf.equal(tf.strings.substr(head, 8, 8), b"WEBPVP8X")
    moves = tf.io.decode_raw(tf.strings.substr(head, 20, 1), tf.uint8)[0] & 2 > 0
    check = tf.debugging.Assert(~(extended & moves), ["Expected a still image. Received: an animated WebP."])
    with tf.control_dependencies([check]):
        return tf.identity(encoded)


def with_channels(image: Any, channels: int) -> Any:
    """Return an image uint8 (h, w, any) with 3 channels, uint8, or 1 (its luminance), float32; a fourth is dropped.

    TensorFlow's decoders cannot do this themselves for every format.
    """
    have = tf.shape(image)[-1]
    color = tf.cond(have < 3, lambda: tf.repeat(image[..., :1], 3, axis=-1), lambda: image[..., :3])
    color = tf.ensure_shape(color, (None, None, 3))
    if channels == 3:
        return color
    return tf.cond(
        have < 3,
        lambda: tf.cast(image[..., :1], tf.float32),
        lambda: tf.image.rgb_to_grayscale(tf.cast(color, tf.float32)),
    )


def normalize(x: Any, preprocessing: PreprocessingConfig) -> Any:
    """Return (x - mean) / std in float32, x of any shape with the channels last."""
    scale, offset = preprocessing.affine()
    x = tf.cast(x, tf.float32)
    if len(scale) == 1 or len(x.shape) != 4:
        return x * tf.constant(scale, tf.float32) + tf.constant(offset, tf.float32)
    # TensorFlow is ten times as fast on rows as on a last axis of size 3.
    width = x.shape[2]
    rows = tf.reshape(x, (-1, width * len(scale)))
    rows = rows * tf.constant(scale * width, tf.float32) + tf.constant(offset * width, tf.float32)
    return tf.reshape(rows, tf.shape(x))
