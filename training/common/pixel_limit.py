"""The size of an encoded image by its header, in TensorFlow: artifacts refuse what would not fit into memory.

`training.common.image_files.pixels_of` is the same for files, with the frames of animated ones.
"""

from __future__ import annotations

from typing import Any

from zoo.common.lazy import tf

# Bytes that have the size in every header but that of JPEG.
HEAD = 32


def refuse_large(encoded: Any, limit: int) -> Any:
    """Return the bytes of an image, a scalar string; raises InvalidArgumentError above a number of pixels.

    Args:
        encoded: the bytes of a JPEG, PNG, GIF, BMP or WebP file.
        limit: width x height of the largest image; 0 for no limit.
    """
    if not limit:
        return encoded
    fits = tf.debugging.Assert(pixels(encoded) <= limit, [f"Expected an image of at most {limit:,} pixels."])
    with tf.control_dependencies([fits]):
        return tf.identity(encoded)


def pixels(encoded: Any) -> Any:
    """Return width x height of an encoded image, int64; 0 for other content."""
    head = tf.strings.join([tf.strings.substr(encoded, 0, HEAD), tf.constant(b"\0" * HEAD)])
    values = tf.cast(tf.io.decode_raw(tf.strings.substr(head, 0, HEAD), tf.uint8), tf.int64)

    def number(place: int, size: int, *, big: bool = False) -> Any:
        return sum(values[place + i] * (1 << 8 * (size - 1 - i if big else i)) for i in range(size))

    def starts(text: bytes, place: int = 0) -> Any:
        return tf.equal(tf.strings.substr(head, place, len(text)), text)

    lossless = number(21, 4)
    sizes = (
        (starts(b"\x89PNG"), number(16, 4, big=True) * number(20, 4, big=True)),
        (starts(b"GIF8"), number(6, 2) * number(8, 2)),
        (starts(b"BM"), tf.abs(_signed(number(18, 4)) * _signed(number(22, 4)))),
        (starts(b"WEBPVP8X", 8), (number(24, 3) + 1) * (number(27, 3) + 1)),
        (starts(b"WEBPVP8L", 8), (lossless % (1 << 14) + 1) * (lossless // (1 << 14) % (1 << 14) + 1)),
        (starts(b"WEBPVP8 ", 8), number(26, 2) % (1 << 14) * (number(28, 2) % (1 << 14))),
    )
    found = sum(tf.where(kind, size, 0) for kind, size in sizes)
    return tf.cond(starts(b"\xff\xd8"), lambda: _jpeg(encoded), lambda: found)


def _signed(value: Any) -> Any:
    """Return an unsigned number of 32 bits as a signed one."""
    return tf.where(value >= 1 << 31, value - (1 << 32), value)


def _jpeg(encoded: Any) -> Any:
    shape = tf.image.extract_jpeg_shape(encoded, tf.int64)
    return shape[0] * shape[1]
