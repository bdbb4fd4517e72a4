"""Cross-layer equalization of a Keras model: the same outputs, from channels of more equal range."""

from __future__ import annotations

import numpy as np
import pytest

from export.quantization.equalization import equalize
from zoo.common.lazy import keras


def model_of(activation):
    """A residual model with channels of very different range."""
    keras.utils.set_random_seed(0)
    image = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(8, 3, padding="same", name="stem")(image)
    y = keras.layers.Conv2D(16, 1, name="expand")(x)
    y = keras.layers.Activation(activation, name="expand_activation")(y)
    y = keras.layers.DepthwiseConv2D(3, padding="same", activation=activation, name="depthwise")(y)
    y = keras.layers.Conv2D(8, 1, name="project")(y)
    x = keras.layers.Add(name="sum")([x, y])
    x = keras.layers.GlobalAveragePooling2D()(x)
    model = keras.Model(image, keras.layers.Dense(4, name="logits")(x))
    for name in ("stem", "expand", "project"):
        kernel, bias = model.get_layer(name).get_weights()
        factors = np.geomspace(0.05, 1, kernel.shape[-1]).astype("float32")
        model.get_layer(name).set_weights([kernel * factors, bias])
    return model


def spreads(model, images):
    """The largest value of a channel as a multiple of the smallest, by layer."""
    names = ("expand_activation", "depthwise", "sum")
    outputs = keras.Model(model.input, [model.get_layer(name).output for name in names])(images)
    peaks = {name: abs(np.asarray(x)).reshape(-1, x.shape[-1]).max(0) for name, x in zip(names, outputs, strict=True)}
    return {name: found.max() / found[found > 0].min() for name, found in peaks.items()}


def images():
    return np.random.default_rng(0).normal(size=(16, 8, 8, 3)).astype("float32")


def test_outputs_are_the_same_and_channels_more_equal():
    """A channel that depthwise kernels read alone has the full range, others the square root of what is missing."""
    model = model_of("relu")
    changed = equalize(model, images())
    np.testing.assert_allclose(changed(images()), model(images()), rtol=1e-4, atol=1e-5)
    before, after = spreads(model, images()), spreads(changed, images())
    assert after["expand_activation"] < 1.001 < 5 < before["expand_activation"]
    assert after["sum"] < 0.6 * before["sum"]


def test_other_examples_have_the_same_outputs_too():
    """ReLU has no limit, so that the scales hold for every input."""
    model, others = model_of("relu"), 50 * images()[::-1] + 3
    np.testing.assert_allclose(equalize(model, images())(others), model(others), rtol=1e-4, atol=1e-3)


def test_layers_that_change_the_channels_are_left_alone():
    """Zeros that are padded to the channels, as in shortcuts of residual models, and channels first."""
    keras.utils.set_random_seed(0)
    image = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(4, 3, activation="relu", name="first")(image)
    y = keras.layers.ZeroPadding2D(((0, 0), (1, 1)), data_format="channels_first")(x)
    model = keras.Model(image, keras.layers.Conv2D(2, 1)(y))
    changed = equalize(model, images())
    np.testing.assert_allclose(changed(images()), model(images()), rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(changed.get_layer("first").kernel, model.get_layer("first").kernel)


@pytest.mark.parametrize("activation", ["sigmoid", "relu6"])
def test_other_activations_are_left_alone(activation):
    """The control: a sigmoid and a limit are not homogeneous; nothing around them changes."""
    model = model_of(activation)
    changed = equalize(model, images())
    for name in ("expand", "depthwise"):
        np.testing.assert_array_equal(changed.get_layer(name).bias, model.get_layer(name).bias)
    np.testing.assert_allclose(changed(images()), model(images()), rtol=1e-4, atol=1e-5)
