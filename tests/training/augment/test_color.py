"""Operations on colors equal those of Pillow and colorsys, with a factor of its own for each image."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from augment_images import batch, each, floats, pillow
from PIL import ImageEnhance, ImageFilter, ImageOps

from training.augment import color

ENHANCERS = {
    "brightness": ImageEnhance.Brightness,
    "saturation": ImageEnhance.Color,
    "contrast": ImageEnhance.Contrast,
    "sharpness": ImageEnhance.Sharpness,
}


@pytest.mark.parametrize("factor", [0.1, 0.7, 1.0, 1.4, 1.9])
@pytest.mark.parametrize("name", ENHANCERS)
def test_enhancements_are_those_of_pillow(name, factor):
    """Brightness, color, contrast and sharpness equal Pillow's, without its truncation to integers."""
    images = batch()
    found = getattr(color, name)(floats(images), each(factor)).numpy()
    wanted = pillow(lambda image: ENHANCERS[name](image).enhance(factor), images)
    assert np.abs(found - wanted).max() <= 2.01
    assert np.abs(found - wanted).mean() < 1
    assert (factor == 1.0) == (np.abs(found - images).max() < 1e-3)


def test_each_image_has_a_factor_of_its_own():
    """Each image of a batch with different factors equals the image processed alone."""
    images, factors = floats(batch()), np.array([0.2, 0.6, 1.3, 1.8], "float32")
    for name in ENHANCERS:
        found = getattr(color, name)(images, factors).numpy()
        for i in range(4):
            alone = getattr(color, name)(images[i : i + 1], factors[i : i + 1]).numpy()
            np.testing.assert_allclose(found[i], alone[0], atol=1e-3)


def test_smoothing_is_that_of_pillow():
    """With a factor of 0, sharpness is Pillow's SMOOTH filter; the border is unchanged."""
    images = batch()
    found = color.sharpness(floats(images), each(0.0)).numpy()
    assert np.abs(found - pillow(lambda image: image.filter(ImageFilter.SMOOTH), images)).max() <= 1
    np.testing.assert_array_equal(found[:, 0], images[:, 0])


@pytest.mark.parametrize("bits", [2, 4, 5, 7, 8])
def test_posterize_is_that_of_pillow(bits):
    """Posterizing keeps exactly the highest bits."""
    images = batch()
    found = color.posterize(floats(images), each(bits)).numpy()
    np.testing.assert_array_equal(found, pillow(lambda image: ImageOps.posterize(image, bits), images))


@pytest.mark.parametrize("threshold", [0, 60, 128, 255, 256])
def test_solarize_is_that_of_pillow(threshold):
    """Solarizing inverts exactly the values from the threshold on."""
    images = batch()
    found = color.solarize(floats(images), each(threshold)).numpy()
    np.testing.assert_array_equal(found, pillow(lambda image: ImageOps.solarize(image, threshold), images))


def test_autocontrast_is_that_of_pillow():
    """Each channel is stretched to 0 to 255; a constant channel stays."""
    images = np.clip(batch() // 2 + 40, 50, 150).astype("uint8")
    images[0, :, :, 1] = 77
    found = color.autocontrast(floats(images)).numpy()
    assert np.abs(found - pillow(ImageOps.autocontrast, images)).max() <= 1
    np.testing.assert_array_equal(found[0, :, :, 1], 77)
    assert (found[1].min(), found[1].max()) == (0, 255)


@pytest.mark.parametrize("channels", [1, 3])
def test_equalize_is_that_of_pillow(channels):
    """The histogram of each channel is equalized exactly, also in grayscale; a constant image stays."""
    images = batch(channels=channels)
    images[2] = 9
    found = color.equalize(floats(images)).numpy()
    wanted = pillow(ImageOps.equalize, images.squeeze(-1) if channels == 1 else images)
    np.testing.assert_array_equal(found, wanted.reshape(found.shape))


@pytest.mark.parametrize("turn", [-0.5, -0.1, 0.0, 0.25, 0.5])
def test_hue_is_that_of_colorsys(turn):
    """The hue turns while lightness and saturation stay, as in Python's colorsys."""
    import colorsys

    images = batch(1, height=5, width=6)
    found = color.shift_hue(floats(images), each(turn, 1)).numpy()[0]
    for y, x in itertools.product(range(5), range(6)):
        hue, saturation, value = colorsys.rgb_to_hsv(*(images[0, y, x] / 255))
        wanted = np.array(colorsys.hsv_to_rgb((hue + turn) % 1, saturation, value)) * 255
        np.testing.assert_allclose(found[y, x], wanted, atol=0.05)
