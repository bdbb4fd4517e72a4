"""Weights of the zoo: files and models are restored, also for other channels, heads and features."""

from __future__ import annotations

import functools

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from weights_cases import (
    FILES,
    HEADS,
    TINY,
    TINY_IMAGES,
    assert_same,
    assert_trunk,
    broken_arrays,
    every_file,
    every_tiny,
    inputs_for,
    made,
    one_line,
    randomize,
    relative_error,
    saved,
    values_of,
)

import zoo
from zoo.common import compat
from zoo.common.errors import BadOption
from zoo.weights.loading import load_weights
from zoo.weights.source import WeightsSource


@every_tiny(TINY, ["model", *FILES])
def test_round_trip(name, kind, tmp_path):
    """Every weight and the outputs are restored."""
    model = made(name)
    again = zoo.get(name, weights=saved(model, kind, tmp_path))
    assert_same(values_of(again), values_of(model))
    values = inputs_for(model)
    assert relative_error(again, values, np.asarray(model(values))) < 1e-6


@pytest.mark.parametrize("dtype", ["mixed_bfloat16", "bfloat16", "float16", "float64"])
def test_round_trip_in_other_precisions(dtype, tmp_path):
    """A model in another precision is restored."""
    model = randomize(zoo.get("resnet_tiny", dtype=dtype))
    again = zoo.get("resnet_tiny", dtype=dtype, weights=saved(model, ".safetensors", tmp_path))
    assert_same(values_of(again), values_of(model))


def test_save_weights_writes_safetensors_only(tmp_path):
    """Another suffix is refused, and no file is written; a written file has the metadata of its model."""
    with pytest.raises(BadOption, match=r"must end in \.safetensors") as error:
        zoo.save_weights(made("mlp_tiny"), tmp_path / "weights.h5")
    one_line(error.value)
    assert list(tmp_path.iterdir()) == []
    zoo.save_weights(made("mlp_tiny"), str(tmp_path / "weights.safetensors"))
    assert [path.name for path in tmp_path.iterdir()] == ["weights.safetensors"]
    assert_same(load_file(tmp_path / "weights.safetensors"), values_of(made("mlp_tiny")))


def expected_kernel(kernel, channels):
    """The kernel (h, w, 3, filters) of a first convolution for 1 or 5 channels."""
    if channels == 1:
        return kernel[:, :, :1] + kernel[:, :, 1:2] + kernel[:, :, 2:]
    return kernel[:, :, [0, 1, 2, 0, 1]] * (3 / 5)


@pytest.mark.parametrize("channels", [1, pytest.param(5, marks=pytest.mark.slow)])
@every_tiny(TINY_IMAGES, FILES, one_of_each=False)
def test_other_channels(name, kind, channels, tmp_path):
    """The first kernel is summed for one channel and tiled for five; the rest is as in the file."""
    full, shape = made(name), zoo.spec(name).input_shape
    model = zoo.get(name, input_shape=(*shape[:2], channels), weights=saved(full, kind, tmp_path))
    expected, actual = values_of(full), values_of(model)
    (first,) = [key for key in expected if actual[key].shape != expected[key].shape]
    np.testing.assert_allclose(actual.pop(first), expected_kernel(expected.pop(first), channels), rtol=1e-6, atol=1e-7)
    assert_same(actual, expected)
    if channels == 1:
        gray = inputs_for(model)
        assert relative_error(model, gray, np.asarray(full(np.repeat(gray, 3, axis=3)))) < 1e-4


def test_one_channel_becomes_three(tmp_path):
    """The weights of a model for gray images give the same logits for a gray image in three channels."""
    gray_one = made("resnet_tiny", input_shape=(32, 32, 1))
    model = zoo.get("resnet_tiny", weights=saved(gray_one, ".safetensors", tmp_path))
    gray = inputs_for(gray_one)
    assert relative_error(model, np.repeat(gray, 3, axis=3), np.asarray(gray_one(gray))) < 1e-5


@pytest.mark.parametrize("options", [{"classes": 0}, {"include_top": False}], ids=["features", "map"])
@every_tiny(TINY, FILES, one_of_each=False)
def test_without_the_top(name, kind, options, tmp_path):
    """A file of the whole model loads into its features and its feature map."""
    import keras

    full = made(name)
    part = zoo.get(name, weights=saved(full, kind, tmp_path), **options)
    expected = values_of(full)
    assert_same(values_of(part), {key: expected[key] for key in values_of(part)})
    values = inputs_for(full)
    np.testing.assert_allclose(part(values), keras.Model(full.input, inside(full, part))(values), rtol=1e-5, atol=1e-5)


def inside(full, part):
    """The output of a part of a model in the full one: of the same layer, or of the part's layer on the same inputs."""
    import keras

    layer = compat.producer(part.outputs[0])
    if layer.name in {one.name for one in full.layers}:
        return full.get_layer(layer.name).output
    names = keras.tree.map_structure(lambda x: compat.producer(x).name, layer.input)
    return layer(keras.tree.map_structure(lambda name: full.get_layer(name).output, names))


@pytest.mark.filterwarnings("error::UserWarning")
def test_features_take_weights(tmp_path):
    """`zoo.features` gives the maps of the loaded model, without a warning."""
    import keras

    full = made("resnet_tiny")
    maps = zoo.features("resnet_tiny", weights=saved(full, ".safetensors", tmp_path))
    ends = [full.get_layer(compat.producer(output).name).output for output in maps.outputs]
    values = inputs_for(full)
    for actual, expected in zip(maps(values), keras.Model(full.input, ends)(values), strict=True):
        np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", [*FILES, "model"])
@pytest.mark.parametrize("classes", [0, None], ids=["trunk", "whole"])
@pytest.mark.parametrize(
    "name", ["resnet_tiny", *(pytest.param(n, marks=pytest.mark.slow) for n in ("vgg_tiny", "mlp_tiny"))]
)
def test_new_heads(name, classes, kind, tmp_path):
    """New heads start at random over a trunk, and over a model with another head."""
    source = made(name, classes=classes)
    model = zoo.get(name, heads=HEADS, weights=saved(source, kind, tmp_path))
    assert_trunk(model, values_of(source), ("species_logits", "age_logits"))


@every_file
def test_heads_by_name(kind, tmp_path):
    """Heads of one size in another order load their own weights."""
    source = randomize(zoo.get("mlp_tiny", heads={"species": 4, "genus": 4}))
    model = zoo.get("mlp_tiny", heads={"genus": 4, "species": 4}, weights=saved(source, kind, tmp_path))
    assert_same(values_of(model), values_of(source))


def test_whole_state_is_loaded():
    """Control: without a fault every array is loaded."""
    model = randomize(zoo.get("resnet_tiny"), seed=4)
    load_weights(model, WeightsSource("weights='x'", broken_arrays(lambda arrays: arrays)), lambda: made("resnet_tiny"))
    assert_same(values_of(model), values_of(made("resnet_tiny")))


def test_bias_before_a_norm_is_folded(tmp_path):
    """The bias of a convolution before a norm is subtracted from the moving mean."""
    arrays = values_of(made("resnet_tiny")) | {"stage2_block1_conv1/bias": np.linspace(-1, 1, 16, dtype="float32")}
    save_file(arrays, tmp_path / "biased.safetensors", metadata={"format": "keras-zoo"})
    actual = values_of(zoo.get("resnet_tiny", weights=tmp_path / "biased.safetensors"))
    mean = "stage2_block1_conv1_norm/moving_mean"
    arrays[mean] = arrays[mean] - arrays.pop("stage2_block1_conv1/bias")
    assert_same(actual, arrays)


@pytest.mark.parametrize("channels", [1, 3, 5])
def test_bgr_is_reversed(channels):
    """The first kernel of weights for BGR is reversed to RGB, for any number of channels."""
    model, expected = zoo.get("vgg_tiny", input_shape=(32, 32, channels)), values_of(made("vgg_tiny"))
    load_weights(model, WeightsSource("weights='x'", expected, bgr=True), functools.partial(made, "vgg_tiny"))
    actual, first = values_of(model), "stage1_conv1/kernel"
    reversed_ = expected.pop(first)[:, :, ::-1]
    wanted = reversed_ if channels == 3 else expected_kernel(reversed_, channels)
    np.testing.assert_allclose(actual.pop(first), wanted, rtol=1e-6, atol=1e-7)
    assert_same(actual, expected)


def test_file_with_a_path_like_a_name(tmp_path, monkeypatch):
    """An existing path is a file, also if it looks like a published name."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "timm").mkdir()
    model = zoo.get("resnet_tiny")
    zoo.save_weights(model, "timm/own.safetensors")
    assert_same(values_of(zoo.get("resnet_tiny", weights="timm/own.safetensors")), values_of(model))


def test_save_weights_needs_an_existing_folder(tmp_path):
    """A missing folder and another suffix are refused in one line, and nothing is written."""
    for path in (tmp_path / "none" / "x.safetensors", tmp_path / "x.npz"):
        with pytest.raises(BadOption, match="path must"):
            zoo.save_weights(zoo.get("resnet_tiny"), path)
    assert not list(tmp_path.iterdir())
