"""Images decode to the pixels of any format, resized and cropped as by Pillow; scaling is minus mean over std."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image
from small_images import encoded, noise

from training.common.preprocess import decode, normalize
from zoo import PreprocessingConfig
from zoo.common.errors import BadOption


@pytest.mark.parametrize("channels", [1, 3])
def test_decode_is_exact_where_the_size_fits(channels):
    """An image of the right size keeps its exact pixels."""
    pixels = noise(16, 16, channels)
    found = decode(encoded(pixels), (16, 16, channels), PreprocessingConfig()).numpy()
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, pixels)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "BMP", "GIF", "WEBP"])
@pytest.mark.parametrize("channels", [1, 3])
def test_decode_takes_every_format_in_gray_and_color(kind, channels):
    """A color image of any supported format decodes to 1 or 3 channels."""
    found = decode(encoded(noise(16, 16), kind), (8, 8, channels), PreprocessingConfig())
    assert found.shape == (8, 8, channels)


@pytest.mark.parametrize("mode", ["L", "LA", "RGBA", "P", "CMYK", "1"])
@pytest.mark.parametrize("channels", [1, 3])
def test_decode_takes_every_kind_of_pixel(mode, channels):
    """Grayscale, palette, alpha and CMYK images decode to the requested channels."""
    image = Image.fromarray(noise(16, 16)).convert(mode)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG" if mode == "CMYK" else "PNG")
    assert decode(buffer.getvalue(), (8, 8, channels), PreprocessingConfig()).shape == (8, 8, channels)


def test_decode_takes_webp_with_alpha():
    """A WebP image with an alpha channel, which TensorFlow does not drop, is decoded or reported as bad."""
    image = Image.fromarray(np.random.default_rng(0).integers(0, 255, (16, 16, 4)).astype("uint8"))
    buffer = io.BytesIO()
    image.save(buffer, "WEBP")
    assert decode(buffer.getvalue(), (8, 8, 3), PreprocessingConfig()).shape == (8, 8, 3)


def by_pillow(pixels, shape, crop):
    """Resize the shorter side to size / crop and crop the center, with Pillow."""
    height, width = shape
    scale = max(height / crop / pixels.shape[0], width / crop / pixels.shape[1])
    size = round(pixels.shape[0] * scale), round(pixels.shape[1] * scale)
    resized = np.asarray(Image.fromarray(pixels.squeeze()).resize(size[::-1], Image.Resampling.BILINEAR))
    top, left = (size[0] - height) // 2, (size[1] - width) // 2
    return resized[top : top + height, left : left + width].reshape(height, width, -1)


@pytest.mark.parametrize("crop", [1.0, 0.875])
@pytest.mark.parametrize("size", [(64, 96), (96, 64), (20, 24), (200, 50)])
@pytest.mark.parametrize("channels", [1, 3])
def test_decode_resizes_and_crops_as_pillow_does(size, crop, channels):
    """The shorter side is resized with antialiasing and the center is cropped: within two levels of Pillow."""
    pixels = noise(*size, channels)
    found = decode(encoded(pixels), (32, 32, channels), PreprocessingConfig(crop=crop)).numpy()
    assert np.abs(found - by_pillow(pixels, (32, 32), crop)).max() <= 2


def test_decode_gives_whole_levels():
    """The resized image is rounded and clipped, so that an 8-bit input can hold it."""
    pixels = np.kron(np.random.default_rng(0).integers(0, 2, (8, 8, 1)), np.full((9, 9, 1), 255)).astype("uint8")
    found = decode(encoded(pixels), (16, 16, 1), PreprocessingConfig(interpolation="bicubic")).numpy()
    np.testing.assert_array_equal(found, np.rint(found))
    assert found.min() >= 0
    assert found.max() <= 255


def test_decode_crops_the_center():
    """The middle of a wide image remains."""
    pixels = np.repeat(np.arange(0, 60, dtype="uint8")[None, :, None], 20, axis=0)
    found = decode(encoded(pixels), (20, 20, 1), PreprocessingConfig()).numpy()
    np.testing.assert_array_equal(found[0, :, 0], np.arange(20, 40))


@pytest.mark.parametrize(
    ("mean", "std"), [((0.0,), (1.0,)), ((78.0,), (95.7,)), ((1.0, 2.0, 3.0), (4.0,)), ((5.0,), (1.0, 2.0, 3.0))]
)
def test_normalize_is_minus_mean_over_std(mean, std):
    """(x - mean) / std, by channel or for all, in float32."""
    x = noise(5, 7)
    found = normalize(x, PreprocessingConfig(mean, std)).numpy()
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, (x.astype("float64") - mean) / std, rtol=1e-5, atol=1e-5)


def test_preprocessing_checks_its_channels():
    """Three means do not fit one channel."""
    with pytest.raises(BadOption, match="must have 1 number for data of 1 channels"):
        PreprocessingConfig(mean=(1.0, 2.0, 3.0)).check(1)
