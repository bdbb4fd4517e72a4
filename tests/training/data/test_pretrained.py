"""Options, preprocessing and license of pretrained weights travel through fine-tuning."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

import training
import zoo
from training.common.preprocess import decode, normalize
from training.data.pretrained import architecture, expected_preprocessing, with_data
from training.recipe.recipe import Recipe
from zoo.common.errors import BadOption
from zoo.specs.preprocessing import PreprocessingConfig

# Grayscale digits, as in the data.
SHAPE = (8, 8, 1)
OWN = PreprocessingConfig(mean=(60.0,), std=(90.0,), crop=0.875)
QUICK = {
    "model.name": "resnet_tiny",
    "epochs": 1,
    "schedule.warmup_epochs": 0,
    "data.augment": {},
    "data.batch_size": 256,
    "log.every": 0,
    "log.misclassified": 0,
}


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A file of weights with options and preprocessing that are not the defaults."""
    path = tmp_path_factory.mktemp("weights") / "weights.safetensors"
    model = zoo.get("resnet_tiny", input_shape=SHAPE, classes=3, activation="silu", preprocessing=OWN)
    zoo.save_weights(model, path)
    return path


def test_they_travel_to_the_trained_file(weights, tmp_path):
    """A run trains with them, resumes from its own files alone, and its model states them with its own labels."""
    run = training.train("digits_resnet", {**QUICK, "model.weights": str(weights)}, run=tmp_path / "run")
    assert run.result()["preprocessing"] == OWN.to_json()
    info = zoo.info(keras.saving.load_model(run.model_path))
    assert (info.preprocessing, info.options["activation"]) == (OWN, "silu")
    assert info.labels == tuple(map(str, range(10)))
    weights.rename(tmp_path / "gone.safetensors")
    try:
        assert training.evaluate(run).split == "test"
    finally:
        (tmp_path / "gone.safetensors").rename(weights)


def test_the_recipe_has_precedence():
    """`data.preprocessing` sets what a file cannot state; without either the weights are refused."""
    info = zoo.ModelInfo("resnet_tiny", preprocessing=OWN)
    assert expected_preprocessing(Recipe("a"), info) == OWN
    with pytest.raises(
        BadOption, match=r"state the preprocessing .* data\.preprocessing\.mean and data\.preprocessing\.std"
    ):
        expected_preprocessing(Recipe("a"), zoo.ModelInfo("resnet_tiny"))


def test_scaling_inside_a_model_becomes_preprocessing():
    """A model whose file scales pixels itself is trained without this layer."""
    raw = np.random.default_rng(0).uniform(0, 255, (2, 4, 4, 3)).astype("float32")
    scale, offset = (0.5, 0.25, 0.125), (1.0, 2.0, 3.0)
    info = zoo.ModelInfo("efficientnet_b0", preprocessing=OWN, rescaling=(scale, offset))
    found = normalize(raw, expected_preprocessing(Recipe("a"), info))
    np.testing.assert_allclose(found, (raw - 60.0) / 90.0 * scale + offset, rtol=1e-5, atol=1e-5)


def test_options_of_the_recipe_are_over_those_of_the_weights():
    """Random weights have no options; a recipe's own win."""
    info = zoo.ModelInfo("resnet_tiny", options={"activation": "silu", "dropout": 0.1})
    assert architecture(None, {"dropout": 0.5}) == {"dropout": 0.5}
    assert architecture(info, {"dropout": 0.5}) == {"activation": "silu", "dropout": 0.5}


def test_license_and_origin_are_inherited():
    """A fine-tuned model names the license and the origin of its weights, and no digest of another file."""
    start = zoo.ModelInfo("resnet_tiny", license="mit", origin="timm/x", revision="c0ffee", sha256="ab")
    model = with_data(zoo.get("resnet_tiny"), OWN, ("a", "b"), start)
    info = zoo.info(model)
    assert (info.license, info.origin, info.revision, info.sha256) == ("mit", "timm/x", "c0ffee", None)
    assert (info.preprocessing, info.labels) == (OWN, ("a", "b"))
    plain = keras.Sequential([keras.layers.Input((2,)), keras.layers.Dense(1)])
    assert with_data(plain, OWN, (), None) is plain


def png(pixels):
    """An image as the bytes of a PNG file."""
    return tf.io.encode_png(np.asarray(pixels, "uint8"))


@pytest.mark.parametrize("background", [(255.0,), (0.0,), (10.0, 20.0, 30.0)])
@pytest.mark.parametrize("channels", [2, 4])
def test_transparent_pixels_show_the_background(channels, background):
    """Half transparent pixels are a mixture, and what is below transparent ones does not show."""
    color = np.full((4, 4, channels - 1), 100)
    alpha = np.repeat(np.array([0, 51, 204, 255]), 4).reshape(4, 4, 1)
    config = PreprocessingConfig(background=background)
    found = decode(png(np.concatenate([color, alpha], -1)), (4, 4, 3), config)
    expected = np.round(100 * alpha / 255 + np.array(background) * (1 - alpha / 255))
    np.testing.assert_array_equal(found, np.broadcast_to(expected, (4, 4, 3)))


def test_fourth_channel_of_a_bitmap_is_no_alpha():
    """A BMP file of 32 bits a pixel often has zeros there."""
    pixels = np.random.default_rng(0).integers(0, 255, (2, 2, 3), "uint8")
    rows = np.concatenate([pixels[::-1, :, ::-1], np.zeros((2, 2, 1), "uint8")], -1).tobytes()
    header = b"BM" + (54 + len(rows)).to_bytes(4, "little") + bytes(4) + (54).to_bytes(4, "little")
    fields = [(40, 4), (2, 4), (2, 4), (1, 2), (32, 2), (0, 4), (len(rows), 4), (0, 4), (0, 4), (0, 4), (0, 4)]
    content = header + b"".join(value.to_bytes(size, "little") for value, size in fields) + rows
    np.testing.assert_array_equal(decode(content, (2, 2, 3), PreprocessingConfig()), pixels)
