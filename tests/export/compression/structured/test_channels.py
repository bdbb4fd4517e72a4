"""Structured pruning: a smaller model computes what the large one does without the removed channels."""

from __future__ import annotations

import numpy as np
import pytest

import zoo
from export.compression.structured.channels import (
    StructuredPruning,
    _select_channels,
    multiply_adds,
    prune_and_train,
    prune_structure,
    silence_channels,
)
from export.compression.structured.propagation import group_channels
from export.core.keras_graph import check_same, probe
from zoo.common.errors import BadOption, ExportError
from zoo.common.lazy import keras

FAMILIES = ["vgg_bn_tiny", "resnet_tiny", "resnetv2_tiny", "googlenet_tiny", "inception_tiny", "densenet_tiny"]
FAMILIES += ["mobilenet_tiny", "efficientnet_tiny", "cnn_tiny", "mlp_tiny", "highway_tiny"]
SLOW = (
    "densenet_tiny",
    "inception_tiny",
    "googlenet_tiny",
    "resnetv2_tiny",
    "efficientnet_tiny",
    "highway_tiny",
    "mobilenet_tiny",
)
CASES = [pytest.param(name, "norm", marks=[pytest.mark.slow] * (name in SLOW)) for name in FAMILIES]
CASES += [("resnet_tiny", "scale"), pytest.param("densenet_tiny", "scale", marks=pytest.mark.slow)]


def built(name):
    """A model with random weights and random normalization."""
    keras.utils.set_random_seed(3)
    model = zoo.get(name, input_shape=(64,) if name in ("mlp_tiny", "highway_tiny") else (32, 32, 2))
    random = np.random.default_rng(0)
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.set_weights([random.uniform(0.5, 1.5, w.shape) for w in layer.get_weights()])
    return model


@pytest.mark.parametrize(("name", "by"), CASES)
def test_half_the_multiply_adds(name, by):
    """Half of the multiply-adds are removed; the outputs are those of the model that ignores the removed channels."""
    before = built(name)
    after = prune_structure(before, StructuredPruning(0.5, by=by))
    assert 0.35 < multiply_adds(after) / multiply_adds(before) <= 0.5
    assert after.count_params() < before.count_params()
    assert [t.shape for t in after.outputs] == [t.shape for t in before.outputs]
    groups = group_channels(before, by_scale=by == "scale")
    selected = _select_channels(before, groups, StructuredPruning(0.5, by=by), multiply_adds(before))
    masked = silence_channels(before, groups, selected)
    assert masked.count_params() == before.count_params()
    assert check_same(masked, after, probe(before), 1e-4) <= 1e-4
    # The control: the removed channels mattered.
    with pytest.raises(ExportError, match="differs"):
        check_same(before, after, probe(before), 1e-4)


def test_least_important_channels_are_removed():
    """Channels with kernels of zeros are removed first; by scale, those of scale 0."""
    before = built("vgg_bn_tiny")
    conv, norm = before.get_layer("stage1_conv1"), before.get_layer("stage1_conv1_norm")
    kernel = np.asarray(conv.kernel).copy()
    kernel[..., ::4] = 0
    conv.kernel.assign(kernel)
    gamma = np.ones(16, "float32")
    gamma[1::4] = 0
    norm.gamma.assign(gamma)
    by_norm = prune_structure(before, StructuredPruning(0.5)).get_layer("stage1_conv1")
    assert abs(np.asarray(by_norm.kernel)).sum((0, 1, 2)).min() > 0
    by_scale = prune_structure(before, StructuredPruning(0.5, by="scale")).get_layer("stage1_conv1_norm")
    assert np.asarray(by_scale.gamma).min() > 0


def test_multiples():
    """The number of channels is a multiple where channels are removed."""
    after = prune_structure(built("vgg_bn_tiny"), StructuredPruning(0.5, multiple=4))
    widths = [layer.filters for layer in after.layers if isinstance(layer, keras.layers.Conv2D)]
    assert all(width % 4 == 0 for width in widths)


def test_pinned_channels():
    """Groups, layer normalization, logits and unknown layers keep their channels."""
    inputs = keras.Input((8, 8, 4))
    x = keras.layers.Conv2D(8, 3, name="before")(inputs)
    x = keras.layers.Conv2D(8, 3, groups=2, name="grouped")(x)
    x = keras.layers.LayerNormalization(name="norm")(x)
    x = keras.layers.Conv2D(16, 3, activation="relu", name="free")(x)
    x = keras.layers.Reshape((-1, 16))(x)
    outputs = keras.layers.Dense(5, name="logits")(keras.layers.Flatten()(x))
    model = keras.Model(inputs, outputs)
    after = prune_structure(model, StructuredPruning(0.9))
    assert [after.get_layer(name).filters for name in ("before", "grouped")] == [8, 8]
    assert after.get_layer("free").filters < 16
    with pytest.raises(BadOption, match="can be reduced to"):
        prune_structure(model, StructuredPruning(0.1))
    # Normalization across channels and groups pin most channels.
    with pytest.raises(BadOption, match="can be reduced to"):
        prune_structure(built("alexnet_tiny"), StructuredPruning(0.5))
    with pytest.raises(BadOption, match="no removable channels"):
        prune_structure(keras.Model(inputs, keras.layers.Conv2D(3, 3)(inputs)), StructuredPruning())


@pytest.mark.parametrize("options", [{"multiply_adds": 1.0}, {"multiply_adds": 0}, {"by": "l2"}, {"multiple": 0}])
def test_options_are_checked(options):
    """Invalid options are refused."""
    with pytest.raises(BadOption, match="Received"):
        StructuredPruning(**options)


@pytest.mark.slow
def test_the_smaller_model_trains(trained, accuracy):
    """Fine-tuning recovers accuracy; the original model is not changed."""
    model = trained(zoo.get("resnet_tiny", input_shape=(8, 8, 1)), 4)
    before = [np.asarray(v).copy() for v in model.weights]
    smaller = prune_and_train(model, StructuredPruning(0.5), trained, epochs=4)
    assert accuracy(prune_structure(model, StructuredPruning(0.5))) < accuracy(smaller)
    assert accuracy(smaller) > 0.85
    for old, new in zip(before, model.weights, strict=True):
        np.testing.assert_array_equal(old, new)
