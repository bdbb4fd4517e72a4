"""What the first bytes of an image file say before it is decoded: type, size, and which decoder reads it right.

TensorFlow decodes JPEG, PNG, GIF, WebP, and BMP files of 8, 24 and 32 bits, in training and in artifacts. Pillow
converts other files to PNG when they are read in training, as TensorFlow has no decoder for them.
"""

from __future__ import annotations

import functools
import io
import re
import struct
import warnings
from collections.abc import Iterator
from typing import Any

from zoo.common.lazy import LazyModule, np

pillow = LazyModule("PIL.Image", "pillow")
pillow_ops = LazyModule("PIL.ImageOps", "pillow")
pillow_features = LazyModule("PIL.features", "pillow")

# Suffixes of files that TensorFlow decodes, and of those that Pillow converts.
DECODED = (".jpg", ".jpeg", ".jpe", ".jfif", ".pjpeg", ".jif", ".png", ".apng", ".bmp", ".dib", ".gif", ".webp")
CONVERTED = (".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".pnm", ".jp2", ".j2k")
# Suffixes that Pillow converts if it was built with a codec, or with pillow-heif, which the extra "heic" installs.
AVIF, HEIC = (".avif", ".avifs"), (".heic", ".heif", ".hif")
HEIC_REMEDY = 'to read them: pip install "keras-zoo[heic]"'
# The formats of Pillow that are opened; its others are no photographs, or run other programs.
FORMATS = ("BMP", "DIB", "TIFF", "PPM", "JPEG2000", "AVIF", "HEIF", "JPEG", "PNG", "GIF", "WEBP")
# Bytes that tell the type and decoder of a file.
HEAD = 66
PNG, BMP = b"\x89PNG\r\n\x1a\n", b"BM"
# Markers of JPEG frames, which hold the size of the image.
FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}
# Masks of the channels of a BMP file of 32 bits in the order that TensorFlow reads.
MASKS = struct.pack("<III", 0xFF0000, 0xFF00, 0xFF)
# Tag of TIFF files with the bits of each channel.
BITS = 258
# Bits that cameras and scanners use of 16.
DEPTHS = (8, 10, 12, 14, 16)


class UnreadableImage(ValueError):
    """An image file that cannot be decoded; the message is the reason."""


def suffixes() -> tuple[str, ...]:
    """Return the suffixes of the image files that are read here, lower case."""
    avif = AVIF if pillow_features.check("avif") else ()
    return (*DECODED, *CONVERTED, *avif, *(HEIC if _has_heif() else ()))


@functools.cache
def _has_heif() -> bool:
    """Return whether pillow-heif is installed; registers it with Pillow."""
    try:
        import pillow_heif
    except ImportError:
        return False
    pillow_heif.register_heif_opener()
    return True


def needs_conversion(head: bytes) -> bool:
    """Return whether Pillow must decode a file, by its first bytes; TensorFlow reads it wrongly or not at all.

    Args:
        head: at least the first `HEAD` bytes of a file, or all of a shorter one.
    """
    if head.startswith((b"\xff\xd8", PNG, b"GIF8")) or (head[:4] == b"RIFF" and head[8:12] == b"WEBP"):
        return False
    if head.startswith(BMP) and len(head) >= 54:
        header, bits, compression = struct.unpack_from("<I", head, 14)[0], *struct.unpack_from("<HI", head, 28)
        plain = header >= 40 and compression == 0 and bits in (8, 24, 32)
        return not (plain or (bits == 32 and compression == 3 and head[54:66] == MASKS))
    # Of unknown content, TensorFlow says that it is no image.
    return head.startswith(BMP) or _is_other_image(head)


def _is_other_image(head: bytes) -> bool:
    starts = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+", b"\0\0\0\x0cjP", b"\xff\x4f\xff\x51")
    return head.startswith(starts) or head[4:8] == b"ftyp" or re.match(rb"P[1-6]\s", head) is not None


def pixels_of(content: bytes) -> int:
    """Return width x height of an image by its header, before anything is decoded; 0 if it has none.

    Raises:
        UnreadableImage: a file that Pillow must open has no header that it knows.
    """
    if content.startswith(b"\xff\xd8"):
        return next(_jpeg_sizes(content), 0)
    if content.startswith(PNG):
        return _product(">II", content, 16)
    if content.startswith(b"GIF8"):
        # All frames are decoded, to a byte for each pixel, and the first of them to three.
        return max(_product("<HH", content, 6), sum(_gif_sizes(content)) // 3)
    if content.startswith(b"RIFF") and content[8:12] == b"WEBP":
        return _webp_pixels(content)
    if content.startswith(BMP) and not needs_conversion(content[:HEAD]):
        return abs(_product("<ii", content, 18))
    if needs_conversion(content[:HEAD]):
        with _opened(content) as image:
            return image.width * image.height
    return 0


def _product(form: str, content: bytes, place: int) -> int:
    if len(content) < place + struct.calcsize(form):
        return 0
    one, other = struct.unpack_from(form, content, place)
    return one * other


def _jpeg_sizes(content: bytes) -> Iterator[int]:
    """Yield the pixels of the first frame of a JPEG."""
    place = 2
    while place + 9 <= len(content):
        if content[place] != 0xFF:
            return
        kind = content[place + 1]
        if kind in FRAMES:
            yield _product(">HH", content, place + 5)
            return
        # Fill bytes, and markers without a length.
        alone = kind in (0x01, 0xFF, 0xD8) or 0xD0 <= kind <= 0xD7
        place += (1 if kind == 0xFF else 2) if alone else 2 + int.from_bytes(content[place + 2 : place + 4], "big")


def _gif_sizes(content: bytes) -> Iterator[int]:
    """Yield the pixels of each frame of a GIF."""
    place = 13 + _table_size(content[10:11])
    while content[place : place + 1] in (b"\x21", b"\x2c"):
        if content[place] == 0x2C:
            yield _product("<HH", content, place + 5)
            place += 11 + _table_size(content[place + 9 : place + 10])
        else:
            place += 2
        # Blocks with their lengths, the last of which is 0.
        while content[place : place + 1] > b"\0":
            place += 1 + content[place]
        place += 1


def _table_size(flags: bytes) -> int:
    """Return the bytes of the color table that the flags of a GIF announce."""
    return 3 << (flags[0] & 7) + 1 if flags and flags[0] & 0x80 else 0


def _webp_pixels(content: bytes) -> int:
    kind = content[12:16]
    if kind == b"VP8X" and len(content) >= 30:
        return (int.from_bytes(content[24:27], "little") + 1) * (int.from_bytes(content[27:30], "little") + 1)
    if kind == b"VP8L" and len(content) >= 25:
        bits = int.from_bytes(content[21:25], "little")
        return ((bits & 0x3FFF) + 1) * ((bits >> 14 & 0x3FFF) + 1)
    if kind == b"VP8 " and len(content) >= 30:
        width, height = struct.unpack_from("<HH", content, 26)
        return (width & 0x3FFF) * (height & 0x3FFF)
    return 0


def _opened(content: bytes) -> Any:
    """Return an image of Pillow whose pixels are not decoded yet; raises UnreadableImage."""
    _has_heif()
    pillow.init()
    known = [form for form in FORMATS if form in pillow.OPEN]
    try:
        with warnings.catch_warnings():
            # The size is checked by `pixels_of`, with the limit of the recipe.
            warnings.simplefilter("ignore")
            return pillow.open(io.BytesIO(content), formats=known)
    except Exception as error:
        # Pillow's plugins raise any error on damaged headers.
        raise UnreadableImage(_reason(error)) from error


def as_png(content: bytes) -> bytes:
    """Return the first image of a file that TensorFlow cannot decode as PNG, upright by its EXIF orientation.

    Images of more than 8 bits become PNG files of 16 bits with the same values.

    Raises:
        UnreadableImage: Pillow cannot decode it, or decodes it with a loss of bits.
    """
    with _opened(content) as image, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            _require_bits(image)
            image.load()
            image = pillow_ops.exif_transpose(image)
            image.info.clear()
            stored = io.BytesIO()
            _for_png(image).save(stored, "PNG", compress_level=0)
        except UnreadableImage:
            raise
        except Exception as error:
            # As above, on damaged pixels.
            raise UnreadableImage(_reason(error)) from error
        return stored.getvalue()


def _require_bits(image: Any) -> None:
    """Raise UnreadableImage for a TIFF file whose values Pillow would cut off, or that have no bounds."""
    stored = getattr(image, "tag_v2", {}).get(BITS, 8)
    bits = max(stored) if isinstance(stored, tuple) else stored
    # Pillow drops the low bytes of channels; floating-point numbers have any range.
    if bits > 8 and not image.mode.startswith("I"):
        raise UnreadableImage(f"TIFF of {bits} bits in mode {image.mode}; convert it to 8 bits, or to gray of 16")


def _for_png(image: Any) -> Any:
    """Return an image in a mode that PNG has, with all its values."""
    if image.mode.startswith("I"):
        values = np.asarray(image).astype("int64")
        if values.min() < 0 or values.max() > 0xFFFF:
            raise UnreadableImage(f"values from {values.min()} to {values.max()}, beyond 16 bits")
        return pillow.fromarray(values.astype("uint16"))
    if image.mode in ("1", "L", "LA", "RGB", "RGBA"):
        return image
    if image.mode in ("P", "PA"):
        return image.convert("RGBA" if image.has_transparency_data else "RGB")
    return image.convert("RGBA" if "a" in image.mode.lower() and image.mode != "LAB" else "RGB")


def _reason(error: Exception) -> str:
    # Pillow shows the address of the file in memory.
    return re.sub(r" <[^>]*>", "", " ".join(f"{type(error).__name__}: {error}".split()))[:120]


def is_deep(head: bytes) -> bool:
    """Return whether a file is a PNG of 16 bits, by its first bytes."""
    return head.startswith(PNG) and head[24:25] == b"\x10"


def depth_of(highest: int) -> int:
    """Return how many of 16 bits are used, from the highest value: the least of `DEPTHS` that holds it."""
    return next(bits for bits in DEPTHS if highest < 1 << bits)
