"""Random crops: distributed as torchvision's, cut while decoding, and the same for encoded images and batches."""

from __future__ import annotations

import io
import math

import numpy as np
import pytest
from augment_images import SEED, batch, floats, photo
from PIL import Image
from scipy import stats

from training import AugmentConfig
from training.augment import color
from training.augment.crop import TRIES, boxes, crop_batch, crop_encoded, draw_crops
from zoo import PreprocessingConfig

CROP = AugmentConfig(crop_scale=(0.08, 1.0))


def reference_crop(height, width, random, scale=(0.08, 1.0), ratio=(0.75, 4 / 3)):
    """Draw as torchvision's RandomResizedCrop.get_params does."""
    for _ in range(10):
        area = height * width * random.uniform(*scale)
        aspect = math.exp(random.uniform(math.log(ratio[0]), math.log(ratio[1])))
        w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < w <= width and 0 < h <= height:
            return random.integers(0, height - h + 1), random.integers(0, width - w + 1), h, w
    if width / height < ratio[0]:
        w, h = width, round(width / ratio[0])
    elif width / height > ratio[1]:
        w, h = round(height * ratio[1]), height
    else:
        w, h = width, height
    return (height - h) // 2, (width - w) // 2, h, w


@pytest.mark.parametrize("size", [(400, 500), (60, 300)])
def test_crops_are_distributed_as_those_of_torchvision(size):
    """Positions and sizes of crops follow the same distributions, which differ from those of another scale."""
    numbers, mirrored = draw_crops(3000, SEED)
    found = boxes(numbers, float(size[0]), float(size[1]), CROP).numpy()
    random = np.random.default_rng(0)
    wanted = np.array([reference_crop(*size, random) for _ in range(3000)])
    other = np.array([reference_crop(*size, random, scale=(0.2, 1.0)) for _ in range(3000)])
    assert all(stats.ks_2samp(found[:, i], wanted[:, i]).pvalue > 0.005 for i in range(4))
    assert stats.ks_2samp(found[:, 2], other[:, 2]).pvalue < 1e-6
    assert (found[:, :2] >= 0).all()
    assert (found[:, 0] + found[:, 2] <= size[0]).all()
    assert (found[:, 1] + found[:, 3] <= size[1]).all()
    assert 0.46 < mirrored.numpy().mean() < 0.54


@pytest.mark.parametrize(("size", "wanted"), [
    ((20, 1000), (0, 486, 20, 27)), ((1000, 20), (486, 0, 27, 20)), ((30, 30), (0, 0, 30, 30)),
])  # fmt: skip
def test_crop_falls_back_to_the_middle(size, wanted):
    """If ten tries do not fit, the crop is the largest centered one with an allowed ratio."""
    # The whole area at the extreme ratio never fits into these.
    numbers = np.ones((1, 4, TRIES), "float32")
    if size == (1000, 20):
        numbers[:, 1] = 0
    found = boxes(numbers, float(size[0]), float(size[1]), CROP).numpy()[0]
    assert tuple(found) == wanted


def encoded(image, kind="JPEG", **options):
    """Return an encoded image file as bytes."""
    buffer = io.BytesIO()
    Image.fromarray(image.squeeze()).save(buffer, kind, **options)
    return buffer.getvalue()


def numbers_for(seed):
    """Return the random numbers of one crop."""
    return draw_crops(1, [7, seed])[0][0]


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "BMP"])
@pytest.mark.parametrize("channels", [1, 3])
def test_encoded_crop_is_the_crop_of_the_decoded_image(kind, channels):
    """Decoding a crop gives the pixels of that crop, resized as by TensorFlow, in every format, gray or color."""
    import tensorflow as tf

    content = encoded(photo(1, 100, 120), kind)
    whole = tf.io.decode_image(content, expand_animations=False).numpy().astype("float32")
    for seed in range(4):
        numbers = numbers_for(seed)
        found = (
            crop_encoded(content, numbers, (64, 64, channels), PreprocessingConfig(), CROP).numpy().astype("float32")
        )
        top, left, tall, wide = boxes(numbers, 100.0, 120.0, CROP).numpy()
        crop = whole[top : top + tall, left : left + wide]
        if channels == 1:
            crop = color.to_grayscale(crop[None]).numpy()[0]
        wanted = tf.image.resize(crop, (64, 64)).numpy()
        assert found.shape == (64, 64, channels)
        # A crop of a JPEG begins within a block of colors, which a full decode smooths across its edge.
        assert np.abs(found - wanted)[2:-2, 2:-2].mean() < (1.0 if kind == "JPEG" else 0.51)


@pytest.mark.parametrize("size", [(40, 40), (24, 30), (11, 11)])
def test_large_crops_are_shrunk_while_decoding(size):
    """The decoder shrinks a crop that is 2, 4 or 8 times too large, close to Pillow's antialiased resize."""
    image = np.asarray(Image.fromarray(photo(2, 90, 100)).resize((1000, 900), Image.Resampling.BICUBIC))
    image = np.clip(image + np.random.default_rng(0).normal(0, 20, image.shape), 0, 255).astype("uint8")
    content = encoded(image, quality=95)
    config = AugmentConfig(crop_scale=(0.8, 0.8), crop_ratio=(1.0, 1.0))
    numbers = numbers_for(1)
    top, left, tall, wide = boxes(numbers, 900.0, 1000.0, config).numpy()
    found = crop_encoded(content, numbers, (*size, 3), PreprocessingConfig(), config).numpy().astype("float64")
    crop = Image.open(io.BytesIO(content)).crop((left, top, left + wide, top + tall))
    wanted = np.asarray(crop.resize(size[::-1], Image.Resampling.BILINEAR), "float64")
    aliased = np.asarray(crop.resize(size[::-1], Image.Resampling.NEAREST), "float64")
    assert np.abs(found - wanted).mean() < 0.5 * np.abs(aliased - wanted).mean()


def test_crop_of_a_batch_is_the_crop_of_each():
    """Images with the final size are cropped as arrays, with the same boxes and the same resizing."""
    import tensorflow as tf

    images = floats(batch(6, height=32, width=32))
    found = crop_batch(images, CROP, SEED).numpy()
    crops = boxes(draw_crops(6, SEED)[0], 32.0, 32.0, CROP).numpy()
    for image, moved, (top, left, tall, wide) in zip(images, found, crops, strict=True):
        wanted = tf.image.resize(image[top : top + tall, left : left + wide], (32, 32)).numpy()
        # At the edge of the crop, but not of the image, resizing also sees the neighboring pixel.
        assert np.abs(moved - wanted)[3:-3, 3:-3].max() < 0.1
