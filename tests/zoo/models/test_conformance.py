"""Conformance of every registered model: logits, files, reduced precision, and names inside."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pytest
from conformance_cases import GRAPHS, NAMES, TINY, inputs, marked, normal, outputs, predicted, smallest

import zoo

# The smallest model of each family at its published size.
FULL_SIZE = {zoo.spec(name).family: name for name in reversed(NAMES) if zoo.spec(name).params >= 400_000}.values()
every_model = pytest.mark.parametrize("model", marked(NAMES), indirect=True)
# Gradients of the largest, with a third of a billion parameters, take more memory than the tests may.
IN_MEMORY = [name for name in NAMES if zoo.spec(name).params < 320_000_000]
every_name_in_memory = pytest.mark.parametrize("name", marked(IN_MEMORY, GRAPHS))


@pytest.fixture(scope="module")
def model(request):
    """The model of `zoo.get(name)` with statistics and offsets other than the trivial 0 and 1."""
    model = zoo.get(request.param)
    draw = np.random.default_rng(0)
    for variable in model.variables:
        if len(variable.shape) == 1 and "float" in variable.dtype:
            variable.assign(variable.numpy() + draw.uniform(0, 0.1, variable.shape))
    return model


def close(actual, expected, tolerance):
    """Assert that no difference exceeds this fraction of the largest expected value."""
    assert np.abs(actual - expected).max() <= tolerance * np.abs(expected).max()


@every_model
def test_logits(model):
    """The default model gives finite logits that depend on the input."""
    logits = outputs(model, inputs(model.name))
    assert logits.shape == predicted(model.name)
    assert logits.dtype == np.float32
    assert np.isfinite(logits).all()
    assert np.ptp(logits, axis=0).max() > 0
    assert np.ptp(logits, axis=-1).min() > 0


def from_whole_file(model, folder):
    """The model from its `.keras` file, by Keras."""
    import keras

    model.save(Path(folder, "model.keras"))
    return keras.saving.load_model(Path(folder, "model.keras"))


def from_weights_file(model, folder):
    """A new model with the weights of a `.weights.h5` file."""
    model.save_weights(Path(folder, "model.weights.h5"))
    return zoo.get(model.name, weights=str(Path(folder, "model.weights.h5")))


@pytest.mark.parametrize("copied", [from_whole_file, pytest.param(from_weights_file, marks=pytest.mark.slow)])
@pytest.mark.parametrize("model", marked([n for n in NAMES if n in TINY or n in FULL_SIZE], GRAPHS), indirect=True)
def test_saved_and_loaded(model, copied):
    """Both kinds of file restore the same weights and logits."""
    values = inputs(model.name)
    with tempfile.TemporaryDirectory() as folder:
        copy = copied(model, folder)
    for ours, theirs in zip(model.weights, copy.weights, strict=True):
        np.testing.assert_array_equal(ours.numpy(), theirs.numpy(), err_msg=ours.path)
    close(outputs(copy, values), outputs(model, values), 1e-4)


@every_name_in_memory
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
        logits = model(inputs(name, smallest(name), count=4), training=True)
        loss = tf.reduce_mean(logits * normal(logits.shape))
    assert logits.dtype == tf.float32
    assert np.isfinite(logits).all()
    gradients = tape.gradient(loss, model.trainable_variables)
    assert [v.path for v, g in zip(model.trainable_variables, gradients, strict=True) if g is None] == []
    gradients = [tf.convert_to_tensor(g) for g in gradients]
    assert all(np.isfinite(g).all() for g in gradients)
    assert sum(float(np.abs(g).sum()) for g in gradients) > 0


@pytest.mark.parametrize("model", marked(NAMES, GRAPHS), indirect=True)
def test_names_inside_are_stable(model):
    """Building again gives all layers and operations the same names, and each name is unique."""
    names = [operation.name for operation in model.operations]
    assert len(set(names)) == len(names)
    assert names == [operation.name for operation in zoo.get(model.name).operations]
    small = zoo.get(model.name, input_shape=smallest(model.name))
    assert [layer.name for layer in model.layers if layer.weights] == [v.name for v in small.layers if v.weights]
