"""Preprocessing in TensorFlow: in training, in evaluation and inside artifacts."""

from __future__ import annotations

from typing import Any

from training.common.image_files import HEAD, MASKS
from training.common.orientation import orientation_of, upright
from zoo.common.lazy import tf
from zoo.specs.preprocessing import FULL, PreprocessingConfig

# Interpolations that do not overshoot the range of their input.
INSIDE = ("nearest", "bilinear", "area")
# The longer side of an image, as a multiple of the shorter one, beyond which only its middle is resized.
LONGEST = 64


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
    image = _middle(with_channels(decode_opaque(encoded, preprocessing, turns=turns), channels))
    size = tf.shape(image)[:2]
    scale = tf.reduce_max(tf.constant([height, width], tf.float32) / preprocessing.crop / tf.cast(size, tf.float32))
    resized = tf.maximum(tf.cast(tf.round(tf.cast(size, tf.float32) * scale), tf.int32), [height, width])
    image = tf.image.resize(image, resized, method=preprocessing.interpolation, antialias=True)
    top, left = (resized[0] - height) // 2, (resized[1] - width) // 2
    image = image[top : top + height, left : left + width]
    return tf.ensure_shape(tf.clip_by_value(tf.round(image), 0.0, 255.0), shape)


def _middle(image: Any) -> Any:
    """Return the middle of a strip, which would not fit into memory once its shorter side is resized."""
    size = tf.shape(image)[:2]
    most = tf.reduce_min(size) * LONGEST
    start = tf.maximum(size - most, 0) // 2
    return image[start[0] : start[0] + most, start[1] : start[1] + most]


def decode_opaque(encoded: Any, preprocessing: PreprocessingConfig, *, turns: bool = True) -> Any:
    """Decode an image (height, width, 1, 3 or 4 channels), uint8, with transparent pixels over the background.

    What is below transparent pixels is anything, often black. The fourth channel of a BMP file is no alpha, and its
    only channel are numbers of colors. With `turns`, the image is upright.

    Raises:
        InvalidArgumentError: no image, or one that TensorFlow reads wrongly; see `still` and `whole`.
    """
    image = whole(encoded, tf.io.decode_image(still(encoded), expand_animations=False))
    channels, bitmap = tf.shape(image)[-1], tf.equal(tf.strings.substr(encoded, 0, 2), b"BM")
    transparent = tf.logical_and(tf.equal(channels % 2, 0), tf.logical_not(bitmap))
    paletted = tf.logical_and(tf.equal(channels, 1), bitmap)
    kind = tf.where(transparent, 1, tf.where(paletted, 2, tf.where(_has_clear_color(encoded), 3, 0)))
    branches = [
        lambda: image,
        lambda: _composite(tf.cast(image, tf.float32), 255.0, preprocessing),
        lambda: tf.gather(_palette(encoded), tf.cast(image[..., 0], tf.int32)),
        lambda: _composite(_with_alpha(encoded, channels, tf.uint8), 255.0, preprocessing),
    ]
    if preprocessing.bits < FULL:
        deep = tf.equal(tf.strings.substr(encoded, 24, 1), b"\x10") & tf.equal(tf.strings.substr(encoded, 1, 3), b"PNG")
        kind = tf.where(deep, 4, kind)
        branches.append(lambda: _deep(encoded, channels, preprocessing))
    # A single switch, as each costs a tenth of the decoding.
    image = tf.switch_case(kind, branches)
    return upright(image, orientation_of(encoded)) if turns else image


def _composite(values: Any, opaque: float, preprocessing: PreprocessingConfig) -> Any:
    """Return pixels float32 (h, w, channels and alpha, which is 0 to `opaque`) over the background, uint8."""
    alpha = values[..., -1:] / opaque
    background = tf.constant(preprocessing.background, tf.float32)
    return tf.cast(tf.round(values[..., :-1] * alpha + background * (1.0 - alpha)), tf.uint8)


def _has_clear_color(encoded: Any) -> Any:
    """Return whether a PNG in gray or color may have a transparent color (a chunk tRNS).

    Other bytes that look like the chunk do no harm: all pixels are opaque then.
    """
    color = tf.strings.substr(tf.strings.join([encoded, tf.constant(b" " * 26)]), 25, 1)
    plain = tf.equal(tf.strings.substr(encoded, 1, 3), b"PNG") & (tf.equal(color, b"\0") | tf.equal(color, b"\x02"))
    searched = tf.strings.substr(encoded, 0, tf.where(plain, tf.int32.max, 0))
    return tf.strings.regex_full_match(searched, r"\C*tRNS\C*")


def _with_alpha(encoded: Any, channels: Any, dtype: Any) -> Any:
    """Return a PNG of some channels with 1 or 3 of them and alpha, float32, 0 where it has its transparent color."""
    values = tf.cast(tf.io.decode_png(encoded, channels=4, dtype=dtype), tf.float32)
    return tf.concat([values[..., : tf.where(channels < 3, 1, 3)], values[..., 3:]], axis=-1)


def whole(encoded: Any, image: Any) -> Any:
    """Return a decoded image; raises InvalidArgumentError for a GIF whose first frame is not its whole canvas.

    TensorFlow returns that frame alone, and others show it on the canvas.
    """
    head = tf.strings.join([tf.strings.substr(encoded, 0, 10), tf.constant(b"\0" * 10)])
    sides = tf.cast(tf.io.decode_raw(tf.strings.substr(head, 6, 4), tf.uint16), tf.int32)
    fills = tf.reduce_all(tf.equal(tf.shape(image)[:2], sides[::-1]))
    moves = tf.debugging.Assert(
        tf.not_equal(tf.strings.substr(head, 0, 4), b"GIF8") | fills,
        ["Expected a GIF whose first frame fills it. Received: a smaller frame."],
    )
    with tf.control_dependencies([moves]):
        return tf.identity(image)


def _palette(encoded: Any) -> Any:
    """Return the colors of a BMP file of 8 bits, uint8 (256, 3)."""
    # After the header of the file, 14 bytes, and another that starts with its length.
    start = 14 + tf.io.decode_raw(tf.strings.substr(encoded, 14, 4), tf.int32)[0]
    # A damaged file may end before its colors do.
    padded = tf.strings.join([encoded, tf.constant(b"\0" * 2048)])
    colors = tf.io.decode_raw(tf.strings.substr(padded, start, 1024), tf.uint8)
    return tf.reshape(colors, (256, 4))[:, 2::-1]


def _deep(encoded: Any, channels: Any, preprocessing: PreprocessingConfig) -> Any:
    """Return a PNG of 16 bits as uint8, scaled by the bits that are used."""
    values = _with_alpha(encoded, channels, tf.uint16)
    colors = tf.minimum(values[..., :-1] * (255.0 / ((1 << preprocessing.bits) - 1)), 255.0)
    return _composite(tf.concat([colors, values[..., -1:]], -1), 65535.0, preprocessing)


def still(encoded: Any) -> Any:
    """Return the bytes of an image, a scalar string; raises InvalidArgumentError for what TensorFlow reads wrongly.

    TensorFlow 2.21's decode_image writes beyond the end of its buffer for an animated WebP, and ends the process. Of
    BMP files it reads neither compressed pixels nor the places of channels.
    """
    # The headers of both files; shorter ones are padded.
    head = tf.strings.join([tf.strings.substr(encoded, 0, HEAD), tf.constant(b"\0" * HEAD)])
    values = tf.io.decode_raw(tf.strings.substr(head, 0, HEAD), tf.uint8)
    extended = tf.equal(tf.strings.substr(head, 8, 8), b"WEBPVP8X")
    moves = tf.debugging.Assert(
        ~(extended & (values[20] & 2 > 0)), ["Expected a still image. Received: an animated WebP."]
    )
    masked = tf.equal(values[30], 3) & tf.equal(values[28], 32) & tf.equal(tf.strings.substr(head, 54, 12), MASKS)
    # The length of the header has four bytes.
    short = (values[14] >= 40) & tf.reduce_all(tf.equal(values[15:18], 0))
    plain = short & (tf.equal(values[30], 0) | masked)
    kind = tf.debugging.Assert(
        tf.not_equal(tf.strings.substr(head, 0, 2), b"BM") | plain,
        ["Expected a BMP file without compression. Received: another kind."],
    )
    with tf.control_dependencies([moves, kind]):
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
