"""Scale folding preserves the outputs."""

from __future__ import annotations

import numpy as np
import pytest

import zoo
from export.compression.scale_folding import fold_scales
from export.core.keras_graph import check_same, probe
from zoo.common.lazy import keras
from zoo.layers.lazy import layers


def shaken(model, seed=0):
    """The model with random scales and offsets."""
    random = np.random.default_rng(seed)
    for variable in model.trainable_variables:
        if variable.name in ("gamma", "beta", "bias") or "scale" in variable.path:
            variable.assign(random.normal(0.7, 0.3, variable.shape))
    return model


@pytest.mark.parametrize("name", ["convnext_micro_tiny", "vit_micro_tiny"])
def test_outputs_are_preserved(name):
    """No layer scale is left, and no scale or offset before a dense layer."""
    before = shaken(zoo.get(name, input_shape=(16, 16, 1)))
    after = fold_scales(before)
    assert check_same(before, after, probe(before), 1e-5) <= 1e-5
    assert not [layer.name for layer in after.layers if isinstance(layer, layers.LayerScale)]
    norms = [layer for layer in after.layers if isinstance(layer, keras.layers.LayerNormalization)]
    assert [layer.name for layer in norms if not layer.scale and not layer.center]
    assert len(before.weights) > len(after.weights)


def test_scales_of_features_are_absorbed():
    """The dense layer after them has them in its kernel, and no bias that it did not have."""
    before = shaken(zoo.get("realmlp_tiny", input_shape=(9,), classes=3))
    after = fold_scales(before)
    assert check_same(before, after, probe(before), 1e-5) <= 1e-5
    assert not [layer.name for layer in after.layers if layer.name == "scale"]
    assert [layer.use_bias for layer in after.layers if isinstance(layer, keras.layers.Dense)] == [
        layer.use_bias for layer in before.layers if isinstance(layer, keras.layers.Dense)
    ]


def test_scales_with_other_readers_stay():
    """A normalization with another reader keeps its scale; so does a layer scale if its input has two readers."""
    given = keras.Input((8,), name="given")
    normal = keras.layers.LayerNormalization(name="norm")(given)
    made = keras.layers.Dense(8, name="made")(normal)
    scaled = layers.LayerScale(0.5, name="scale")(made)
    model = shaken(keras.Model(given, keras.layers.add([normal, scaled, made])))
    after = fold_scales(model)
    assert [layer.name for layer in after.layers] == [layer.name for layer in model.layers]
    assert after.get_layer("norm").scale
    assert check_same(model, after, probe(model), 0.0) == 0.0


def test_both_sides_of_one_layer():
    """A dense layer absorbs the normalization before it, through dropout, and the scale after it."""
    given = keras.Input((8,), name="given")
    y = keras.layers.Dropout(0.1)(keras.layers.LayerNormalization(name="norm")(given))
    y = layers.LayerScale(0.5, name="scale")(keras.layers.Dense(4, use_bias=False, name="made")(y))
    model = shaken(keras.Model(given, y))
    after = fold_scales(model)
    assert [variable.path for variable in after.weights] == ["made/kernel", "made/bias"]
    assert check_same(model, after, probe(model), 1e-6) <= 1e-6
