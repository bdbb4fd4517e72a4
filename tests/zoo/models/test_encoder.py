"""Text encoders: parameter counts by formula, padding, order of tokens, and attention in NumPy."""

from __future__ import annotations

import math

import keras
import numpy as np
import pytest

import zoo
from zoo.common.errors import BadOption
from zoo.layers import sequence as sequence_module

# (vocabulary, length, width, depth, classes) of each variant: the sizes of Turc et al. 2019, table 1.
SIZES = {
    "encoder_tiny": (1_000, 64, 64, 2, 2),
    "encoder_mini": (30_522, 512, 256, 4, 2),
    "encoder_small": (30_522, 512, 512, 4, 2),
    "encoder_medium": (30_522, 512, 512, 8, 2),
    "encoder_base": (30_522, 512, 768, 12, 2),
    "tagger_tiny": (1_000, 64, 64, 2, 9),
    "tagger_base": (30_522, 512, 768, 12, 9),
}
SMALL = {"vocabulary": 40, "input_shape": (12,), "width": 32, "attention_heads": 4}
GELU = np.vectorize(lambda x: x / 2 * (1 + math.erf(x / math.sqrt(2))))
ACTIVATIONS = {
    "relu": lambda x: np.maximum(x, 0),
    "gelu": GELU,
    "gelu_tanh": lambda x: x / 2 * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))),
    "silu": lambda x: x / (1 + np.exp(-x)),
}
GATED = {"reglu": "relu", "geglu": "gelu", "swiglu": "silu"}


def small(name="encoder_tiny", **options):
    """A small model with all weights far from 0 and 1, so that each affects the output."""
    keras.utils.set_random_seed(0)
    return perturbed(zoo.get(name, **SMALL | options))


def perturbed(model):
    """The model with noise on all weights."""
    draw = np.random.default_rng(0)
    for variable in model.trainable_variables:
        variable.assign(variable.numpy() + draw.normal(0, 0.2, variable.shape))
    return model


def tokens(lengths, width=12, vocabulary=40):
    """Ids of sequences of these lengths, padded to one width."""
    draw = np.random.default_rng(1)
    ids = draw.integers(1, vocabulary, (len(lengths), width)).astype("int32")
    ids[np.arange(width) >= np.array(lengths)[:, None]] = 0
    return ids


def run(model, ids):
    """The outputs as an array."""
    return np.asarray(model(ids, training=False))


def count(model):
    """Number of trainable parameters."""
    return sum(int(np.prod(v.shape)) for v in model.trainable_variables)


def block_parameters(width, hidden, bias=True):
    """Four projections, two dense layers with biases, two norms with scale and offset."""
    return 4 * (width * width + bias * width) + 2 * width * hidden + hidden + width + 4 * width


@pytest.mark.parametrize("name", SIZES)
def test_parameters_by_formula(name):
    """The parameters are those of embedding, positions, blocks, last norm and logits."""
    vocabulary, length, width, depth, classes = SIZES[name]
    spec = zoo.spec(name)
    assert (spec.vocabulary, spec.input_shape, spec.classes) == (vocabulary, (length,), classes)
    body = (vocabulary + length) * width + depth * block_parameters(width, 4 * width)
    assert spec.params == body + 2 * width + width * classes + classes


@pytest.mark.parametrize(
    ("options", "added"),
    [
        ({"norm": "post", "pooling": "class", "attention_bias": False}, 2 * 32 - 2 * 4 * 32),
        *(
            pytest.param(*case, marks=pytest.mark.slow)
            for case in (
                ({}, 0),
                ({"positions": "sinusoidal"}, -12 * 32),
                ({"pooling": "class"}, 2 * 32),
                ({"norm": "post"}, 2 * 32),
                ({"norm": "post", "pooling": "class"}, 2 * 32),
                ({"attention_bias": False}, -2 * 4 * 32),
                ({"layer_scale": 0.1}, 2 * 2 * 32),
                ({"name": "tagger_tiny", "norm": "post", "classes": 5}, 3 * 33),
            )
        ),
    ],
)
def test_options_count_what_they_add(options, added):
    """A class token adds one vector and one position; norm="post" has norms of the embeddings and of the mean."""
    body = (40 + 12) * 32 + 2 * block_parameters(32, 128) + 2 * 32 + 2 * 32 + 2
    assert count(small(**options)) == body + added


@pytest.mark.slow
def test_hidden_units_and_depth():
    """Each is as it is asked for."""
    assert small(hidden=48, depth=3).get_layer("block3_feed_expand").units == 48


@pytest.mark.parametrize("pooling", ["mean", "class"])
@pytest.mark.parametrize("norm", ["pre", pytest.param("post", marks=pytest.mark.slow)])
@pytest.mark.parametrize("positions", ["learned", pytest.param("sinusoidal", marks=pytest.mark.slow)])
def test_padding_changes_nothing(tmp_path, pooling, norm, positions):
    """Sequences in a padded batch have the same outputs as each alone, also with a model of its own length."""
    options = {"pooling": pooling, "norm": norm, "positions": positions}
    model = small(**options)
    zoo.save_weights(model, tmp_path / "weights.safetensors")
    ids = tokens((3, 12, 7))
    batch = run(model, ids)
    for i in range(3):
        np.testing.assert_allclose(batch[i], run(model, ids[i : i + 1])[0], atol=1e-5)
    own = {**SMALL, **options, "input_shape": (3,), "weights": tmp_path / "weights.safetensors"}
    np.testing.assert_allclose(batch[:1], run(zoo.get("encoder_tiny", **own), ids[:1, :3]), atol=1e-5)
    # Control: if padding were a token like others, the outputs would differ.
    assert np.abs(run(model, np.where(ids, ids, 1)) - batch)[0].max() > 1e-2


@pytest.mark.parametrize("norm", ["pre", "post"])
def test_padding_changes_no_tag(norm):
    """The logits of each token are the same in a padded batch and alone."""
    model = small("tagger_tiny", norm=norm, classes=5)
    ids = tokens((4, 12))
    assert model.output_shape == (None, 12, 5)
    short = zoo.get("tagger_tiny", **{**SMALL, "input_shape": (4,), "norm": norm, "classes": 5, "weights": model})
    np.testing.assert_allclose(run(model, ids)[0, :4], run(short, ids[:1, :4])[0], atol=1e-5)
    assert np.abs(run(model, np.where(ids, ids, 1)) - run(model, ids))[0, :4].max() > 1e-2


@pytest.mark.parametrize("pooling", ["mean", pytest.param("class", marks=pytest.mark.slow)])
@pytest.mark.parametrize("positions", ["learned", "sinusoidal"])
def test_order_matters(pooling, positions):
    """Another order of the same tokens changes the output; without positions (control) it does not."""
    model = small(pooling=pooling, positions=positions)
    ids = tokens((12,))
    turned = ids[:, ::-1].copy()
    assert np.abs(run(model, ids) - run(model, turned)).max() > 1e-2
    layer = model.get_layer("positions")
    if positions == "learned":
        layer.embedding.assign(np.zeros(layer.embedding.shape))
    else:
        layer.embedding = np.zeros_like(layer.embedding)
    np.testing.assert_allclose(run(model, ids), run(model, turned), atol=1e-5)


@pytest.mark.parametrize("norm", [pytest.param("pre", marks=pytest.mark.slow), "post"])
def test_pooling(norm):
    """ "mean" is the normalized mean of the tokens without padding; "class" is the first token."""
    ids = tokens((5, 12))
    for pooling in ("mean", "class"):
        model = small(pooling=pooling, norm=norm, classes=0)
        whole = zoo.get("encoder_tiny", **SMALL, pooling=pooling, norm=norm, include_top=False, weights=model)
        sequence = run(whole, ids)
        assert sequence.shape == (2, 12 + (pooling == "class"), 32)
        expected = np.stack([sequence[0, :5].mean(0), sequence[1].mean(0)])
        expected = expected if pooling == "mean" else sequence[:, 0]
        if pooling == "mean" or norm == "pre":
            expected = normalized(expected, model.get_layer("head_norm"))
        np.testing.assert_allclose(run(model, ids), expected, atol=1e-5)


def normalized(x, layer):
    """Layer normalization, in NumPy."""
    x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + layer.epsilon)
    return x * layer.gamma.numpy() + layer.beta.numpy()


def dense(x, layer):
    """A dense layer, in NumPy."""
    return x @ layer.kernel.numpy() + layer.bias.numpy()


@pytest.mark.parametrize("activation", [*ACTIVATIONS, *GATED])
def test_block_matches_numpy(activation):
    """One pre-norm block in NumPy: attention by equation 1, and each kind of feed-forward layers."""
    model = small("tagger_tiny", depth=1, activation=activation, include_top=False, vocabulary=40)
    layer, (ids,) = model.get_layer, tokens((12,))
    x = layer("embedding").embedding.numpy()[ids] + layer("positions").embedding.numpy()
    y = dense(normalized(x, layer("block1_attention_norm")), layer("block1_attention_qkv"))
    q, k, v = y.reshape(12, 3, 4, 8).transpose(1, 2, 0, 3)
    scores = np.exp(q @ k.swapaxes(1, 2) / math.sqrt(8))
    y = (scores / scores.sum(-1, keepdims=True) @ v).transpose(1, 0, 2).reshape(12, 32)
    x = x + dense(y, layer("block1_attention_project"))
    y = normalized(x, layer("block1_feed_norm"))
    if activation in GATED:
        gate = ACTIVATIONS[GATED[activation]](dense(y, layer("block1_feed_gate")))
        y = gate * dense(y, layer("block1_feed_expand"))
    else:
        y = ACTIVATIONS[activation](dense(y, layer("block1_feed_expand")))
    np.testing.assert_allclose(run(model, ids[None])[0], x + dense(y, layer("block1_feed_project")), atol=1e-4)


@pytest.mark.parametrize("activation", GATED)
def test_gated_layers_have_the_same_size(activation):
    """Gated layers have a third projection and two thirds of the width: within 1% of the parameters."""
    assert count(zoo.get("encoder_tiny", activation=activation)) == pytest.approx(168_322, rel=0.01)


@pytest.mark.parametrize("pooling", ["mean", "class"])
def test_attention_is_a_distribution(pooling):
    """Attention weights sum to 1, and those of padding are 0."""
    model = zoo.features("encoder_tiny", kind="attention", pooling=pooling, **SMALL)
    front = int(pooling == "class")
    maps = [np.asarray(m) for m in model(tokens((5, 12)))]
    assert [m.shape for m in maps] == [(2, 4, 12 + front, 12 + front)] * 2
    for weights in maps:
        np.testing.assert_allclose(weights.sum(-1), 1, atol=1e-6)
        assert weights[0, ..., 5 + front :].max() < 1e-8
        assert weights[0, ..., : 5 + front].min() > 1e-8


def test_only_padding_gives_finite_outputs():
    """A sequence of padding alone has finite outputs."""
    assert np.isfinite(run(small(), tokens((0, 3)))).all()


def test_dropout_rates():
    """The rates are BERT's; drop_path grows with the depth of the block."""
    model = zoo.get("encoder_tiny", depth=3, drop_path=0.3, projection_dropout=0.1, attention_dropout=0.2, dropout=0.4)
    rates = {layer.name: round(layer.rate, 6) for layer in model.layers if hasattr(layer, "rate")}
    assert rates == {
        "embedding_dropout": 0.1,
        **{f"block{i}_{part}_dropout": 0.1 for i in (1, 2, 3) for part in ("attention", "feed")},
        **{f"block{i}_attention_weights_dropout": 0.2 for i in (1, 2, 3)},
        **{f"block{i}_{part}_drop_path": 0.15 * (i - 1) for i in (2, 3) for part in ("attention", "feed")},
        "head_dropout": 0.4,
    }
    assert zoo.get("encoder_tiny", drop_path=0.3, depth=1).count_params()


def test_published_sizes_have_published_dropout():
    """Attention and branches have dropout of 0.1; the tiny variants have none by default."""
    from zoo.specs.registry import models

    dropped = {name for name in SIZES if models[name].arguments.get("projection_dropout") == 0.1}
    assert dropped == {name for name in SIZES if not name.endswith("_tiny")}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pooling": "max"}, "pooling must be 'mean' or 'class'. Received: pooling='max'"),
        ({"positions": "none"}, "positions must be 'learned' or 'sinusoidal'. Received: positions='none'"),
        ({"norm": "no"}, "norm must be 'pre' or 'post'. Received: norm='no'"),
        ({"width": 30}, "width must be a multiple of attention_heads. Received: width=30, attention_heads=4"),
        ({"width": 0}, "width must be at least 1 everywhere. Received: width=(0,)"),
        ({"depth": 0}, "depth must be at least 1 everywhere. Received: depth=(0,)"),
        ({"attention_heads": 0}, "attention_heads must be at least 1 everywhere. Received: attention_heads=(0,)"),
        ({"vocabulary": 3}, "vocabulary must be at least 4, .*. Received: vocabulary=3"),
        ({"vocabulary": "40"}, "vocabulary must be a whole number. Received: vocabulary='40'"),
        ({"drop_path": 1.0}, "drop_path must be at least 0 and below 1. Received: drop_path=1.0"),
        ({"activation": "swigl"}, "activation must be .*. Received: activation='swigl'. Did you mean 'swiglu'?"),
        ({"input_shape": (8, 8)}, r"encoder_tiny needs input_shape to be \(length,\) of at least 1. Received: .*"),
    ],
)
def test_options_that_are_refused(options, message):
    """One line has what was expected and what was received."""
    with pytest.raises(BadOption, match=message.replace("?", r"\?").replace("(0,)", r"\(0,\)")) as caught:
        zoo.get("encoder_tiny", **options)
    assert "\n" not in str(caught.value)


def test_a_tagger_does_not_pool():
    """`pooling` is an option of the classifier only."""
    with pytest.raises(BadOption, match=r"tagger_tiny has no such option\. Received: pooling='mean'"):
        zoo.get("tagger_tiny", pooling="mean")


def test_longer_than_the_weights_is_refused(tmp_path):
    """Learned positions cannot be extended."""
    path = tmp_path / "weights.safetensors"
    zoo.save_weights(small(), path)
    with pytest.raises(BadOption, match="1 of another shape: positions/embedding"):
        zoo.get("encoder_tiny", **SMALL | {"input_shape": (13,)}, weights=path)


def test_sinusoids():
    """Section 3.5: sin(position / 10000^(2i / width)) and the cosine of the same, alternating."""
    table = sequence_module.sinusoids(50, 8)
    for place, i in ((0, 0), (1, 0), (49, 3), (17, 2)):
        angle = place / 10_000 ** (2 * i / 8)
        np.testing.assert_allclose(table[place, 2 * i : 2 * i + 2], [math.sin(angle), math.cos(angle)], atol=1e-6)
