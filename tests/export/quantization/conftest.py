"""A small convolutional source model, which every format converts in about a second."""

from __future__ import annotations

import numpy as np
import pytest

import zoo
from export.source.source import SourceModel
from zoo.common.lazy import keras


def small_model():
    """A convolutional model with each kind of kernel, batch normalization, and weights of several magnitudes."""
    keras.utils.set_random_seed(3)
    image = keras.Input((12, 12, 3), name="image")
    x = keras.layers.Conv2D(8, 3, strides=2, padding="same", use_bias=False, name="stem")(image)
    x = keras.layers.ReLU(6.0)(keras.layers.BatchNormalization(name="norm")(x))
    x = keras.layers.DepthwiseConv2D(3, padding="same", activation="relu", name="depthwise")(x)
    x = keras.layers.Add()([keras.layers.Conv2D(8, 1, name="project")(x), x])
    x = keras.layers.GlobalAveragePooling2D()(x)
    model = keras.Model(image, keras.layers.Dense(4, name="logits")(x), name="small")
    rng = np.random.default_rng(0)
    model.get_layer("norm").set_weights(
        [rng.uniform(0.2, 3, 8), rng.normal(size=8), rng.normal(size=8), np.full(8, 2.0)]
    )
    return model


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """A source model with smooth images."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (48, 3, 3, 3)).repeat(4, 1).repeat(4, 2) * 0.7 + rng.integers(0, 76, (48, 12, 12, 3))
    images = np.rint(images).astype("float32")
    preprocessing = zoo.PreprocessingConfig(mean=(127.5,), std=(127.5,))
    folder = tmp_path_factory.mktemp("source")
    return SourceModel(small_model(), preprocessing, list("abcd"), lambda count: images[:count], folder)
