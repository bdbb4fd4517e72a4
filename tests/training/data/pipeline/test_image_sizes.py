"""Which preprocessing, size and channels images have: the recipe's, the data's or the model's."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from digit_batches import digits
from PIL import Image

import zoo
from training import DataConfig, Recipe
from training.data.pipeline.opening import open_pipeline
from zoo import PreprocessingConfig
from zoo.common.errors import BadOption


def test_preprocessing_for_color_is_averaged_for_grayscale():
    """For grayscale images, a preprocessing config for three channels is averaged; the rest stays."""
    preprocessing = PreprocessingConfig((1.0, 2.0, 6.0), (4.0, 5.0, 9.0), "bicubic", 0.9)
    assert digits(preprocessing=preprocessing).preprocessing == PreprocessingConfig((3.0,), (6.0,), "bicubic", 0.9)
    one = dataclasses.replace(preprocessing, std=(4.0,))
    assert digits(preprocessing=one).preprocessing == PreprocessingConfig((3.0,), (4.0,), "bicubic", 0.9)
    many = dataclasses.replace(preprocessing, mean=(2.0,))
    assert digits(preprocessing=many).preprocessing == PreprocessingConfig((2.0,), (6.0,), "bicubic", 0.9)


def test_preprocessing_of_the_recipe_comes_before_that_of_the_data():
    """The recipe's preprocessing config applies if it has one, the data's otherwise."""
    assert digits().preprocessing.mean == (78.0,)
    assert digits(preprocessing=PreprocessingConfig(mean=(3.0,))).preprocessing.mean == (3.0,)
    x, _ = next(iter(digits(preprocessing=PreprocessingConfig(mean=(3.0,), std=(2.0,))).evaluate("test")))
    raw, _ = digits().raw("test", 360)
    np.testing.assert_allclose(x, (raw[:64] - 3) / 2, rtol=1e-6)


def test_preprocessing_of_the_model_is_the_last_resort(tmp_path):
    """Folders of images have no preprocessing config, so the model's config and size apply."""
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        for i in range(10):
            pixels = np.random.default_rng(i).integers(0, 255, (40, 50, 3)).astype("uint8")
            Image.fromarray(pixels).save(tmp_path / name / f"{i}.png")
    recipe = Recipe("test", data=DataConfig("folder", path=str(tmp_path), batch_size=4))
    pipe = open_pipeline(recipe, zoo.spec("resnet_tiny"))
    assert pipe.preprocessing == zoo.spec("resnet_tiny").preprocessing
    assert pipe.shape == (32, 32, 3)
    x, y = next(iter(pipe.train(0)))
    assert (x.shape, y.shape) == ((4, 32, 32, 3), (4, 2))


def test_size_and_channels_of_the_recipe():
    """data.image_size and data.channels apply if they are given."""
    pipe = digits(image_size=(12, 16), channels=3)
    assert pipe.shape == (12, 16, 3)
    x, _ = next(iter(pipe.evaluate("test")))
    assert x.shape == (64, 12, 16, 3)
    np.testing.assert_array_equal(x[..., 0], x[..., 2])


@pytest.mark.parametrize("size", [(8,), (8, 8, 1), (0, 8), (-1, 8)])
def test_image_size_must_be_height_and_width(size):
    """Anything but two sizes of at least 1 is refused."""
    with pytest.raises(BadOption, match=r"data\.image_size must be \[height, width\]"):
        digits(image_size=size)
