"""Models with random weights, their files, and comparisons of weights: shared by the tests of this folder."""

from __future__ import annotations

import functools
import warnings

import numpy as np
import pytest

import zoo
from zoo.common.errors import BadOption

TINY = [name for name in zoo.list_models("*_tiny") if zoo.spec(name).params < 1e6]
TINY_IMAGES = [name for name in TINY if len(zoo.spec(name).input_shape) == 3]
FILES = (".keras", ".weights.h5", ".safetensors")
every_file = pytest.mark.parametrize("kind", FILES)


def slow_unless(quick, *values):
    """A parameter set that only `make test-all` runs unless `quick` is true."""
    return pytest.param(*values, id="-".join(values), marks=() if quick else pytest.mark.slow)


def every_tiny(names, kinds, one_of_each=True):
    """Parametrize by each small model and each kind of file.

    Quick are all kinds for a dense model and one of convolutions, and one kind for other kinds of layers if
    `one_of_each`.
    """
    quick, others = {"mlp_tiny", "resnet_tiny"}, {"highway_tiny", "alexnet_tiny", "deit_micro_tiny", "transformer_tiny"}
    cases = [
        slow_unless(n in quick or (one_of_each and n in others and k == kinds[-1]), n, k) for n in names for k in kinds
    ]
    return pytest.mark.parametrize(("name", "kind"), cases)


def relative_error(model, values, expected):
    """The largest difference as a fraction of the largest expected value."""
    actual = np.asarray(model(values))[:, : expected.shape[1]]
    assert actual.shape == expected.shape
    return np.abs(actual - expected).max() / np.abs(expected).max()


def values_of(model):
    """All weights by "layer/variable"."""
    return {f"{layer.name}/{v.name}": np.array(v.numpy()) for layer in model.layers for v in layer.weights}


def assert_same(actual, expected):
    """Assert that two sets of weights have the same keys and values."""
    assert actual.keys() == expected.keys()
    assert [key for key in actual if not np.array_equal(actual[key], expected[key])] == []


def randomize(model, seed=3):
    """Set all weights of a model, with statistics and scales, to random values of a realistic size."""
    import keras

    draw = np.random.default_rng(seed)
    for variable in model.weights:
        kind, shape = variable.path.rpartition("/")[2], tuple(variable.shape)
        if len(shape) > 1:
            # Kernels of depthwise convolutions end in (channels, 1).
            fan_in = np.prod(shape[:2] if len(shape) == 4 and shape[-1] == 1 else shape[:-1])
            variable.assign(draw.standard_normal(shape, "float32") * np.sqrt(2 / fan_in))
        elif "variance" in kind or kind.startswith(("gamma", "variable")):  # Keras names its layer scales "variable"
            variable.assign(draw.uniform(0.5, 1.5, shape))
        elif "count" not in kind:
            variable.assign(draw.uniform(-0.1, 0.1, shape))
    for layer in model.layers:
        if isinstance(layer, keras.layers.Normalization):
            layer.finalize_state()
    return model


@functools.cache
def made(name, **options):
    """A model with all weights random, shared by tests that do not change it."""
    return randomize(zoo.get(name, **options))


def saved(model, kind, folder):
    """Save a model as a kind of file and return its path; the kind "model" returns the model."""
    if kind == "model":
        return model
    path = folder / f"{model.name}{kind}"
    if kind == ".safetensors":
        zoo.save_weights(model, path)
    elif kind == ".keras":
        model.save(path)
    else:
        model.save_weights(path)
    return path


def inputs_for(model):
    """Two examples: values, or token ids below 10, which every vocabulary has; by name for several inputs."""
    draw = np.random.default_rng(1)
    given = {
        x.name: draw.integers(1, 10, (2, *x.shape[1:])).astype("int32")
        if x.dtype == "int32"
        else draw.standard_normal((2, *x.shape[1:])).astype("float32")
        for x in model.inputs
    }
    return given if len(given) > 1 else given.popitem()[1]


def refusal(name, weights, **options):
    """The message of the error that `zoo.get` raises: one line with the received value."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        with pytest.raises(BadOption) as error:
            zoo.get(name, weights=weights, **options)
    return one_line(error.value)


def one_line(error):
    """The message of a BadOption, which `zoo` prints as one line before exit code 2."""
    text = str(error)
    assert "Received: " in text
    assert "\n" not in text
    assert len(text) < 1000
    assert error.code == 2
    return text


HEADS = {"species": 5, "age": zoo.Regression()}


def assert_initial(layer):
    """Assert that a head has its initial weights: a random kernel and a zero bias."""
    kernel = layer.kernel.numpy()
    assert len(np.unique(kernel)) > kernel.size / 2
    assert np.abs(kernel).max() < 3
    assert not np.any(layer.bias.numpy())


def assert_trunk(model, expected, heads):
    """Assert that the trunk is as expected, and the heads have initial weights."""
    trunk = {key: array for key, array in values_of(model).items() if key.partition("/")[0] not in heads}
    assert len(trunk) == len(model.weights) - 2 * len(heads)
    assert_same(trunk, {key: expected[key] for key in trunk})
    for head in heads:
        assert_initial(model.get_layer(head))


def with_key(key, array):
    return lambda arrays: arrays | {key: array}


def without(key):
    return lambda arrays: {k: array for k, array in arrays.items() if k != key}


def transposed(key):
    return lambda arrays: arrays | {key: np.ascontiguousarray(arrays[key].T)}


def renamed(key, new):
    return lambda arrays: {new if k == key else k: array for k, array in arrays.items()}


def broken_arrays(change):
    """The weights of resnet_tiny with a fault."""
    return {k: np.asarray(array, "float32") for k, array in change(values_of(made("resnet_tiny"))).items()}
