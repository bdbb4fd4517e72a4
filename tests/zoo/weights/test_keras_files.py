"""Whole Keras models as weights, with any head and around any trunk, and files of Keras 2; nothing is executed."""

from __future__ import annotations

import os
import warnings

import numpy as np
import pytest
from keras_cases import keras_application
from weights_cases import assert_initial, made, one_line, randomize, refusal, relative_error

import zoo
from zoo.common.errors import BadOption

SIZE = (64, 64, 3)


def around(*head):
    """A MobileNetV2 of keras.applications inside a model with another head, all weights random."""
    import keras

    trunk = keras.applications.MobileNetV2(weights=None, include_top=False, input_shape=SIZE)
    return randomize(keras.Sequential([keras.Input(SIZE), trunk, keras.layers.GlobalAveragePooling2D(), *head]))


def dense(units, **options):
    import keras

    return keras.layers.Dense(units, **options)


def pixels():
    return np.random.default_rng(1).uniform(-1, 1, (2, *SIZE)).astype("float32")


def loaded(weights, **options):
    """A mobilenet_v2 with weights, and the lines that loading warned of."""
    with warnings.catch_warnings(record=True) as noted:
        warnings.simplefilter("always")
        model = zoo.get("mobilenet_v2", input_shape=SIZE, weights=weights, **options)
    return model, [line for line in map(str, (warning.message for warning in noted)) if line.startswith("weights=")]


@pytest.fixture(scope="module")
def nested():
    """A trunk with a head of five classes."""
    return around(dense(5))


@pytest.mark.parametrize("kind", [*(pytest.param(kind, marks=pytest.mark.slow) for kind in ("model", ".keras")), ".h5"])
def test_trunk_inside_a_model(kind, nested, tmp_path):
    """Trunk and head are loaded where the classes are equal: its outputs and preprocessing are the library's."""
    weights = nested
    if kind != "model":
        weights = tmp_path / f"nested{kind}"
        nested.save(weights)
    model, lines = loaded(weights, classes=5)
    assert relative_error(model, pixels(), np.asarray(nested(pixels()))) < 1e-4
    assert lines == []
    assert zoo.preprocessing(model) == zoo.spec("mobilenet_v2").weights[-1].preprocessing
    assert zoo.info(model).input_size == (64, 64)
    other, lines = loaded(weights, classes=3)
    assert len(lines) == 1
    assert "have 5 classes; the last layer of mobilenet_v2 (3 classes) starts at random" in lines[0]
    assert_initial(other.get_layer("logits"))
    assert np.array_equal(other.get_layer("stem").kernel.numpy(), model.get_layer("stem").kernel.numpy())
    features, lines = loaded(weights, classes=0)
    assert lines == []
    assert np.array_equal(features.get_layer("top").kernel.numpy(), model.get_layer("top").kernel.numpy())


def test_deeper_head_is_left_out():
    """Two dense layers are no last layer of ours: the trunk is loaded, and one line names what is left out."""
    model, lines = loaded(around(dense(16, name="hidden"), dense(5, name="classes")), classes=5)
    assert len(lines) == 1
    assert "have other layers at their end (hidden, classes); the last layer" in lines[0]
    assert_initial(model.get_layer("logits"))


def test_trunk_alone():
    """A model without a head leaves ours random and says so."""
    model, lines = loaded(around(), classes=5)
    assert len(lines) == 1
    assert "have no last layer that fits" in lines[0]
    assert_initial(model.get_layer("logits"))


def test_operations_around_the_trunk_leave_preprocessing_unknown():
    """Pixels that a model scales itself are not guessed; a layer that we know is taken over."""
    import keras

    trunk = keras.applications.MobileNetV2(weights=None, include_top=False, input_shape=SIZE)
    image = keras.Input(SIZE)
    model, _ = loaded(keras.Model(image, trunk(image / 255.0)), classes=0)
    assert zoo.preprocessing(model) is None
    scaled = keras.Sequential([keras.Input(SIZE), keras.layers.Rescaling(1 / 127.5, -1.0), trunk])
    model, _ = loaded(scaled, include_top=False)
    assert zoo.preprocessing(model).affine() == ([1.0], [0.0])
    values = pixels() * 100
    np.testing.assert_allclose(model(values), scaled(values), rtol=1e-3, atol=1e-5)


def test_published_files_of_keras_2(tmp_path):
    """The names that Keras 2 wrote into its files of weights are read too."""
    import h5py

    theirs = keras_application("MobileNetV2")
    with h5py.File(tmp_path / "theirs.h5", "w") as file:
        file.attrs["layer_names"] = [layer.name for layer in theirs.layers]
        for layer in theirs.layers:
            group, names = file.create_group(layer.name), []
            for variable in layer.weights:
                kind = "depthwise_kernel" if "depthwise" in layer.name and variable.name == "kernel" else variable.name
                names.append(f"{layer.name}/{kind}:0")
                group[names[-1]] = variable.numpy()
            group.attrs["weight_names"] = names
    shape = theirs.input_shape[1:]
    model = zoo.get("mobilenet_v2", input_shape=shape, weights=tmp_path / "theirs.h5")
    values = np.random.default_rng(1).uniform(-1, 1, (2, *shape)).astype("float32")
    assert relative_error(model, values, np.asarray(theirs(values))) < 1e-4


def test_weights_file_of_keras_applications(tmp_path):
    """A `.weights.h5` file of keras.applications is recognized by its names; one that scales pixels is refused."""
    theirs = keras_application("MobileNetV2")
    theirs.save_weights(tmp_path / "theirs.weights.h5")
    shape = theirs.input_shape[1:]
    model = zoo.get("mobilenet_v2", input_shape=shape, weights=tmp_path / "theirs.weights.h5")
    values = np.random.default_rng(1).uniform(-1, 1, (2, *shape)).astype("float32")
    assert relative_error(model, values, np.asarray(theirs(values))) < 1e-4
    scaling = keras_application("EfficientNetB0")
    scaling.save_weights(tmp_path / "scaling.weights.h5")
    message = refusal("efficientnet_b0", tmp_path / "scaling.weights.h5", input_shape=scaling.input_shape[1:])
    assert "without the scaling of pixels in normalization" in message
    assert "model.save('model.keras')" in message


def test_unknown_model_is_to_be_opened_with_keras(tmp_path):
    """A whole model with other layers is named as such; so is a model of keras.applications of another architecture."""
    import keras

    own = keras.Sequential([keras.Input((8,)), dense(3, name="mine")], name="somebody")
    own.save(tmp_path / "own.h5")
    message = refusal("mlp_tiny", tmp_path / "own.h5")
    assert "the whole model 'somebody'" in message
    assert "zoo.load_model" in message
    np.testing.assert_array_equal(zoo.load_model(tmp_path / "own.h5")(np.ones((2, 8))), own(np.ones((2, 8))))
    around(dense(5)).save(tmp_path / "nested.h5")
    assert "mobilenet_v2" in refusal("resnet_tiny", tmp_path / "nested.h5")


@pytest.mark.parametrize(
    "kind",
    [".safetensors", ".h5", "model", *(pytest.param(k, marks=pytest.mark.slow) for k in (".keras", ".weights.h5"))],
)
def test_class_counts_are_named(kind, tmp_path):
    """Weights of another number of classes are refused with both counts and what to pass."""
    from weights_cases import saved

    source = made("resnet_tiny", classes=7)
    if kind == ".h5":
        source.save(tmp_path / "resnet_tiny.h5")
        weights = tmp_path / "resnet_tiny.h5"
    else:
        weights = saved(source, kind, tmp_path)
    message = refusal("resnet_tiny", weights)
    assert "have 7 classes; the model has 10. Pass classes=7, or heads=" in message
    assert "missing" not in message
    assert zoo.get("resnet_tiny", weights=weights, classes=7).output_shape == (None, 7)


KERAS2 = """
import sys
import numpy as np
import tf_keras
tf_keras.utils.set_random_seed(0)
image = tf_keras.Input((8, 8, 3))
x = tf_keras.layers.DepthwiseConv2D(3, name="depthwise")(image)
x = tf_keras.layers.Dense(2)(tf_keras.layers.GlobalAveragePooling2D()(x))
model = tf_keras.Model(image, x, name="second")
model.save(sys.argv[1])
np.save(sys.argv[2], model(np.ones((1, 8, 8, 3), "float32")))
print("saved")
"""


def test_file_of_keras_2_opens(tmp_path, python):
    """A depthwise convolution of Keras 2 opens with the same outputs; Keras 3 alone (the control) refuses it."""
    import keras

    path, logits = tmp_path / "second.h5", tmp_path / "logits.npy"
    out, err = python("-c", KERAS2, path, logits, warm=True).communicate(timeout=120)
    assert "saved" in out, err
    model = zoo.load_model(path)
    assert type(model.get_layer("depthwise")) is keras.layers.DepthwiseConv2D
    np.testing.assert_allclose(model(np.ones((1, 8, 8, 3))), np.load(logits), rtol=1e-5, atol=1e-6)
    with pytest.raises((TypeError, ValueError), match="groups"):
        keras.saving.load_model(path, compile=False)


@pytest.mark.parametrize("kind", [".h5", ".keras"])
def test_code_in_a_model_is_not_executed(kind, tmp_path, monkeypatch):
    """A Lambda layer is refused, and its function does not run; without the check (the control) it does."""
    import keras

    ran, path = tmp_path / "executed", tmp_path / f"code{kind}"
    monkeypatch.setenv("ZOO_TEST_FILE", str(ran))
    inputs = keras.Input((4,))
    code = keras.layers.Lambda(lambda x: (open(__import__("os").environ["ZOO_TEST_FILE"], "w").close(), x)[1])
    keras.Model(inputs, code(inputs)).save(path)
    os.unlink(ran)
    for use in (zoo.load_model, lambda file: zoo.get("mlp_tiny", weights=file)):
        with pytest.raises(BadOption) as error:
            use(path)
        assert str(path) in one_line(error.value)
    assert not ran.exists()
    keras.saving.load_model(path, safe_mode=False, compile=False)
    assert ran.exists()


@pytest.mark.parametrize("content", [b"", b"text", None])
@pytest.mark.parametrize("name", ["x.h5", "x.keras", "x.weights", "x"])
def test_unreadable_model_is_refused(name, content, tmp_path):
    """A missing, empty or damaged file and another suffix are refused in one line."""
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(BadOption) as error:
        zoo.load_model(tmp_path / name)
    assert str(tmp_path / name) in one_line(error.value)


def test_file_of_weights_is_no_model(tmp_path):
    """A `.weights.h5` file is refused as a model."""
    made("mlp_tiny").save_weights(tmp_path / "x.weights.h5")
    with pytest.raises(BadOption, match=r"weights alone\. Use zoo\.get"):
        zoo.load_model(tmp_path / "x.weights.h5")
