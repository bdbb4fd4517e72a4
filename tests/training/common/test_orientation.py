"""Photographs with EXIF orientation are read upright, as Pillow turns them, on every route."""

from __future__ import annotations

import functools
import io

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageOps

import zoo
from training.augment.crop import crop_encoded
from training.common.orientation import may_be_turned, orientation_of, stored_box, upright, upright_size
from training.common.preprocess import decode, decode_opaque
from training.data.pipeline.encoding import ImageEncoder
from training.data.readers.loading import load_dataset, open_dataset
from training.recipe.config import AugmentConfig, DataConfig

ALL = range(1, 9)
FORMATS = {"JPEG": {"quality": 98, "subsampling": 0}, "PNG": {}, "WEBP": {"lossless": True}}
PLAIN = zoo.PreprocessingConfig()
CROPS = AugmentConfig(crop_scale=(0.2, 1.0))
FILE = tf.TensorSpec((), tf.string)
read = tf.function(orientation_of, input_signature=[FILE])
pixels_of = tf.function(lambda x: decode_opaque(x, PLAIN), input_signature=[FILE])
resized = tf.function(lambda x: decode(x, (16, 24, 3), PLAIN), input_signature=[FILE])
cropped = tf.function(
    lambda x, numbers: crop_encoded(x, numbers, (24, 24, 3), PLAIN, CROPS),
    input_signature=[FILE, tf.TensorSpec((4, 10))],
)


def picture(height=40, width=64):
    """A picture without any symmetry, smooth enough for a JPEG."""
    y, x = np.mgrid[:height, :width].astype("float32")
    return np.stack([255 * x / width, 255 * y / height, 127 * (x / width + (y / height) ** 2)], -1).astype("uint8")


def encode(kind, orientation=None, big=True, extra=0):
    """The picture as a file, with metadata of a camera: other tags before and behind the orientation."""
    exif = Image.Exif()
    exif.endian = ">" if big else "<"
    exif[0x010F], exif[0x0110], exif[0x0131] = "Maker", "Model" + "x" * extra, "Software"
    if orientation is not None:
        exif[0x0112] = orientation
    file = io.BytesIO()
    Image.fromarray(picture()).save(file, kind, exif=exif.tobytes(), **FORMATS[kind])
    return file.getvalue()


def without_metadata(content):
    """The turned pixels as another file."""
    file = io.BytesIO()
    Image.fromarray(expected(content)).save(file, "PNG")
    return file.getvalue()


def expected(content):
    """The pixels of Pillow."""
    return np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(content))).convert("RGB"))


@pytest.mark.parametrize("kind", FORMATS)
def test_every_orientation_is_that_of_pillow(kind):
    """In both byte orders, of every format that has metadata; without the tag, and with invalid ones, pixels stay."""
    for orientation in (*ALL, None, 0, 9, 65535):
        for big in (True, False):
            content = encode(kind, orientation, big, extra=300)
            assert int(read(content)) == (orientation if orientation in ALL else 1), (orientation, big)
            found = np.asarray(pixels_of(content)).astype(int)
            assert found.shape == expected(content).shape
            assert np.abs(found - expected(content)).max() <= 5


def test_pixels_are_turned_before_they_are_resized():
    """`decode`, which artifacts contain too, gives the same for turned pixels with metadata as for upright ones."""
    for orientation in ALL:
        content = encode("PNG", orientation)
        np.testing.assert_array_equal(resized(content), resized(without_metadata(content)))


def test_crops_are_those_of_the_upright_image():
    """A crop that is cut while decoding covers the same part as a crop of the turned image."""
    numbers = np.random.default_rng(0).random((8, 4, 10), "float32")
    for orientation, drawn in zip(ALL, numbers, strict=True):
        content = encode("JPEG", orientation)
        one, two = (np.asarray(cropped(c, drawn), int) for c in (content, without_metadata(content)))
        assert np.abs(one - two).max() <= 5, orientation
    wrong, right = (np.asarray(cropped(encode("JPEG", o), numbers[0]), int) for o in (6, 1))
    assert np.abs(wrong - right).max() > 20  # the control


def test_boxes_are_where_the_pixels_are():
    """A box of the upright image holds the pixels of the box that is cut from the stored image."""
    pixels = np.arange(5 * 7 * 1).reshape(5, 7, 1)
    for orientation in ALL:
        whole = np.asarray(upright(pixels, orientation))
        size = upright_size(tf.constant([5, 7]), orientation)
        assert tuple(size) == whole.shape[:2]
        top, left, height, width = np.asarray(stored_box(tf.constant([1, 2, 3, 2]), size, orientation))
        part = upright(pixels[top : top + height, left : left + width], orientation)
        np.testing.assert_array_equal(part, whole[1:4, 2:4])


@pytest.mark.parametrize("kind", FORMATS)
def test_damaged_metadata_is_no_orientation(kind):
    """Cut or altered anywhere, metadata never stops a file that decodes, and the result is one of the eight."""
    content = encode(kind, 6)
    draw = np.random.default_rng(1)
    for place in draw.integers(0, 200, 60):
        altered = bytearray(content)
        altered[place] = draw.integers(256)
        assert int(read(bytes(altered))) in ALL
        assert int(read(content[:place])) in ALL
    assert int(read(b"")) == 1


@pytest.mark.parametrize("kind", FORMATS)
def test_turned_files_are_found(kind, tmp_path):
    """By their metadata alone: others are decoded faster."""
    path = tmp_path / "picture"
    for orientation in (*ALL, None):
        for big in (True, False):
            path.write_bytes(encode(kind, orientation, big, extra=300))
            assert may_be_turned(path) == (orientation not in (1, None))
    assert not may_be_turned(tmp_path / "missing")


def all_examples(dataset):
    """The raw examples of every split."""
    return functools.reduce(lambda one, two: one.concatenate(two), (s.examples for s in dataset.splits.values()))


def test_photographs_train_upright(tmp_path):
    """A folder with a turned photograph gives its upright pixels; one without is decoded faster, to the same."""
    for number, name in enumerate(("cat", "dog")):
        (tmp_path / name).mkdir()
        for i in range(10):
            orientation = 6 if i == 3 and number else None
            (tmp_path / name / f"{i}.jpg").write_bytes(encode("JPEG", orientation))
    config = DataConfig("folder", path=str(tmp_path))
    assert open_dataset(config).turned
    dataset = load_dataset(config)
    assert dataset.turned
    found = {
        image.tobytes()
        for image, _ in ImageEncoder(dataset, (16, 24, 3), PLAIN).decoded(all_examples(dataset)).as_numpy_iterator()
    }
    assert found == {np.asarray(resized(encode("JPEG", o)), "uint8").tobytes() for o in (1, 6)}
    (tmp_path / "dog/3.jpg").write_bytes(encode("JPEG", 1))
    assert open_dataset(config).turned
    assert not load_dataset(config).turned
