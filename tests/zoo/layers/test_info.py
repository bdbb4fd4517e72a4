"""The info of a model travels with it: files, pickles, clones and configurations; Keras alone ignores it."""

from __future__ import annotations

import copy
import json
import pickle

import h5py
import keras
import numpy as np
import pytest

import zoo
from zoo.common.errors import BadOption
from zoo.layers import saving

STATED = zoo.PreprocessingConfig((1.0, 2.0, 3.0), (4.0,), "bicubic", 0.9)
NAMES = ["mobilenet_tiny", "resnet_tiny", "vit_micro_tiny", "encoder_tiny", "transformer_tiny", "mlp_tiny"]


def from_file(model, folder):
    model.save(folder / "model.keras")
    return keras.saving.load_model(folder / "model.keras")


COPIES = {
    "file": from_file,
    "pickle": lambda model, _: pickle.loads(pickle.dumps(model)),
    "deep copy": lambda model, _: copy.deepcopy(model),
    "clone": lambda model, _: keras.models.clone_model(model),
    "config": lambda model, _: type(model).from_config(model.get_config()),
    "twice": lambda model, folder: keras.models.clone_model(from_file(model, folder)),
}


QUICK = ("mlp", "resnet", "vit_micro", "encoder")
# Quick are every way for a model of Keras' layers, and a file for one of each kind of layers of the zoo.
EVERY_WAY, BY_FILE = ("resnet_tiny",), ("mlp_tiny", "vit_micro_tiny", "encoder_tiny")
CASES = [
    pytest.param(
        name,
        how,
        marks=[] if name in EVERY_WAY or (how == "file" and name in BY_FILE) else pytest.mark.slow,
    )
    for name in NAMES
    for how in COPIES
]


@pytest.mark.parametrize(("name", "how"), CASES)
def test_info_survives(name, how, tmp_path):
    """The info is the same, and so is the class."""
    model = zoo.get(name, preprocessing=STATED, dropout=0.3)
    again = COPIES[how](model, tmp_path)
    assert zoo.info(again) == zoo.info(model)
    assert zoo.preprocessing(again) == STATED
    assert zoo.info(again).options["dropout"] == 0.3
    assert type(again) is type(model)


@pytest.mark.parametrize("family", [pytest.param("*_tiny", marks=pytest.mark.slow), *(f"{n}_tiny" for n in QUICK)])
def test_every_model_has_an_info(family):
    """Its name, all its options and the spec's preprocessing are known before any weights are, and JSON-safe."""
    from zoo.build import options_of
    from zoo.specs.registry import models

    for name in zoo.list_models(family):
        info = zoo.info(zoo.get(name))
        assert info.name == name
        assert info.options.keys() == options_of(models[name]).keys()
        assert info.preprocessing == zoo.spec(name).preprocessing
        assert zoo.ModelInfo.from_json(json.loads(json.dumps(info.to_json()))) == info


def test_keras_own_models_have_none():
    """A model of Keras has no info, and neither has a model made from parts, unless it gets one."""
    plain = keras.Sequential([keras.layers.Dense(2)])
    assert zoo.info(plain) is zoo.preprocessing(plain) is None
    model = zoo.get("resnet_tiny")
    part = keras.Model(model.input, model.get_layer("stem").output)
    assert zoo.info(part) is None
    assert zoo.info(saving.with_info(part, zoo.info(model))) == zoo.info(model)


def test_info_of_the_first_model_inside():
    """A model around one of the zoo has its info, in memory and from its file; one around its output has not."""
    trunk = zoo.get("resnet_tiny", classes=0)
    around = keras.Sequential([keras.Input((32, 32, 3)), trunk, keras.layers.Dense(3)])
    assert zoo.info(around) == zoo.info(trunk)
    inputs = keras.Input((4,))
    pixels = keras.layers.Reshape((32, 32, 3))(keras.layers.Dense(32 * 32 * 3)(inputs))
    assert zoo.info(keras.Model(inputs, trunk(pixels))) is None


def test_features_have_the_info():
    """Feature maps have the preprocessing of their model."""
    maps = zoo.features("resnet_tiny", preprocessing="caffe")
    assert zoo.preprocessing(maps).mean == (123.68, 116.779, 103.939)
    assert zoo.preprocessing(maps).channel_order == "rgb"


ALONE = """
import json, sys
import h5py
import keras
import numpy as np
model = keras.saving.load_model(sys.argv[1])
assert "zoo" not in sys.modules
outputs = np.asarray(model(np.ones((1, 32, 32, 3)))).tolist()
print(json.dumps([type(model).__name__, hasattr(model, "zoo_info"), outputs]))
"""


@pytest.mark.slow
def test_keras_alone_ignores_the_info(printed, tmp_path):
    """The file of a model of Keras' layers opens without the zoo, with the same outputs."""
    model = zoo.get("resnet_tiny")
    model.save(tmp_path / "model.keras")
    kind, known, outputs = printed("-c", ALONE, tmp_path / "model.keras")
    assert (kind, known) == ("Functional", False)
    np.testing.assert_allclose(outputs, model(np.ones((1, 32, 32, 3))), rtol=1e-4, atol=1e-5)


def stored_info(path):
    """The info in a file of weights."""
    with h5py.File(path, "r") as file:
        return saving.read_h5_info(file)


def test_h5_weights_have_the_info(tmp_path):
    """A `.weights.h5` file has it at its root, and Keras loads the file as any other."""
    model = zoo.get("resnet_tiny", preprocessing=STATED)
    model.save_weights(tmp_path / "model.weights.h5")
    assert stored_info(tmp_path / "model.weights.h5") == zoo.info(model)
    other = zoo.get("resnet_tiny")
    other.load_weights(tmp_path / "model.weights.h5")
    assert all(np.array_equal(a, b) for a, b in zip(model.get_weights(), other.get_weights(), strict=True))
    keras.Model(model.input, model.output).save_weights(tmp_path / "plain.weights.h5")
    assert stored_info(tmp_path / "plain.weights.h5") is None


@pytest.mark.parametrize("values", [None, 3, [], {}, {"name": 3}, {"name": "x", "options": [1]}])
def test_damaged_info_is_refused(values):
    """A value that is no info is refused in one line."""
    with pytest.raises(BadOption, match="Received: info") as error:
        zoo.ModelInfo.from_json(values)
    assert "\n" not in str(error.value)


def test_keys_of_a_later_version_are_ignored():
    """A file of a later version opens, as far as this version knows its info."""
    assert zoo.ModelInfo.from_json({"name": "x", "later": 1}) == zoo.ModelInfo("x")
