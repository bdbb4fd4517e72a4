"""The options of `zoo.get` and `zoo.features` for every registered model: shapes, heads, activation, maps."""

from __future__ import annotations

import numpy as np
import pytest
from conformance_cases import (
    NAMES,
    every_graph_in_time,
    every_name_in_time,
    inputs,
    marked,
    odd,
    outputs,
    predicted,
    smallest,
)

import zoo
from zoo.common.errors import BadOption


@every_name_in_time
def test_odd_shapes_and_scores(name):
    """Odd sizes, one channel and another number of classes build; softmax gives float32 scores that sum to 1."""
    generates = zoo.spec(name).task == "generate"
    wanted = {"vocabulary": 3 + zoo.spec(name).vocabulary} if generates else {"classes": 3}
    model = zoo.get(name, input_shape=odd(name), classifier_activation="softmax", **wanted)
    scores = outputs(model, inputs(name, odd(name)))
    assert scores.shape == predicted(name, *wanted.values(), shape=odd(name))
    assert scores.dtype == np.float32
    assert (scores >= 0).all()
    np.testing.assert_allclose(scores.sum(axis=-1), 1, rtol=1e-5)


@every_graph_in_time
def test_without_head(name):
    """classes=0 gives the features before the logits; include_top=False the last feature map or sequence."""
    features = zoo.get(name, classes=0, input_shape=smallest(name))
    maps = zoo.get(name, include_top=False, input_shape=smallest(name))
    spec = zoo.spec(name)
    assert len(features.output_shape) == (2 if spec.task in ("classify", "embed") else 3)
    assert len(maps.output_shape) == (4 if spec.min_size else 3 if spec.vocabulary else 2)
    assert "logits" not in {layer.name for layer in features.layers + maps.layers}
    if "pool" in {layer.name for layer in features.layers}:
        assert maps.output_shape[-1] == features.output_shape[-1]
    assert np.isfinite(outputs(features, inputs(name, smallest(name)))).all()


@every_graph_in_time
def test_heads(name):
    """Several tasks over one trunk give a dictionary of float32 outputs, each of its size."""
    heads = {"species": 4, "age": zoo.Regression(), "tags": zoo.MultiLabel(3, activation="sigmoid")}
    if zoo.spec(name).task == "generate":
        with pytest.raises(BadOption, match="predicts the tokens of its vocabulary"):
            zoo.get(name, heads=heads)
        return
    model = zoo.get(name, heads=heads, input_shape=smallest(name), dtype="mixed_bfloat16")
    found = {task: np.asarray(y) for task, y in model(inputs(name, smallest(name))).items()}
    units = {"species": 4, "age": 1, "tags": 3}
    assert {task: y.shape for task, y in found.items()} == {task: predicted(name, n) for task, n in units.items()}
    assert {y.dtype.name for y in found.values()} == {"float32"}
    assert ((found["tags"] >= 0) & (found["tags"] <= 1)).all()  # random weights of deep models saturate it
    single = zoo.get(name, heads=zoo.Regression(2), input_shape=smallest(name))
    assert single.output_shape == predicted(name, 2, count=None)


@every_name_in_time
def test_hidden_activation_and_dropout_are_options(name):
    """Every family takes another activation, which changes the model, and dropout of the features."""
    model = zoo.get(name, activation="tanh", dropout=0.25, input_shape=smallest(name))
    used = {layer.activation.__name__ for layer in model.layers if getattr(layer, "activation", None)}
    rates = {getattr(layer, "rate", None) for layer in model.layers}
    if name == "perceptron":  # It has no hidden layer.
        assert used == {"linear"}
    else:
        assert "tanh" in used
        assert 0.25 in rates


@pytest.mark.parametrize("name", marked([name for name in NAMES if zoo.spec(name).min_size]))
def test_features(name):
    """The maps have the strides and channels of feature_info, at the default size and at an odd one."""
    levels = zoo.spec(name).feature_info
    model = zoo.features(name)
    height = zoo.spec(name).input_shape[0]
    assert [shape[-1] for shape in model.output_shape] == [level["channels"] for level in levels]
    assert [2 ** round(np.log2(height / shape[1])) for shape in model.output_shape] == [v["stride"] for v in levels]
    some = zoo.features(name, levels=(0, -1), input_shape=odd(name))
    maps = some(inputs(name, odd(name)))
    assert [m.shape[-1] for m in maps] == [levels[0]["channels"], levels[-1]["channels"]]
    assert all(np.isfinite(m).all() and np.ptp(m) > 0 for m in maps)


@pytest.mark.parametrize("levels", [(), (9,), (-9,), ("a",), 1.5])
def test_bad_levels_are_refused(levels):
    """One line lists the levels."""
    with pytest.raises(BadOption, match="levels must be"):
        zoo.features("resnet_tiny", levels=levels)


def test_features_of_a_model_without_maps():
    """A model of dense layers has none."""
    with pytest.raises(BadOption, match="mlp has no feature maps"):
        zoo.features("mlp")
