"""Layers are registered by `import zoo`, picklable, and keep every option when saved, cloned or rebuilt."""

from __future__ import annotations

import copy
import inspect
import json
import pickle

import keras
import numpy as np
import pytest

import zoo
from export.core import keras_graph
from zoo.layers import core, sequence

IMAGE, ROWS, VECTORS, IDS = (6, 6, 4), (5,), (5, 4), (5,)

# Per layer: every option of its own away from its default, the shapes of its inputs, and the options of the call.
CASES = {
    "Activation": ({"activation": "gelu"}, [VECTORS]),
    "BatchNormalization": ({"momentum": 0.7, "epsilon": 0.1, "center": False}, [IMAGE]),
    "Conv2D": ({"filters": 4, "kernel_size": 3, "groups": 2, "strides": 2, "use_bias": False}, [IMAGE]),
    "Dense": ({"units": 3, "activation": "tanh", "use_bias": False}, [VECTORS]),
    "DepthwiseConv2D": ({"kernel_size": 3, "strides": 2, "padding": "same", "use_bias": False}, [IMAGE]),
    "DropConnectDense": ({"units": 3, "activation": "tanh", "drop_connect": 0.25, "seed": 7}, [ROWS]),
    "LayerNormalization": ({"epsilon": 0.1, "center": False}, [VECTORS]),
    "LayerScale": ({"initial": 0.5}, [VECTORS]),
    "LocalResponseNormalization": ({"radius": 1, "bias": 1.0, "alpha": 0.5, "beta": 0.5}, [IMAGE]),
    "AttentionValues": ({}, [(2, 5, 5), (2, 5, 3)]),
    "AttentionWeights": ({}, [(2, 5, 3), (2, 5, 3)]),
    "Cache": ({"length": 5}, [(2, 5, 3), (2, 5, 3)]),
    "CausalBias": ({"length": 5}, [IDS]),
    "First": ({"count": 2}, [VECTORS]),
    "Grid": ({"rows": 2, "columns": 2}, [VECTORS]),
    "MeanToken": ({}, [VECTORS, (1, 1, 5)]),
    "Memory": ({}, [(2, 5, 3), (2, 5, 3)]),
    "PaddingBias": ({"front": 2}, [IDS]),
    "Positions": ({"length": 5, "learned": False, "grid": (2, 2)}, [VECTORS]),
    "SplitHeads": ({"heads": 2, "parts": 2}, [VECTORS]),
    "Stack": ({}, [ROWS, ROWS]),
    "TakeToken": ({"index": 2}, [VECTORS]),
    "Token": ({}, [VECTORS]),
    "TokenTypes": ({"count": 2}, [VECTORS]),
    "UnitVector": ({}, [ROWS]),
    "TokenEmbedding": ({"vocabulary": 9, "width": 4, "scaled": True}, [IDS]),
    "Ungrid": ({}, [IMAGE]),
}
# Options that Keras' own layers have are Keras' to save; these are the zoo's.
OWN = {name for name in CASES if not hasattr(keras.layers, name)}


def layer_class(name):
    """The class of a name."""
    return getattr(core, name, None) or getattr(sequence, name)


def build(name):
    """A functional model of one layer with its case's options, and its inputs."""
    options, shapes = CASES[name]
    ids = shapes == [IDS] and name in ("TokenEmbedding", "PaddingBias", "CausalBias")
    dtype = "int32" if ids else "float32"
    inputs = [keras.Input(shape, dtype=dtype, name=f"input{i}") for i, shape in enumerate(shapes)]
    outputs = layer_class(name)(**options, name="layer")(inputs if len(inputs) > 1 else inputs[0])
    random = np.random.default_rng(0)
    values = [random.integers(0, 5, (3, *s)) if ids else random.normal(size=(3, *s)).astype("float32") for s in shapes]
    values = [value.astype(dtype) for value in values]
    return keras.Model(inputs if len(inputs) > 1 else inputs[0], outputs), values if len(values) > 1 else values[0]


def outputs(model, values, training=False):
    """The outputs of a model from a fixed seed."""
    for layer in model.layers:
        if hasattr(layer, "seed_generator"):
            layer.seed_generator.state.assign(keras.random.SeedGenerator(3).state)
    return [np.asarray(value) for value in keras.tree.flatten(model(values, training=training))]


def check(model, other, values):
    """The layer of the other model has the same options, and computes the same in inference and in training."""
    if "layer" in {layer.name for layer in model.layers}:
        mine, theirs = model.get_layer("layer"), other.get_layer("layer")
        assert theirs.get_config() == mine.get_config()
    for training in (False, True):
        for expected, found in zip(outputs(model, values, training), outputs(other, values, training), strict=True):
            np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_every_layer_has_a_case():
    """A new layer without a case fails here, and so does a new option without a value in its case."""
    classes = {
        name
        for module in (core, sequence)
        for name, kind in vars(module).items()
        if inspect.isclass(kind) and issubclass(kind, keras.layers.Layer)
    }
    assert set(CASES) == classes
    for name in OWN:
        signature = inspect.signature(layer_class(name).__init__).parameters
        inherited = {"self", "options", "kwargs", *inspect.signature(keras.layers.Layer.__init__).parameters}
        options = {n: p.default for n, p in signature.items() if n not in inherited}
        assert set(options) == set(CASES[name][0])
        assert not any(options[n] == value for n, value in CASES[name][0].items())


@pytest.mark.parametrize("name", sorted(OWN))
def test_config_has_every_option(name):
    """`get_config` returns each option of the constructor as it was given."""
    layer = layer_class(name)(**CASES[name][0])
    for option, value in CASES[name][0].items():
        found = layer.get_config()[option]
        assert (found == value) or keras.activations.get(found) is keras.activations.get(value)
    assert type(layer).from_config(layer.get_config()).get_config() == layer.get_config()


def saved(model, folder):
    """The model from its `.keras` file."""
    model.save(folder / "model.keras")
    return keras.saving.load_model(folder / "model.keras")


COPIES = {
    "saved": saved,
    "from_config": lambda model, _: with_weights(keras.Model.from_config(model.get_config()), model),
    "cloned": lambda model, _: with_weights(keras.models.clone_model(model), model),
    "rebuilt": lambda model, _: keras_graph.rebuild(model, {}),
}


def with_weights(model, other):
    """The model with the weights of the other."""
    model.set_weights(other.get_weights())
    return model


@pytest.mark.parametrize("how", COPIES)
@pytest.mark.parametrize("name", CASES)
def test_options_survive(name, how, tmp_path):
    """Options and behaviour, in inference and in training, are the same after a file, a config, a clone, a rebuild."""
    model, values = build(name)
    check(model, COPIES[how](model, tmp_path), values)


def test_lost_option_is_seen(monkeypatch, tmp_path):
    """The control: an option that is missing in the config changes what is compared."""
    model, values = build("DropConnectDense")
    config = core.Dense.get_config
    monkeypatch.setattr(core.DropConnectDense, "get_config", lambda layer: config(layer) | {"seed": 7})
    with pytest.raises(AssertionError):
        check(model, saved(model, tmp_path), values)


@pytest.mark.parametrize("how", COPIES)
def test_drop_connect_survives(how, tmp_path):
    """DropConnect of a model of the zoo still drops weights in training after it is saved or rebuilt."""
    model = COPIES[how](zoo.get("mlp_tiny", drop_connect=0.25), tmp_path)
    values = np.ones((4, *model.input_shape[1:]), "float32")
    layers = [layer for layer in model.layers if isinstance(layer, core.DropConnectDense)]
    assert [layer.drop_connect for layer in layers] == [0.25] * len(layers)
    assert layers
    assert not np.array_equal(model(values, training=True), model(values, training=True))
    np.testing.assert_array_equal(model(values), model(values))


def test_without_drop_connect_layers_are_keras_own(tmp_path):
    """The file of a model without DropConnect has Keras' dense layers alone."""
    loaded = saved(zoo.get("mlp_tiny"), tmp_path)
    assert {type(layer) for layer in loaded.layers} == {keras.layers.InputLayer, keras.layers.Dense}


@pytest.mark.parametrize("name", CASES)
def test_pickle(name):
    """A class is the same class, an instance has the same class, options, weights and outputs."""
    kind = layer_class(name)
    assert pickle.loads(pickle.dumps(kind)) is kind
    assert copy.deepcopy(kind) is kind
    model, values = build(name)
    layer = model.get_layer("layer")
    for restored in (pickle.loads(pickle.dumps(layer)), copy.deepcopy(layer)):
        assert type(restored) is kind
        assert restored.get_config() == layer.get_config()
        for mine, theirs in zip(layer.weights, restored.weights, strict=True):
            np.testing.assert_array_equal(mine, theirs)
        found = keras.tree.flatten(restored(values))
        for mine, theirs in zip(keras.tree.flatten(layer(values)), found, strict=True):
            np.testing.assert_array_equal(mine, theirs)


def test_pickle_of_initializer_and_model():
    """The initializer keeps its options, a whole model its outputs."""
    initializer = core.VarianceScaling(0.5, "fan_in", "uniform", seed=3)
    restored = pickle.loads(pickle.dumps(initializer))
    assert type(restored) is core.VarianceScaling
    assert restored.get_config() == initializer.get_config()
    model = zoo.get("resnet_tiny")
    values = np.random.default_rng(0).random((2, *model.input_shape[1:]), "float32")
    np.testing.assert_allclose(pickle.loads(pickle.dumps(model))(values), model(values), rtol=1e-5, atol=1e-5)


def test_pickle_of_a_subclass():
    """A class derived from a layer of the zoo is pickled by reference, as any class."""
    assert pickle.loads(pickle.dumps(core.DropConnectDense)) is core.DropConnectDense
    own = type("Dense", (core.Dense,), {"__module__": __name__})
    with pytest.raises((pickle.PicklingError, AttributeError)):
        pickle.dumps(own)


LOAD = """
import json, sys
order, *paths = sys.argv[1:]
if order == "keras first":
    import keras
if order != "keras alone":
    import zoo
    assert order == "keras first" or not {"keras", "tensorflow", "numpy"} & set(sys.modules)
if order == "spec asked first":
    import importlib.util
    assert importlib.util.find_spec("keras").loader is not None
import keras
assert not any(type(finder).__module__.startswith("zoo") for finder in sys.meta_path)
import numpy as np
found = []
for path in paths:
    try:
        model = keras.saving.load_model(path)
    except TypeError as error:
        found.append(str(error))
    else:
        values = np.ones((1, *model.input_shape[1:]), model.inputs[0].dtype)
        found.append(np.asarray(model(values)).ravel().tolist())
print(json.dumps(found))
"""
# The layers of these models are the zoo's.
OURS = {"vit_micro_tiny.keras": {}, "mlp_tiny.keras": {"drop_connect": 0.5}}


@pytest.fixture(scope="module")
def files(tmp_path_factory, digits_run):
    """Outputs by file: of models with layers of the zoo, and of two with Keras' own alone, one of them compiled."""
    folder = tmp_path_factory.mktemp("files")
    for file, options in {**OURS, "resnet_tiny.keras": {}}.items():
        zoo.get(file.partition(".")[0], **options).save(folder / file)
    found = {}
    for path in (*sorted(folder.iterdir()), digits_run.model_path):
        model = keras.saving.load_model(path, compile=False)
        found[path] = np.asarray(model(np.ones((1, *model.input_shape[1:]), model.inputs[0].dtype))).ravel()
    return found


def check_outputs(found, expected):
    """Outputs in another process are equal up to the rounding of the precision, which mixed precision is for runs."""
    tolerance = 1e-2 if len(expected) == 10 else 1e-4
    np.testing.assert_allclose(found, expected, rtol=tolerance, atol=tolerance * np.abs(expected).max())


@pytest.mark.parametrize(
    "order",
    ["zoo first", *(pytest.param(name, marks=pytest.mark.slow) for name in ("keras first", "spec asked first"))],
)
def test_import_zoo_registers_the_layers(files, printed, order):
    """`import zoo`, before or after Keras, is all that safe loading needs; it does not import Keras."""
    for found, expected in zip(printed("-c", LOAD, order, *files), files.values(), strict=True):
        check_outputs(found, expected)


@pytest.mark.slow
def test_a_module_of_layers_can_be_imported_first(printed):
    """It imports Keras itself, while it is half imported."""
    code = "import sys, json, zoo.layers.normalization, zoo.layers.core; print(json.dumps('keras' in sys.modules))"
    assert printed("-c", code)


@pytest.mark.slow
def test_keras_alone_opens_keras_layers(files, printed):
    """Models of Keras' layers open without the zoo, compiled or not; the controls, with the zoo's layers, do not."""
    for found, (path, expected) in zip(printed("-c", LOAD, "keras alone", *files), files.items(), strict=True):
        if path.name in OURS:
            assert "zoo>" in found
        else:
            check_outputs(found, expected)


def test_metadata_names_the_registered_layers(tmp_path):
    """A file lists layers of the zoo under their registered names, others under Keras' modules."""
    model = zoo.get("mlp_tiny", drop_connect=0.5)
    config = json.loads(json.dumps(keras.saving.serialize_keras_object(model)))["config"]
    found = {layer["class_name"]: (layer["module"], layer["registered_name"]) for layer in config["layers"]}
    assert found["DropConnectDense"] == ("zoo.layers.dense", "zoo>DropConnectDense")
    assert found["Dense"][0] == "keras.layers"
