"""One file of each kind of image, with what Pillow shows of it."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
from PIL import Image, ImageOps

WIDTH, HEIGHT = 37, 23


def pixels():
    """Return pixels uint8 (height, width, 3) with strong colors."""
    values = np.zeros((HEIGHT, WIDTH, 3), "uint8")
    values[:, :18, 0], values[10:, 20:, 1], values[:8, 25:, 2], values[3:6, 3:6] = 220, 180, 255, 255
    return values


def saved(image, form, **options):
    """Return an image as the bytes of a file."""
    stored = io.BytesIO()
    image.save(stored, form, **options)
    return stored.getvalue()


def padded(row):
    """Return the bytes of a row of a BMP file."""
    return bytes(row) + bytes(-len(row) % 4)


def bmp(bits, compression, rows, *, colors=b"", height=HEIGHT, masks=b""):
    """Return a BMP file of rows, the last first unless the height is negative."""
    body, start = b"".join(rows), 54 + len(masks) + len(colors)
    info = struct.pack(
        "<IiiHHIIiiII", 40, WIDTH, height, 1, bits, compression, len(body), 2835, 2835, len(colors) // 4, 0
    )
    return b"BM" + struct.pack("<IHHI", start + len(body), 0, 0, start) + info + masks + colors + body


def png(depth, color, rows):
    """Return a PNG file of rows of bytes."""

    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", WIDTH, HEIGHT, depth, color, 0, 0, 0))
    data = chunk(b"IDAT", zlib.compress(b"".join(b"\0" + row for row in rows)))
    return b"\x89PNG\r\n\x1a\n" + header + data + chunk(b"IEND", b"")


def run_lengths(rows):
    """Return rows of numbers of colors as a BMP file of 8 bits compresses them."""
    found = b""
    for row in rows:
        ends = [*np.flatnonzero(np.diff(row)).tolist(), len(row) - 1]
        for first, last in zip([-1, *ends], ends, strict=False):
            found += bytes([last - first, int(row[last])])
        found += b"\0\0"
    return [found + b"\0\1"]


def bitmaps():
    """Return BMP files of every kind."""
    values = pixels()
    image = Image.fromarray(values)
    indexed = image.quantize(16)
    numbers = np.asarray(indexed)
    palette = [*indexed.getpalette(), *[0] * 48][:48]
    colors = b"".join(bytes([*palette[i : i + 3][::-1], 0]) for i in range(0, 48, 3))
    whole = colors + bytes(4 * 240)
    five = (values >> 3).astype("<u2")
    packed = five[..., 0] << 11 | (values[..., 1] >> 2).astype("<u2") << 5 | five[..., 2]
    four = np.pad(numbers, [(0, 0), (0, 1)])
    return {
        "24 bits": saved(image, "BMP"),
        "24 bits from the top": bmp(24, 0, [padded(r.tobytes()) for r in values[:, :, ::-1]], height=-HEIGHT),
        "32 bits": bmp(32, 0, [r.tobytes() for r in np.dstack([values[:, :, ::-1], values[:, :, :1] * 0])[::-1]]),
        "gray": saved(image.convert("L"), "BMP"),
        "black and white": saved(image.convert("1"), "BMP"),
        "256 colors": saved(image.quantize(256), "BMP"),
        "16 of 256 colors": bmp(8, 0, [padded(r.tobytes()) for r in numbers[::-1]], colors=whole),
        "256 colors from the top": bmp(8, 0, [padded(r.tobytes()) for r in numbers], colors=whole, height=-HEIGHT),
        "16 colors": bmp(4, 0, [padded((r[::2] << 4 | r[1::2]).tobytes()) for r in four[::-1]], colors=colors),
        "run lengths": bmp(8, 1, run_lengths(numbers[::-1]), colors=whole),
        "5, 6 and 5 bits": bmp(
            16, 3, [padded(r.tobytes()) for r in packed[::-1]], masks=struct.pack("<III", 0xF800, 0x7E0, 0x1F)
        ),
        "5 bits": bmp(16, 0, [padded(r.tobytes()) for r in (five @ [1 << 10, 1 << 5, 1]).astype("<u2")[::-1]]),
    }


def others():
    """Return files of other types that are opaque."""
    image = Image.fromarray(pixels())
    return {
        "png": saved(image, "PNG"),
        "png of colors": saved(image.quantize(16), "PNG", bits=4),
        "png black and white": saved(image.convert("1"), "PNG"),
        "png gray": saved(image.convert("L"), "PNG"),
        "png of 16 bits": png(16, 2, [r.tobytes() for r in (pixels().astype("uint16") * 257).astype(">u2")]),
        "animated png": saved(image, "PNG", save_all=True, append_images=[ImageOps.invert(image)]),
        "gif": saved(image, "GIF"),
        "animated gif": saved(image, "GIF", save_all=True, append_images=[ImageOps.invert(image)]),
        "webp": saved(image, "WEBP", lossless=True),
        "tiff": saved(image, "TIFF"),
        "tiff lzw": saved(image, "TIFF", compression="tiff_lzw"),
        "tiff of colors": saved(image.quantize(16), "TIFF"),
        "tiff black and white": saved(image.convert("1"), "TIFF"),
        "tiff cmyk": saved(image.convert("CMYK"), "TIFF"),
        "tiff of 16 bits": saved(Image.fromarray(np.asarray(image.convert("L")).astype("uint16") * 257), "TIFF"),
        "avif": saved(image, "AVIF", quality=95),
        "jpeg 2000": saved(image, "JPEG2000"),
        "ppm": saved(image, "PPM"),
        "pgm": saved(image.convert("L"), "PPM"),
    }


def jpegs():
    """Return JPEG files, which decoders round differently."""
    image = Image.fromarray(pixels())
    return {
        "jpeg": saved(image, "JPEG", quality=95, subsampling=0),
        "jpeg gray": saved(image.convert("L"), "JPEG", quality=95),
        "jpeg progressive": saved(image, "JPEG", quality=95, subsampling=0, progressive=True),
        "jpeg cmyk": saved(image.convert("CMYK"), "JPEG", quality=95),
        "two jpegs": saved(image, "MPO", quality=95, save_all=True, append_images=[ImageOps.invert(image)]),
    }


def shown(content):
    """Return what Pillow shows of a file, uint8 (height, width, 3)."""
    with Image.open(io.BytesIO(content)) as image:
        if image.mode.startswith("I"):
            return np.repeat((np.asarray(image) >> 8).astype("uint8")[..., None], 3, -1)
        return np.asarray(image.convert("RGB"))
