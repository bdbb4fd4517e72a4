"""What every registered model keeps, whatever its family: one suite over all names."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import numpy as np
import pytest

import zoo
from zoo._errors import BadOption

# From the papers, torchvision and Keras: none of these numbers was read off this code.
PUBLISHED = {
    "mlp_mnist": 109_386,
    "resnet18": 11_689_512,
    "resnet34": 21_797_672,
    "resnet50": 25_557_032,
    "resnet101": 44_549_160,
    "resnet152": 60_192_808,
    "resnet20": 269_722,
    "resnet32": 464_154,
    "resnet44": 658_586,
    "resnet56": 853_018,
    "resnet110": 1_727_962,
}
SPEC_KEYS = {
    "name", "family", "params", "input_shape", "input_dtype", "classes", "min_size", "paper", "tags",
    "preprocessing", "unsupported",
}  # fmt: skip
# Sorted by size, so that the light names are a prefix: pytest then builds each model once for all tests.
NAMES = sorted(zoo.names(), key=lambda name: zoo.spec(name).params)
LIGHT = [name for name in NAMES if zoo.spec(name).params < 26e6]
every_model = pytest.mark.parametrize("model", NAMES, indirect=True)
light_model = pytest.mark.parametrize("model", LIGHT, indirect=True)
every_name = pytest.mark.parametrize("name", NAMES)
light_name = pytest.mark.parametrize("name", LIGHT)


@pytest.fixture(scope="module")
def model(request):
    """The model as `zoo.get(name)` gives it, with statistics and offsets that are not the trivial 0 and 1."""
    model = zoo.get(request.param)
    draw = np.random.default_rng(0)
    for variable in model.variables:
        if len(variable.shape) == 1 and "float" in variable.dtype:
            variable.assign(variable.numpy() + draw.uniform(0, 0.1, variable.shape))
    return model


def inputs(shape, count=2):
    """Preprocessed values for `count` examples."""
    return np.random.default_rng(1).standard_normal((count, *shape)).astype("float32")


def outputs(model, values):
    """The model's outputs in inference, as an array."""
    return np.asarray(model(values))


def smallest(name, channels=None):
    """The smallest input shape that the spec allows."""
    spec = zoo.spec(name)
    if len(spec.input_shape) == 1:
        return spec.input_shape
    return (spec.min_size, spec.min_size, channels or spec.input_shape[-1])


def odd(name):
    """A shape of odd, unequal height and width and one channel, or an odd number of features."""
    spec = zoo.spec(name)
    size = spec.min_size | 1
    return (13,) if len(spec.input_shape) == 1 else (size, size + 4, 1)


def close(actual, expected, share):
    """Assert that no value is further off than this share of the largest one."""
    assert np.abs(actual - expected).max() <= share * np.abs(expected).max()


def test_published_parameters():
    """The specs state the published numbers."""
    assert {name: zoo.spec(name).params for name in PUBLISHED} == PUBLISHED


@every_model
def test_spec_is_what_was_built(model):
    """Parameters, shapes, dtype and names are those of the spec."""
    spec = zoo.spec(model.name)
    assert sum(int(np.prod(v.shape)) for v in model.trainable_variables) == spec.params
    assert model.input_shape == (None, *spec.input_shape)
    assert model.output_shape == (None, spec.classes)
    assert model.inputs[0].dtype == spec.input_dtype
    assert model.inputs[0].name == ("image" if len(spec.input_shape) == 3 else "features")
    assert model.layers[-1].name == "logits"


@every_model
def test_logits(model):
    """The default model gives finite logits that depend on the input."""
    logits = outputs(model, inputs(model.input_shape[1:]))
    assert logits.shape == (2, zoo.spec(model.name).classes)
    assert logits.dtype == np.float32
    assert np.isfinite(logits).all()
    assert np.ptp(logits, axis=0).max() > 0
    assert np.ptp(logits, axis=1).min() > 0


@light_model
def test_saved_and_loaded(model):
    """Both kinds of file give the same weights and the same logits back."""
    import keras

    values = inputs(model.input_shape[1:])
    expected = outputs(model, values)
    with tempfile.TemporaryDirectory() as folder:
        whole, weights = Path(folder, "model.keras"), Path(folder, "model.weights.h5")
        model.save(whole)
        model.save_weights(weights)
        copies = [keras.saving.load_model(whole), zoo.get(model.name, weights=str(weights))]
    for copy in copies:
        for ours, theirs in zip(model.weights, copy.weights, strict=True):
            np.testing.assert_array_equal(ours.numpy(), theirs.numpy(), err_msg=ours.path)
        close(outputs(copy, values), expected, 1e-4)


@light_name
def test_reduced_precision(name):
    """Under mixed_bfloat16 the smallest input gives float32 logits and a gradient for every weight."""
    import keras
    import tensorflow as tf

    before = keras.config.dtype_policy()
    model = zoo.get(name, dtype="mixed_bfloat16", input_shape=smallest(name))
    assert keras.config.dtype_policy() == before
    hidden = {layer.compute_dtype for layer in model.layers[1:-1]}
    assert not hidden or "bfloat16" in hidden
    with tf.GradientTape() as tape:
        logits = model(inputs(smallest(name), count=4), training=True)
        loss = tf.reduce_mean(logits * inputs(logits.shape[1:], count=4))
    assert logits.dtype == tf.float32
    assert np.isfinite(logits).all()
    gradients = tape.gradient(loss, model.trainable_variables)
    assert [v.path for v, g in zip(model.trainable_variables, gradients, strict=True) if g is None] == []
    assert all(np.isfinite(g).all() for g in gradients)
    assert sum(float(np.abs(g).sum()) for g in gradients) > 0


@light_name
def test_odd_shapes_and_scores(name):
    """Odd sizes, one channel and another number of classes build; softmax gives float32 scores that sum to 1."""
    model = zoo.get(name, input_shape=odd(name), classes=3, classifier_activation="softmax")
    scores = outputs(model, inputs(odd(name)))
    assert scores.shape == (2, 3)
    assert scores.dtype == np.float32
    assert (scores >= 0).all()
    np.testing.assert_allclose(scores.sum(axis=1), 1, rtol=1e-5)


@light_name
def test_without_head(name):
    """classes=0 gives the pooled features; include_top=False what comes before the pooling."""
    features = zoo.get(name, classes=0, input_shape=smallest(name))
    maps = zoo.get(name, include_top=False, input_shape=smallest(name))
    assert len(features.output_shape) == 2
    assert maps.output_shape[-1] == features.output_shape[-1]
    assert len(maps.output_shape) == (4 if zoo.spec(name).min_size else 2)
    assert "logits" not in {layer.name for layer in features.layers + maps.layers}


@light_model
def test_names_inside_are_stable(model):
    """Building once more gives layers, and operations that are no layer, the same names, each of them once."""
    names = [operation.name for operation in model.operations]
    assert len(set(names)) == len(names)
    assert names == [operation.name for operation in zoo.get(model.name, input_shape=smallest(model.name)).operations]


@every_name
def test_spec_is_closed_and_json_safe(name):
    """A spec survives JSON, has exactly the keys of the schema and states what a reader needs."""
    spec = zoo.spec(name)
    content = json.loads(json.dumps(spec.to_json(), allow_nan=False))
    assert content == spec.to_json()
    assert set(content) == SPEC_KEYS
    contract = {k: tuple(v) if isinstance(v, list) else v for k, v in content["preprocessing"].items()}
    content |= {
        "input_shape": tuple(content["input_shape"]),
        "tags": tuple(content["tags"]),
        "preprocessing": zoo.Preprocessing(**contract),
        "unsupported": tuple(content["unsupported"].items()),
    }
    assert zoo.ModelSpec(**content) == spec
    assert spec.name == name
    assert spec.family in zoo.families()
    assert spec.paper
    assert spec.tags
    spec.preprocessing.check(spec.input_shape[-1])


@pytest.mark.parametrize("name", [name for name in NAMES if zoo.spec(name).min_size])
def test_smaller_than_smallest_is_refused(name):
    """One pixel less than the spec's smallest size is an error, in height and in width."""
    size = zoo.spec(name).min_size
    for shape in ((size - 1, size, 3), (size, size - 1, 3)):
        with pytest.raises(BadOption, match=f"at least {size}x{size} pixels. Received: input_shape="):
            zoo.get(name, input_shape=shape)


LOAD = """
import sys
import keras, numpy as np
for folder in sys.argv[1:]:
    model = keras.saving.load_model(folder + "/model.keras")
    case = np.load(folder + "/case.npz")
    found, expected = np.asarray(model(case["inputs"])), case["outputs"]
    assert np.abs(found - expected).max() <= 1e-4 * np.abs(expected).max(), folder
assert not {"zoo", "zoo._layers"} & set(sys.modules)
"""


def test_files_open_without_the_zoo(tmp_path, python):
    """The smallest model of each family opens with Keras alone, in a process where the zoo cannot be imported."""
    for family in zoo.families():
        name = min(zoo.names(family=family), key=lambda n: zoo.spec(n).params)
        model = zoo.get(name)
        folder = tmp_path / family
        folder.mkdir()
        model.save(folder / "model.keras")
        values = inputs(model.input_shape[1:])
        np.savez(folder / "case.npz", inputs=values, outputs=outputs(model, values))
    process = python("-c", LOAD, *tmp_path.iterdir(), cwd=tmp_path, env={"PYTHONPATH": ""})
    _, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
