"""Batch-norm folding preserves the outputs of every family and leaves no batch normalization."""

from __future__ import annotations

import numpy as np
import pytest

import zoo
from export.compression.batch_norm_folding import fold
from export.core.keras_graph import Change, calls, check_same, copy, probe, rebuild
from zoo.common.errors import ExportError, UnsupportedExport
from zoo.common.lazy import keras

FAMILIES = ["vgg_bn_tiny", "resnet_tiny", "resnetv2_tiny", "googlenet_tiny", "inception_tiny", "densenet_tiny"]
FAMILIES += ["mobilenet_tiny", "efficientnet_tiny", "convnext_micro_tiny", "highway_tiny", "cnn_tiny"]
SLOW = ("inception_tiny", "googlenet_tiny", "efficientnet_tiny", "resnetv2_tiny", "convnext_micro_tiny")
CASES = [pytest.param(name, marks=[pytest.mark.slow] * (name in SLOW)) for name in FAMILIES]


def shaken(model, seed=0):
    """The model with random statistics, scales and offsets."""
    random = np.random.default_rng(seed)
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            shape = layer.moving_mean.shape
            layer.moving_mean.assign(random.normal(size=shape))
            layer.moving_variance.assign(random.uniform(0.5, 2, shape))
            for variable in layer.trainable_variables:
                variable.assign(random.normal(1, 0.3, shape))
    return model


def norms(model):
    """Names of the batch normalization layers."""
    return [layer.name for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]


@pytest.fixture(scope="module")
def model():
    """A model of small images by name."""
    return lambda name: shaken(zoo.get(name, input_shape=(64,) if "highway" in name else (16, 16, 1)))


@pytest.mark.parametrize("name", CASES)
def test_outputs_are_preserved(model, name):
    """No batch normalization is left and the outputs are the same."""
    before = model(name)
    after = fold(before)
    assert norms(after) == []
    assert (after.name, after.layers[0].name) == (before.name, before.layers[0].name)
    assert check_same(before, after, probe(before), 1e-5) <= 1e-5
    assert len(calls(after)) == len(calls(before)) - len(set(norms(before)) - {layer.name for layer in after.layers})


def test_fold_does_not_change_its_argument(model):
    """Folding returns a copy."""
    before = model("densenet_tiny")
    names, x = norms(before), probe(before)
    expected = np.asarray(before(x))
    after = fold(before)
    for variable in after.variables:
        variable.assign(np.zeros(variable.shape))
    assert norms(before) == names
    np.testing.assert_array_equal(np.asarray(before(x)), expected)


def test_norm_without_scale_or_offset():
    """Without scale or offset, with a bias, and into dense and depthwise layers."""
    inputs = keras.Input((6, 6, 2))
    x = keras.layers.DepthwiseConv2D(3, depth_multiplier=2, name="depthwise")(inputs)
    x = keras.layers.BatchNormalization(scale=False, name="norm1")(x)
    x = keras.layers.Conv2D(4, 3, use_bias=True, groups=2, name="conv")(x)
    x = keras.layers.BatchNormalization(center=False, name="norm2")(x)
    x = keras.layers.Flatten()(x)
    x = keras.layers.Dense(5, name="dense")(x)
    x = keras.layers.BatchNormalization(name="norm3")(x)
    x = keras.layers.Dense(5, "relu", name="active")(x)
    before = shaken(keras.Model(inputs, keras.layers.BatchNormalization(name="norm4")(x)))
    before.get_layer("conv").bias.assign([1.0, 2.0, 3.0, 4.0])
    after = fold(before)
    assert check_same(before, after, probe(before), 1e-5) <= 1e-5
    # After an activation there is no layer to fold into.
    assert norms(after) == []
    assert isinstance(after.get_layer("norm4"), keras.layers.Rescaling)


def test_layers_with_other_readers_are_not_folded():
    """A convolution with two readers keeps its weights; a shared norm and another axis are refused."""
    inputs = keras.Input((6, 6, 2))
    x = keras.layers.Conv2D(4, 3, name="conv")(inputs)
    norm = keras.layers.BatchNormalization(name="norm")
    before = shaken(keras.Model(inputs, keras.layers.Add()([x, norm(x)])))
    after = fold(before)
    assert isinstance(after.get_layer("norm"), keras.layers.DepthwiseConv2D)
    assert check_same(before, after, probe(before), 1e-5) <= 1e-5
    output = shaken(keras.Model(inputs, [x, norm(x)]))
    for expected, found in zip(output(probe(output)), fold(output)(probe(output)), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
    with pytest.raises(UnsupportedExport, match="uses=2"):
        fold(keras.Model(inputs, norm(norm(x))))
    with pytest.raises(UnsupportedExport, match="axis=1"):
        fold(keras.Model(inputs, keras.layers.BatchNormalization(axis=1)(x)))
    with pytest.raises(UnsupportedExport, match="Expected a functional model"):
        calls(keras.layers.Dense(1))


def test_difference_is_seen(model):
    """The control: a changed weight or a missing layer changes the outputs."""
    before = model("resnet_tiny")
    after = fold(before)
    bias = after.get_layer("stage1_block1_conv1").bias
    bias.assign(np.asarray(bias) + 0.1)
    with pytest.raises(ExportError, match="differs"):
        check_same(before, after, probe(before), 1e-5)
    assert check_same(before, copy(before), probe(before), 1e-7) <= 1e-7
    with pytest.raises(ExportError, match="differs"):
        check_same(before, rebuild(before, {"stage1_block1_conv2_norm": Change()}), probe(before), 1e-5)
