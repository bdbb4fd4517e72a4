"""The models of keras.applications without weights, for 96 pixels, with statistics of 8 seeded random images."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import keras

PIXELS = 96
SEED = 1
# The smallest ones; all others follow by name.
FIRST = (
    "MobileNet",
    "MobileNetV2",
    "MobileNetV3Small",
    "EfficientNetB0",
    "DenseNet121",
    "ResNet50",
    "NASNetMobile",
    "Xception",
    "VGG16",
    "ConvNeXtTiny",
    "InceptionV3",
    "EfficientNetV2B0",
    "MobileNetV3Large",
    "ResNet50V2",
)


def builder(name: str) -> Callable[[], Any]:
    """Return a function that builds a model of 1,000 logits with random weights."""

    def build() -> Any:
        make = getattr(keras.applications, name)
        return make(weights=None, input_shape=(PIXELS, PIXELS, 3), classifier_activation=None)

    return build


def names() -> list[str]:
    """Return the names of all models of keras.applications, the smallest first."""
    known = [name for name, found in vars(keras.applications).items() if inspect.isfunction(found)]
    return [*(name for name in FIRST if name in known), *sorted(set(known) - set(FIRST))]


MODELS = {name: builder(name) for name in names()}


def inputs_of(model: Any, rows: int = 2, seed: int = 0) -> list[Any]:
    """Return seeded random pixels from 0 to 255."""
    import numpy as np

    draw = np.random.default_rng(seed)
    return [(draw.random((rows, *model.inputs[0].shape[1:])) * 255).astype("float32")]


def settle(model: Any) -> Any:
    """Draw offsets and factors, and take the statistics of batch normalization from 8 random images."""
    import numpy as np

    draw = np.random.default_rng(SEED)
    for variable in model.trainable_variables:
        if variable.path.endswith(("/bias", "/beta")):
            variable.assign(draw.standard_normal(variable.shape) * 0.05)
        if variable.path.endswith("/gamma") and variable.ndim == 1:
            variable.assign(variable * (1 + draw.standard_normal(variable.shape) * 0.05))
    layers = [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]
    momenta = [layer.momentum for layer in layers]
    for layer in layers:
        layer.momentum = 0.0
    model(inputs_of(model, 8, SEED)[0], training=True)
    for layer, momentum in zip(layers, momenta, strict=True):
        layer.momentum = momentum
    return model
