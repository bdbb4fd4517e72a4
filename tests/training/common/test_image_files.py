"""Every kind of image file decodes to the pixels that Pillow shows, or is refused; sizes come from headers."""

from __future__ import annotations

import dataclasses
import io
import struct

import numpy as np
import pytest
import tensorflow as tf
from image_kinds import HEIGHT, WIDTH, bitmaps, bmp, jpegs, others, padded, pixels, png, saved, shown
from PIL import Image

from training.common import pixel_limit
from training.common.image_files import (
    UnreadableImage,
    as_png,
    depth_of,
    is_deep,
    needs_conversion,
    pixels_of,
    suffixes,
)
from training.common.preprocess import decode, decode_opaque, still, with_channels
from zoo.specs.preprocessing import PreprocessingConfig

PLAIN = PreprocessingConfig()
FILES = {**bitmaps(), **others(), **jpegs()}


def decoded(content, preprocessing=PLAIN):
    """Return the pixels that training and artifacts see, uint8 (height, width, 3)."""
    content = as_png(content) if needs_conversion(content) else content
    return with_channels(decode_opaque(content, preprocessing), 3).numpy()


@pytest.mark.parametrize("content", FILES.values(), ids=FILES)
def test_every_kind_decodes_as_pillow_shows_it(content):
    """Exactly; JPEGs to two levels in the mean."""
    found, wanted = decoded(content).astype("int64"), shown(content)
    assert found.shape == (HEIGHT, WIDTH, 3)
    assert np.abs(found - wanted).mean() <= (2 if content.startswith(b"\xff\xd8") else 0)
    # The control: another image differs.
    assert np.abs(found - np.roll(wanted, 5, 1)).mean() > 10


@pytest.mark.parametrize("content", FILES.values(), ids=FILES)
def test_sizes_are_read_from_headers(content):
    """Nothing is decoded for them: the first half of most files has them too."""
    assert pixels_of(content) == WIDTH * HEIGHT
    if not needs_conversion(content):
        assert pixels_of(content[: max(66, len(content) // 2)]) == WIDTH * HEIGHT


@pytest.mark.parametrize("name", [name for name in FILES if not needs_conversion(FILES[name])])
def test_artifacts_read_sizes_from_headers_too(name):
    """In a graph, the same number of pixels; a limit refuses the file before it is decoded."""
    content = FILES[name]
    assert int(pixel_limit.pixels(tf.constant(content))) == pixels_of(content) == WIDTH * HEIGHT
    assert pixel_limit.refuse_large(tf.constant(content), WIDTH * HEIGHT).numpy() == content
    with pytest.raises(tf.errors.InvalidArgumentError, match=f"at most {WIDTH * HEIGHT - 1:,} pixels"):
        pixel_limit.refuse_large(tf.constant(content), WIDTH * HEIGHT - 1)
    assert pixel_limit.refuse_large(tf.constant(content), 0).numpy() == content


def test_other_content_has_no_pixels_in_a_graph():
    """Text, and files that end before their header does, are left to the decoder."""
    for content in (b"", b"text", b"\x89PNG", b"BM", b"GIF8"):
        assert int(pixel_limit.pixels(tf.constant(content))) == 0


def test_large_images_are_small_files():
    """Headers that announce more than fits into memory: nothing is allocated to know it."""
    great = struct.pack(">II", 60_000, 50_000)
    content = bytearray(FILES["png"])
    content[16:24] = great
    assert pixels_of(bytes(content)) == 3_000_000_000
    assert int(pixel_limit.pixels(tf.constant(bytes(content)))) == 3_000_000_000
    frame = FILES["jpeg"].index(b"\xff\xc0")
    content = bytearray(FILES["jpeg"])
    content[frame + 5 : frame + 9] = struct.pack(">HH", 60_000, 50_000)
    assert pixels_of(bytes(content)) == 3_000_000_000
    assert int(pixel_limit.pixels(tf.constant(bytes(content)))) == 3_000_000_000
    content = bytearray(FILES["gif"])
    content[6:10] = struct.pack("<HH", 60_000, 50_000)
    assert pixels_of(bytes(content)) == 3_000_000_000
    assert int(pixel_limit.pixels(tf.constant(bytes(content)))) == 3_000_000_000
    content = bytearray(FILES["256 colors"])
    content[18:26] = struct.pack("<ii", 60_000, -50_000)
    assert pixels_of(bytes(content)) == 3_000_000_000
    assert int(pixel_limit.pixels(tf.constant(bytes(content)))) == 3_000_000_000


def test_webp_sizes():
    """Of lossy files, of those without loss, and of those with more than an image."""
    image = Image.fromarray(pixels())
    kinds = [{"quality": 80}, {"lossless": True}, {"quality": 80, "exif": Image.Exif().tobytes() + b"more"}]
    assert {pixels_of(saved(image, "WEBP", **options)) for options in kinds} == {WIDTH * HEIGHT}


def test_frames_of_animations_count():
    """A small canvas with many frames is large: all frames are decoded."""
    frames = [Image.fromarray(np.roll(pixels(), i, 1)) for i in range(40)]
    content = saved(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert pixels_of(content) > 5 * WIDTH * HEIGHT


@pytest.mark.parametrize("content", [b"", b"BM", b"\xff\xd8\xff", b"GIF89a", b"RIFF0000WEBPVP8X", b"no image"])
def test_damaged_headers_have_no_size(content):
    """Decoding says why they are no images."""
    if needs_conversion(content):
        with pytest.raises(UnreadableImage, match=r"^UnidentifiedImageError: [^\n]*$"):
            pixels_of(content)
    else:
        assert pixels_of(content) == 0


def test_what_tensorflow_reads_wrongly_is_refused_in_artifacts():
    """Compressed pixels, and channels in another order; the control passes."""
    import tensorflow as tf

    odd = bmp(32, 3, [bytes(4 * WIDTH)] * HEIGHT, masks=struct.pack("<III", 0xFF, 0xFF00, 0xFF0000))
    for content in (FILES["run lengths"], odd):
        with pytest.raises(tf.errors.InvalidArgumentError, match="BMP file without compression"):
            decode(content, (8, 8, 3), PLAIN)
    assert decode(FILES["256 colors"], (8, 8, 3), PLAIN).shape == (8, 8, 3)
    assert still(FILES["24 bits"]).numpy() == FILES["24 bits"]


def test_channels_in_another_order_are_refused():
    """A BMP file with red first, which Pillow does not know either."""
    rows = [padded(row.tobytes()) for row in np.dstack([pixels(), pixels()[:, :, :1] * 0])[::-1]]
    content = bmp(32, 3, rows, masks=struct.pack("<III", 0xFF, 0xFF00, 0xFF0000))
    with pytest.raises(UnreadableImage, match="bitfields"):
        decoded(content)


@pytest.mark.parametrize("bits", [10, 12, 14])
def test_deep_images_are_scaled_by_the_bits_that_they_use(bits):
    """White of a camera of 12 bits is white, in color, gray, with alpha and as TIFF."""
    values = (pixels() * (((1 << bits) - 1) / 255)).round().astype("uint16")
    content = png(16, 2, [row.tobytes() for row in values.astype(">u2")])
    preprocessing = dataclasses.replace(PLAIN, bits=bits)
    assert is_deep(content)
    assert depth_of(int(values.max())) == bits
    assert np.abs(decoded(content, preprocessing).astype("int64") - pixels()).max() <= 1
    # The control: without it, the image is dark.
    assert decoded(content).max() < 128
    gray = saved(Image.fromarray(values[..., 2]), "TIFF")
    assert np.abs(decoded(gray, preprocessing)[..., 0].astype("int64") - pixels()[..., 2]).max() <= 1
    opaque = np.dstack([values, np.full_like(values[..., :1], 65535)])
    alpha = png(16, 6, [row.tobytes() for row in opaque.astype(">u2")])
    assert np.abs(decoded(alpha, preprocessing).astype("int64") - pixels()).max() <= 1
    assert np.array_equal(decoded(FILES["png"], preprocessing), pixels())


@pytest.mark.parametrize("size", [(2, 40_000), (40_000, 1)])
def test_strips_do_not_fill_memory(size):
    """Resizing the shorter side of a line to 224 pixels would take 50 GB; its middle is what the crop shows."""
    height, width = size
    values = np.zeros((height, width, 3), "uint8")
    values[height // 2 - 20 : height // 2 + 20, width // 2 - 20 : width // 2 + 20] = 255
    assert decode(saved(Image.fromarray(values), "PNG"), (224, 224, 3), PLAIN).numpy().min() == 255
    # The control: a shorter strip is resized whole, to the same.
    middle = values[max(height // 2 - 30, 0) : height // 2 + 30, max(width // 2 - 30, 0) : width // 2 + 30]
    assert decode(saved(Image.fromarray(middle), "PNG"), (224, 224, 3), PLAIN).numpy().min() == 255


def test_bits_are_part_of_the_preprocessing():
    """They are stored where they matter, and out of range they are refused."""
    assert "bits" not in PLAIN.to_json()
    deep = dataclasses.replace(PLAIN, bits=12)
    assert PreprocessingConfig.from_json(deep.to_json()) == deep
    with pytest.raises(ValueError, match=r"bits must be a whole number from 8 to 16. Received: bits=17"):
        PreprocessingConfig(bits=17)


def test_converted_images_are_upright():
    """The orientation of TIFF and AVIF files is applied, and does not apply twice."""
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = Image.fromarray(pixels()).transpose(Image.Transpose.ROTATE_90)
    for form in ("TIFF", "AVIF"):
        found = decoded(
            saved(turned, form, exif=exif, **({"quality": 100, "subsampling": "4:4:4"} if form == "AVIF" else {}))
        )
        assert np.abs(found.astype("int64") - pixels()).mean() < 3


def test_values_that_would_be_lost_are_refused():
    """Floating-point numbers have no bounds, and Pillow drops half of the bits of deep color TIFF files."""
    numbers = saved(Image.fromarray(pixels()[..., 0].astype("float32")), "TIFF")
    for content, bits in ((numbers, 32), (tiff_of_16_bits(), 16)):
        with pytest.raises(UnreadableImage, match=f"TIFF of {bits} bits"):
            as_png(content)


def tiff_of_16_bits():
    """Return a color TIFF of 16 bits, which Pillow cannot write."""
    body = (pixels().astype("<u2") * 257).tobytes()
    tags = [
        (256, 4, 1, WIDTH), (257, 4, 1, HEIGHT), (258, 3, 3, 134), (259, 3, 1, 1), (262, 3, 1, 2), (273, 4, 1, 140),
        (277, 3, 1, 3), (278, 4, 1, HEIGHT), (279, 4, 1, len(body)), (284, 3, 1, 1),
    ]  # fmt: skip
    table = struct.pack("<H", len(tags)) + b"".join(struct.pack("<HHII", *tag) for tag in tags) + bytes(4)
    start = b"II*\0" + struct.pack("<I", 8) + table
    return start + struct.pack("<HHH", 16, 16, 16) + body if len(start) == 134 else b""


def test_suffixes_that_are_read():
    """Those of TensorFlow and Pillow; .heic with its extra, which decodes."""
    found = suffixes()
    assert {".jpg", ".jfif", ".tif", ".tiff", ".avif", ".ppm", ".heic"} <= set(found)
    content = saved(Image.fromarray(pixels()), "HEIF", quality=100)
    assert needs_conversion(content)
    assert np.abs(decoded(content).astype("int64") - shown(content)).max() == 0
    assert np.array(Image.open(io.BytesIO(as_png(content)))).shape == (HEIGHT, WIDTH, 3)


@pytest.mark.parametrize("mode", ["L", "RGB"])
@pytest.mark.parametrize("background", [255.0, 40.0])
def test_a_transparent_color_shows_the_background(mode, background):
    """A chunk tRNS of gray and color PNGs, as Pillow reads it; the same bytes elsewhere in a file change nothing."""
    from PIL import PngImagePlugin

    image = Image.fromarray(pixels()).convert(mode)
    clear = image.getpixel((5, 15))
    content = saved(image, "PNG", transparency=clear)
    assert b"tRNS" in content
    config = PreprocessingConfig(background=(background,))
    behind = Image.new("RGBA", image.size, (int(background),) * 3 + (255,))
    with Image.open(io.BytesIO(content)) as opened:
        wanted = np.asarray(Image.alpha_composite(behind, opened.convert("RGBA")).convert("RGB"))
    found = decode(content, (HEIGHT, WIDTH, 3), config).numpy()
    np.testing.assert_array_equal(found, wanted)
    assert (found != np.asarray(image.convert("RGB"))).any()
    comment = PngImagePlugin.PngInfo()
    comment.add_text("Comment", "tRNS")
    plain = saved(image, "PNG", pnginfo=comment)
    assert b"tRNS" in plain
    np.testing.assert_array_equal(decode(plain, (HEIGHT, WIDTH, 3), config), np.asarray(image.convert("RGB")))


def test_a_first_frame_that_is_smaller_than_its_gif_is_refused():
    """TensorFlow shows that frame alone, Pillow on its canvas; the control passes."""
    import tensorflow as tf

    content = bytearray(FILES["gif"])
    content[6:10] = struct.pack("<HH", WIDTH + 5, HEIGHT + 3)
    with Image.open(io.BytesIO(bytes(content))) as image:
        assert image.size == (WIDTH + 5, HEIGHT + 3)
    with pytest.raises(tf.errors.InvalidArgumentError, match="first frame fills it"):
        decode(bytes(content), (8, 8, 3), PLAIN)
    assert decode(FILES["gif"], (8, 8, 3), PLAIN).shape == (8, 8, 3)
    assert decode(FILES["animated gif"], (8, 8, 3), PLAIN).shape == (8, 8, 3)
