"""The orientation of photographs, which cameras store as EXIF metadata instead of turning the pixels.

Exif 2.32 (CIPA DC-008), tag 0x0112. All in TensorFlow, so that artifacts which take encoded images turn them too, and
without branches and loops, each of which costs a tenth of the decoding in a graph.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from zoo.common.lazy import tf
from zoo.reading.data_files import read_ends

TAG, UPRIGHT = 0x0112, 1
# Orientations in which rows and columns are exchanged, and then those whose rows, and whose columns, are reversed.
EXCHANGED, ROWS_REVERSED, COLUMNS_REVERSED = (5, 6, 7, 8), (3, 4, 7, 8), (2, 3, 6, 7)
# Bytes that are searched: metadata is at the start of JPEG and PNG files, and at the end of WebP files.
HEAD, TAIL = 4096, 65536
# Tags that are read of the first list, which has about a dozen.
TAGS = 64
# What starts EXIF data, little-endian and big-endian, and what comes before it: in JPEG, PNG and WebP files.
STARTS = (b"II*\0", b"MM\0*")
BEFORE = ((b"Exif", 6), (b"eXIf", 4), (b"EXIF", 8))
PADDING = 16
# The orientation among tags, of a photograph that is not upright.
TURNED = re.compile(rb"\x12\x01\x03\0\x01\0\0\0[\x02-\x08]\0|\x01\x12\0\x03\0\0\0\x01\0[\x02-\x08]")


def may_be_turned(path: Path) -> bool:
    """Return whether a file may have another orientation than upright; False if it cannot be read.

    A file of whose metadata this is False is decoded faster, see `training.common.preprocess.decode`.
    """
    try:
        content, _ = read_ends(path, HEAD)
        if content.startswith(b"RIFF"):
            _, content = read_ends(path, 0, TAIL)
    except OSError:
        return False
    return any(name in content for name, _ in BEFORE) and TURNED.search(content) is not None


def orientation_of(encoded: Any) -> Any:
    """Return the orientation of an encoded image, int32: 1 (upright) to 8; 1 where the metadata is missing or damaged.

    Args:
        encoded: scalar string, the bytes of a JPEG, PNG, GIF, BMP or WebP file.
    """
    values = _searched(encoded)
    words = _numbers(values, [0, 1, 2, 3])
    starts = _is_one_of(words, [int.from_bytes(start, "big") for start in STARTS])
    announced = tf.stack([tf.equal(tf.roll(words, by, 0), int.from_bytes(name, "big")) for name, by in BEFORE])
    places = starts & tf.reduce_any(announced, 0)
    start = tf.argmax(places, output_type=tf.int32)
    little = tf.equal(words[start], int.from_bytes(STARTS[0], "big"))
    return tf.where(tf.reduce_any(places), _read(values, start, little), UPRIGHT)


def _searched(encoded: Any) -> Any:
    """Return the bytes of a file that have its metadata, int32 (n,), between zeros."""
    webp = tf.equal(tf.strings.substr(encoded, 0, 4), b"RIFF")
    length = tf.strings.length(encoded)
    place = tf.where(webp, tf.maximum(length - TAIL, 0), 0)
    found = tf.strings.substr(encoded, place, tf.where(webp, TAIL, HEAD))
    return tf.pad(tf.cast(tf.io.decode_raw(found, tf.uint8), tf.int32), [[PADDING, PADDING]])


def _numbers(values: Any, order: list[int]) -> Any:
    """Return the number that starts at each byte, from bytes after it, the highest first; at the end 0 follow."""
    return sum(tf.roll(values, -by, 0) * (1 << 8 * (len(order) - 1 - i)) for i, by in enumerate(order))


def _read(values: Any, start: Any, little: Any) -> Any:
    """Return the orientation in EXIF data: a header, and a list of tags of 12 bytes each."""

    def number(places: Any, size: int) -> Any:
        inside = (places >= 0) & (places + size <= tf.size(values))
        places = tf.where(inside, places, 0)
        parts = [tf.gather(values, places + i) for i in range(size)]
        read = [sum(part * (1 << 8 * i) for i, part in enumerate(order)) for order in (parts, parts[::-1])]
        return tf.where(inside, tf.where(little, *read), 0)

    first = start + number(start + 4, 4)
    numbers = tf.range(TAGS)
    places = first + 2 + 12 * numbers
    valid = tf.equal(number(places, 2), TAG) & (numbers < number(first, 2))
    found = tf.where(valid, number(places + 8, 2), 0)
    known = tf.where((found >= 1) & (found <= 8), found, 0)
    return tf.maximum(tf.reduce_max(known), UPRIGHT)


def upright(image: Any, orientation: Any) -> Any:
    """Return an image (height, width, channels) turned and mirrored as its orientation, int32, asks for."""

    def turned() -> Any:
        order = tf.where(_is_one_of(orientation, EXCHANGED), (1, 0, 2), (0, 1, 2))
        return tf.reverse(tf.transpose(image, order), tf.where(_reversed(orientation))[:, 0])

    return tf.cond(tf.equal(orientation, UPRIGHT), lambda: image, turned)


def upright_size(size: Any, orientation: Any) -> Any:
    """Return (height, width) of an image once it is upright, from those of the stored pixels."""
    return tf.where(_is_one_of(orientation, EXCHANGED), size[::-1], size)


def stored_box(box: Any, size: Any, orientation: Any) -> Any:
    """Return where a box of the upright image is in the stored pixels.

    Args:
        box: int32 (top, left, height, width) in the upright image.
        size: int32 (height, width) of the upright image.
        orientation: int32.
    """
    place, extent = box[:2], box[2:]
    place = tf.where(_reversed(orientation), size - place - extent, place)
    exchanged = _is_one_of(orientation, EXCHANGED)
    return tf.concat([tf.where(exchanged, part[::-1], part) for part in (place, extent)], 0)


def _reversed(orientation: Any) -> Any:
    """Return whether rows, and whether columns are reversed, bool (2,)."""
    return tf.stack([_is_one_of(orientation, ROWS_REVERSED), _is_one_of(orientation, COLUMNS_REVERSED)])


def _is_one_of(values: Any, known: Any) -> Any:
    """Return whether values, int32 (...), are one of some numbers, bool (...)."""
    return tf.reduce_any(tf.equal(tf.expand_dims(values, -1), tf.constant(known)), -1)
