"""Smaller networks compute what the large ones do without the channels that went."""

from __future__ import annotations

import numpy as np
import pytest

import zoo
from export.compression.channel_groups import group_channels
from export.compression.channels import Shrinking, _choose, multiply_adds, shrink, silenced, slim
from export.core.keras_graph import check_same, probe
from zoo.common.errors import BadOption, ExportError
from zoo.common.lazy import keras

FAMILIES = ["vgg_bn_tiny", "resnet_tiny", "resnetv2_tiny", "googlenet_tiny", "inception_tiny", "densenet_tiny"]
FAMILIES += ["mobilenet_tiny", "efficientnet_tiny", "cnn_tiny", "mlp_tiny", "highway_tiny"]
SLOW = ("inception_tiny", "googlenet_tiny", "resnetv2_tiny", "efficientnet_tiny", "highway_tiny", "mobilenet_tiny")
CASES = [pytest.param(name, "norm", marks=[pytest.mark.slow] * (name in SLOW)) for name in FAMILIES]
CASES += [("resnet_tiny", "scale"), pytest.param("densenet_tiny", "scale", marks=pytest.mark.slow)]


def built(name):
    """A network with random weights, its normalization not that of the start."""
    keras.utils.set_random_seed(3)
    network = zoo.get(name, input_shape=(64,) if name in ("mlp_tiny", "highway_tiny") else (32, 32, 2))
    random = np.random.default_rng(0)
    for layer in network.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.set_weights([random.uniform(0.5, 1.5, w.shape) for w in layer.get_weights()])
    return network


@pytest.mark.parametrize(("name", "by"), CASES)
def test_half_the_multiply_adds(name, by):
    """Half of the multiply-adds go, the function is that of the network whose lost channels nobody reads."""
    before = built(name)
    after = shrink(before, Shrinking(0.5, by=by))
    assert 0.35 < multiply_adds(after) / multiply_adds(before) <= 0.5
    assert after.count_params() < before.count_params()
    assert [t.shape for t in after.outputs] == [t.shape for t in before.outputs]
    ties = group_channels(before, by_scale=by == "scale")
    masked = silenced(before, ties, _choose(before, ties, Shrinking(0.5, by=by), multiply_adds(before)))
    assert masked.count_params() == before.count_params()
    assert check_same(masked, after, probe(before), 1e-4) <= 1e-4
    # The control: what went was not nothing.
    with pytest.raises(ExportError, match="differs"):
        check_same(before, after, probe(before), 1e-4)


def test_weakest_channels_go():
    """Channels made by kernels of zeros go first, by scale those of scale 0."""
    before = built("vgg_bn_tiny")
    conv, norm = before.get_layer("stage1_conv1"), before.get_layer("stage1_conv1_norm")
    kernel = np.asarray(conv.kernel).copy()
    kernel[..., ::4] = 0
    conv.kernel.assign(kernel)
    gamma = np.ones(16, "float32")
    gamma[1::4] = 0
    norm.gamma.assign(gamma)
    by_norm = shrink(before, Shrinking(0.5)).get_layer("stage1_conv1")
    assert abs(np.asarray(by_norm.kernel)).sum((0, 1, 2)).min() > 0
    by_scale = shrink(before, Shrinking(0.5, by="scale")).get_layer("stage1_conv1_norm")
    assert np.asarray(by_scale.gamma).min() > 0


def test_multiples():
    """Where channels go, a multiple stays."""
    after = shrink(built("vgg_bn_tiny"), Shrinking(0.5, multiple=4))
    widths = [layer.filters for layer in after.layers if isinstance(layer, keras.layers.Conv2D)]
    assert all(width % 4 == 0 for width in widths)


def test_what_must_stay():
    """Groups, layer normalization and the logits keep their channels; unknown layers too."""
    inputs = keras.Input((8, 8, 4))
    x = keras.layers.Conv2D(8, 3, name="before")(inputs)
    x = keras.layers.Conv2D(8, 3, groups=2, name="grouped")(x)
    x = keras.layers.LayerNormalization(name="norm")(x)
    x = keras.layers.Conv2D(16, 3, activation="relu", name="free")(x)
    x = keras.layers.Reshape((-1, 16))(x)
    outputs = keras.layers.Dense(5, name="logits")(keras.layers.Flatten()(x))
    network = keras.Model(inputs, outputs)
    after = shrink(network, Shrinking(0.9))
    assert [after.get_layer(name).filters for name in ("before", "grouped")] == [8, 8]
    assert after.get_layer("free").filters < 16
    with pytest.raises(BadOption, match="can go down to"):
        shrink(network, Shrinking(0.1))
    # Normalization over neighbouring channels and groups leave little.
    with pytest.raises(BadOption, match="can go down to"):
        shrink(built("alexnet_tiny"), Shrinking(0.5))
    with pytest.raises(BadOption, match="no channels that could go"):
        shrink(keras.Model(inputs, keras.layers.Conv2D(3, 3)(inputs)), Shrinking())


@pytest.mark.parametrize("options", [{"multiply_adds": 1.0}, {"multiply_adds": 0}, {"by": "l2"}, {"multiple": 0}])
def test_options_are_checked(options):
    """What makes no sense is refused."""
    with pytest.raises(BadOption, match="Received"):
        Shrinking(**options)


@pytest.mark.slow
def test_slim_trains(trained, accuracy):
    """A smaller network learns; the first stays as it was."""
    network = trained(zoo.get("resnet_tiny", input_shape=(8, 8, 1)), 4)
    before = [np.asarray(v).copy() for v in network.weights]
    smaller = slim(network, Shrinking(0.5), trained, epochs=4)
    assert accuracy(shrink(network, Shrinking(0.5))) < accuracy(smaller)
    assert accuracy(smaller) > 0.85
    for old, new in zip(before, network.weights, strict=True):
        np.testing.assert_array_equal(old, new)
