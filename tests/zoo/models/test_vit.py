"""Vision transformers: tokens and patches, positions of other grids, attention."""

from __future__ import annotations

import numpy as np
import pytest
from vit_cases import close, draw, randomized

import zoo
from zoo.common.errors import BadOption
from zoo.layers.lazy import sequence


def positions_of(model):
    """The table of positions."""
    return model.get_layer("positions").embedding.numpy()


def test_positions_of_another_grid(tmp_path):
    """Positions are interpolated between grids, that of the class token is copied; a file stores its grid."""
    wide = randomized(zoo.get("vit_micro_tiny", input_shape=(16, 36, 3)))  # 4 x 9 patches, as many as 6 x 6
    path = tmp_path / "wide.safetensors"
    zoo.save_weights(wide, path)
    again = zoo.get("vit_micro_tiny", input_shape=(16, 36, 3), weights=path)
    np.testing.assert_array_equal(positions_of(again), positions_of(wide))
    for source in (path, wide):
        square = positions_of(zoo.get("vit_micro_tiny", input_shape=(24, 24, 3), weights=source))
        np.testing.assert_array_equal(square[0], positions_of(wide)[0])
        table = positions_of(wide)[1:].reshape(4, 9, -1)
        assert np.abs(square[1:].reshape(6, 6, -1) - table.reshape(6, 6, -1)).max() > 0.1
        # The first of six columns lies between the first two of nine, whatever the rows.
        columns = square[1:].reshape(6, 6, -1).mean(0), table.mean(0)
        assert np.abs(columns[0][0] - columns[1][:2].mean(0)).mean() < 0.5 * np.abs(columns[1][0]).mean()


def test_positions_of_a_smooth_table():
    """Interpolating a plane gives the plane, away from its edges."""
    table = np.stack(np.meshgrid(np.arange(8.0), np.arange(8.0), indexing="ij"), -1).reshape(64, 2).astype("float32")
    layer = sequence.Positions(2 + 256, grid=(16, 16))
    found = layer.resampled(np.concatenate([np.full((2, 2), 7, "float32"), table]))
    np.testing.assert_array_equal(found[:2], np.full((2, 2), 7))
    rows = found[2:].reshape(16, 16, 2)[4:12, 4:12]
    expected = (np.arange(16) + 0.5) / 2 - 0.5
    np.testing.assert_allclose(rows[:, 0, 0], expected[4:12], atol=1e-5)
    np.testing.assert_allclose(rows[0, :, 1], expected[4:12], atol=1e-5)


def test_positions_of_other_tokens_are_refused(tmp_path):
    """A table of another number of tokens before the patches does not fit."""
    zoo.save_weights(zoo.get("deit_micro_tiny"), tmp_path / "deit.safetensors")
    with pytest.raises(BadOption, match="made for deit_micro_tiny"):
        zoo.get("vit_micro_tiny", weights=tmp_path / "deit.safetensors")
    with pytest.raises(BadOption, match="made with distillation='average'"):
        zoo.get("deit_micro_tiny", weights=tmp_path / "deit.safetensors", distillation="none")


@pytest.mark.parametrize("name", ["vit_micro_tiny", "deit_micro_tiny", "encoder_tiny", "transformer_tiny"])
def test_attention_as_features(name):
    """Attention weights sum to 1 over the keys; `levels` selects blocks in their order."""
    model = zoo.features(name, kind="attention")
    first, last = zoo.features(name, levels=(0, -1), kind="attention").outputs
    assert (first.shape, last.shape) == (model.outputs[0].shape, model.outputs[-1].shape)
    draws = np.random.default_rng(0)
    given = {
        x.name: draws.integers(1, 9, (2, *x.shape[1:])) if x.dtype == "int32" else draw(2, *x.shape[1:])
        for x in model.inputs
    }
    found = model(given if len(given) > 1 else next(iter(given.values())))
    assert len(found) > 1
    for weights in map(np.asarray, found):
        assert weights.ndim == 4
        assert weights.min() >= 0
        np.testing.assert_allclose(weights.sum(-1), 1, rtol=1e-5)
        assert np.ptp(weights) > 0


def test_attention_matches_numpy():
    """The weights are the softmax of queries times keys, computed by hand."""
    import keras

    model = randomized(zoo.get("vit_micro_tiny"))
    images = draw(2, 32, 32, 3)
    weights = zoo.features("vit_micro_tiny", levels=(1,), kind="attention", weights=model)(images)
    qkv = np.asarray(keras.Model(model.input, model.get_layer("block2_attention_qkv").output)(images))
    q, k, _ = qkv.reshape(2, 65, 3, 4, 16).transpose(2, 0, 3, 1, 4).astype("float64")
    scores = q @ k.swapaxes(-1, -2) / 4
    scores = np.exp(scores - scores.max(-1, keepdims=True))
    close(weights, scores / scores.sum(-1, keepdims=True), 1e-4)


def test_attention_of_models_without_it_is_refused():
    """An unknown kind of features and a block that does not exist are refused too."""
    with pytest.raises(BadOption, match=r"resnet_tiny has no attention weights\. Received: model='resnet_tiny'"):
        zoo.features("resnet_tiny", kind="attention")
    with pytest.raises(BadOption, match=r"kind must be one of maps, attention\. Received: kind='gradients'"):
        zoo.features("vit_micro_tiny", kind="gradients")
    with pytest.raises(BadOption, match=r"levels must be from 0 to 2, .* Received: levels=\(3,\)"):
        zoo.features("vit_micro_tiny", kind="attention", levels=(3,))


def test_pooling():
    """The class token, or the mean of the patches, of the last map, which is normalized; from the same weights."""
    model = randomized(zoo.get("vit_micro_tiny", classes=0))
    mean = zoo.get("vit_micro_tiny", classes=0, pooling="mean")
    values = {weight.path: weight for weight in model.weights}
    for weight in mean.weights:
        weight.assign(values[weight.path])
    images = draw(2, 32, 32, 3)
    last = zoo.features("vit_micro_tiny", levels=(-1,), weights=model)(images)
    assert last.shape == (2, 8, 8, 64)
    close(mean(images), np.asarray(last).mean((1, 2)))
    assert np.abs(np.asarray(model(images)) - np.asarray(mean(images))).max() > 0.1


def test_maps_have_the_order_of_the_patches():
    """A change in one patch changes its position in the first map most."""
    maps = zoo.features("vit_micro_tiny", levels=(0,), input_shape=(24, 40, 3))
    images = draw(1, 24, 40, 3)
    changed = images.copy()
    changed[:, 8:12, 28:32] += 3
    difference = np.abs(np.asarray(maps(changed)) - np.asarray(maps(images))).sum(-1)[0]
    assert difference.shape == (6, 10)
    assert np.unravel_index(difference.argmax(), difference.shape) == (2, 7)


@pytest.mark.parametrize(
    "options",
    [
        {"layer_scale": 0.5},
        *(pytest.param(o, marks=pytest.mark.slow) for o in ({}, {"norm": "post"}, {"distillation": "average"})),
    ],
)
def test_lean_is_the_same_model(options):
    """lean=True has the same weights, logits and gradients with fewer multiply-adds."""
    import tensorflow as tf

    from zoo.specs.registry import models
    from zoo.summary import summarize

    whole = randomized(zoo.get("vit_micro_tiny", **options))
    lean = zoo.get("vit_micro_tiny", lean=True, weights=whole, **options)
    assert [v.path for v in lean.weights] == [v.path for v in whole.weights]
    images, found = draw(2, 32, 32, 3), []
    for model in (whole, lean):
        with tf.GradientTape() as tape:
            logits = model(images, training=True)
        found.append([logits, *tape.gradient(logits, [v.value for v in model.trainable_weights], draw(2, 10))])
    for actual, expected in zip(*found, strict=True):
        close(actual, expected, 1e-4)
    assert summarize(lean, [])["gmacs"] < 0.8 * summarize(whole, [])["gmacs"]
    assert models["vit_micro_tiny"].spec.params == zoo.get("vit_micro_tiny", lean=True).count_params()


@pytest.mark.parametrize("kind", [pytest.param("maps", marks=pytest.mark.slow), "attention"])
def test_lean_keeps_maps_and_attention(kind):
    """Features are those of the full model."""
    whole = randomized(zoo.get("vit_micro_tiny"))
    images = draw(2, 32, 32, 3)
    features = [zoo.features("vit_micro_tiny", kind=kind, lean=yes, weights=whole)(images) for yes in (True, False)]
    for actual, expected in zip(*features, strict=True):
        np.testing.assert_array_equal(actual, expected)


def test_patches_crop_the_image():
    """Pixels after the last whole patch do not change the output; all others do."""
    model = zoo.get("vit_micro_tiny", input_shape=(11, 14, 1))
    images = draw(1, 11, 14, 1)
    outside, inside = images.copy(), images.copy()
    outside[:, 8:], outside[:, :, 12:] = 9, 9
    inside[:, 7, 11] = 9
    np.testing.assert_array_equal(model(images), model(outside))
    assert np.abs(np.asarray(model(images)) - np.asarray(model(inside))).max() > 1e-3


def test_small_images_take_small_patches():
    """Digits of 8x8 pixels are 16 patches of 2x2."""
    model = zoo.get("vit_micro_tiny", input_shape=(8, 8, 1), patch=2)
    assert model.get_layer("positions").output.shape == (None, 17, 64)
    assert np.isfinite(model(draw(2, 8, 8, 1))).all()


def test_drop_path_grows_with_depth():
    """The first block is never dropped, the last at the given rate; DeiT drops by default, ViT does not."""
    model = zoo.get("vit_micro_tiny", drop_path=0.2)
    rates = {layer.name: round(layer.rate, 6) for layer in model.layers if layer.name.endswith("drop_path")}
    branches = [(f"block{i}_{branch}", rate) for i, rate in ((2, 0.1), (3, 0.2)) for branch in ("attention", "feed")]
    assert rates == {f"{branch}_drop_path": rate for branch, rate in branches}
    assert "drop_path" in str([layer.name for layer in zoo.get("deit_tiny_patch16_224", depth=2).layers])
    assert "drop_path" not in str([layer.name for layer in zoo.get("vit_tiny_patch16_224", depth=2).layers])


def test_graph_computes_no_shapes():
    """All sizes but the batch are static in the graph."""
    import tensorflow as tf

    for name in ("vit_micro_tiny", "deit_micro_tiny"):
        model = zoo.get(name)
        call = tf.function(lambda x, model=model: model(x, training=False))
        graph = call.get_concrete_function(tf.TensorSpec((None, 32, 32, 3))).graph
        assert "Shape" not in {operation.type for operation in graph.get_operations()}


REFUSED = [
    ({"patch": 33}, "patch must be at most the image's height and width. Received: patch=33, 32x32"),
    ({"patch": 0}, "patch must be at least 1"),
    ({"depth": 0}, "depth must be at least 1"),
    ({"pooling": "max"}, "pooling must be one of class, mean. Received: pooling='max'"),
    ({"distillation": "both"}, "distillation must be one of none, average, separate"),
    ({"distillation": "average", "pooling": "mean"}, "distillation goes with pooling='class'"),
    ({"width": 30}, "width must be a multiple of attention_heads. Received: width=30, attention_heads=4"),
    ({"lean": True, "pooling": "mean"}, "lean goes with pooling='class'. Received: lean=True, pooling='mean'"),
    ({"drop_path": 1.0}, "drop_path must be at least 0 and below 1"),
    (
        {"distillation": "separate", "heads": {"a": 2, "b": 3}},
        "Expected one head with auxiliary classifiers. Received: heads={'a'",
    ),
]


@pytest.mark.parametrize(("options", "message"), REFUSED)
def test_options_that_are_refused(options, message):
    """One line names the option and its value."""
    with pytest.raises(BadOption) as error:
        zoo.get("vit_micro_tiny", **options)
    assert message in str(error.value)
    assert "\n" not in str(error.value)
