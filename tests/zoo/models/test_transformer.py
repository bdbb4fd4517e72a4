"""The Transformer of 2017: parameter counts by the paper's equations, shared embeddings, and attention masks."""

from __future__ import annotations

import keras
import numpy as np
import pytest

import zoo
from zoo.common.errors import BadOption
from zoo.layers import sequence
from zoo.specs.registry import models

# (vocabulary, width, feed-forward width, heads, blocks, dropout): table 3 and section 5.1 of the paper, and ours.
SIZES = {
    "transformer_base": (37_000, 512, 2048, 8, 6, 0.1),
    "transformer_big": (37_000, 1024, 4096, 16, 6, 0.3),
    "transformer_tiny": (64, 64, 128, 4, 2, 0.0),
}
SMALL = {
    "vocabulary": 20,
    "input_shape": (7, 6),
    "width": 32,
    "attention_heads": 4,
    "hidden": 48,
    "depths": (2, 2),
}


def small(**options):
    """A small model with all weights far from 0 and 1, so that each affects the output."""
    keras.utils.set_random_seed(0)
    model, draw = zoo.get("transformer_tiny", **SMALL | options), np.random.default_rng(0)
    for variable in model.trainable_variables:
        variable.assign(variable.numpy() + draw.normal(0, 0.1, variable.shape))
    return model


def tokens(lengths, width, seed=1):
    """Ids of sequences of these lengths, padded to one width."""
    ids = np.random.default_rng(seed).integers(1, 20, (len(lengths), width)).astype("int32")
    ids[np.arange(width) >= np.array(lengths)[:, None]] = 0
    return ids


def run(model, source, target):
    """The outputs as an array."""
    return np.asarray(model({"source": source, "target": target}, training=False))


def count(model):
    """Number of trainable parameters."""
    return sum(int(np.prod(v.shape)) for v in model.trainable_variables)


def attention_parameters(width, heads):
    """Section 3.2.2: W^Q, W^K and W^V of each head, and W^O; no biases."""
    size = width // heads
    return heads * 3 * width * size + heads * size * width


def parameters(vocabulary, width, hidden, heads, depths):
    """One table (section 3.4); equation 2 has biases; a norm, gain and bias, after each branch."""
    feed, norm, attention = 2 * width * hidden + hidden + width, 2 * width, attention_parameters(width, heads)
    encoder, decoder = attention + feed + 2 * norm, 2 * attention + feed + 3 * norm
    return vocabulary * width + depths[0] * encoder + depths[1] * decoder


@pytest.mark.parametrize("name", SIZES)
def test_parameters_by_the_equations(name):
    """The counts that the paper's hyper-parameters give at a vocabulary of 37,000 tokens."""
    vocabulary, width, hidden, heads, blocks, dropped = SIZES[name]
    spec, arguments = zoo.spec(name), models[name].arguments
    assert spec.params == parameters(vocabulary, width, hidden, heads, (blocks, blocks))
    assert (spec.vocabulary, spec.classes, arguments["attention_heads"]) == (vocabulary, vocabulary, heads)
    assert arguments.get("projection_dropout", 0.0) == dropped


def test_published_counts():
    """63 and 214 million parameters; the table of the paper has 65 and 213."""
    assert zoo.spec("transformer_base").params == 63_045_632
    assert zoo.spec("transformer_big").params == 214_171_648


BODY = 20, 32, 48, 4


@pytest.mark.parametrize(
    ("options", "depths", "added"),
    [
        ({"norm": "pre", "positions": "learned", "attention_bias": True}, (2, 2), 2 * 2 * 32 + 13 * 32 + 24 * 32),
        *(
            pytest.param(*case, marks=pytest.mark.slow)
            for case in (
                ({}, (2, 2), 0),
                ({"norm": "pre"}, (2, 2), 2 * 2 * 32),
                ({"positions": "learned"}, (2, 2), (7 + 6) * 32),
                ({"attention_bias": True}, (2, 2), (2 * 4 + 2 * 8) * 32),
                ({"depths": (3, 1)}, (3, 1), 0),
            )
        ),
    ],
)
def test_options_count_what_they_add(options, depths, added):
    """Pre-norm has one more norm in encoder and decoder; depths and learned positions are counted."""
    assert count(small(**options)) == parameters(*BODY, depths) + added


@pytest.mark.slow
def test_gated_layers_are_as_large_as_others():
    """The hidden layers of SwiGLU are narrower, so that the model has as many parameters."""
    assert count(zoo.get("transformer_tiny", activation="swiglu")) == pytest.approx(169_984, rel=0.01)


@pytest.mark.parametrize(
    "activation",
    [
        "swiglu",
        *(pytest.param(n, marks=pytest.mark.slow) for n in ("relu", "gelu", "gelu_tanh", "silu", "reglu", "geglu")),
    ],
)
def test_activations_run(activation):
    """Each kind of feed-forward layers gives finite logits that depend on both sequences."""
    model = small(activation=activation)
    source, target = tokens((7, 7), 7), tokens((6, 6), 6, seed=2)
    logits = run(model, source, target)
    assert np.isfinite(logits).all()
    assert np.abs(run(model, source[::-1], target) - logits).max() > 1e-2
    assert np.abs(run(model, source, target[::-1]) - logits).max() > 1e-2


def test_one_table():
    """Source, target and logits share one table; embeddings are multiplied by the square root of the width."""
    model = small()
    tables = [layer for layer in model.layers if isinstance(layer, sequence.TokenEmbedding)]
    table, ids = tables[0].embedding.numpy(), tokens((6,), 6)
    assert len(tables) == 1
    np.testing.assert_allclose(tables[0](ids)[0], table[ids[0]] * 32**0.5, rtol=1e-6)
    vectors = zoo.get("transformer_tiny", **SMALL, include_top=False, weights=model)
    source = tokens((7,), 7)
    np.testing.assert_allclose(run(model, source, ids), run(vectors, source, ids) @ table.T, atol=1e-4)


@pytest.mark.parametrize("norm", ["pre", pytest.param("post", marks=pytest.mark.slow)])
@pytest.mark.parametrize("positions", ["learned", pytest.param("sinusoidal", marks=pytest.mark.slow)])
def test_padding_changes_nothing(norm, positions):
    """Sources in a padded batch have the same logits as each alone, also with a model of its own length."""
    options = {"norm": norm, "positions": positions}
    model = small(**options)
    source, target = tokens((3, 7), 7), tokens((4, 6), 6, seed=2)
    batch = run(model, source, target)
    for i in range(2):
        np.testing.assert_allclose(batch[i], run(model, source[i : i + 1], target[i : i + 1])[0], atol=1e-5)
    own = zoo.get("transformer_tiny", **{**SMALL, **options, "input_shape": (3, 4), "weights": model})
    np.testing.assert_allclose(batch[:1, :4], run(own, source[:1, :3], target[:1, :4]), atol=1e-5)
    # Control: if padding were a token like others, the outputs would differ.
    assert np.abs(run(model, np.where(source, source, 1), target) - batch)[0].max() > 1e-2


@keras.saving.register_keras_serializable("tests")
class Open(sequence.CausalBias):
    """Bias of a decoder without a causal mask."""

    def call(self, inputs, at=None):
        """Return zeros."""
        return super().call(inputs, at) * 0


def opened(model):
    """The same model, with shared layers, without a causal mask in the decoder."""

    def exchanged(layer):
        return Open(layer.length, name=layer.name) if isinstance(layer, sequence.CausalBias) else layer

    return keras.models.clone_model(model, clone_function=exchanged)


@pytest.mark.parametrize(
    "options",
    [
        {"norm": "pre"},
        {"norm": "post"},
        *(pytest.param(o, marks=pytest.mark.slow) for o in ({"positions": "learned"}, {"activation": "geglu"})),
    ],
)
def test_decoder_is_causal(options):
    """Later tokens do not change the logits of a position; without the causal bias (control) they do."""
    model = small(**options)
    source, target = np.repeat(tokens((7,), 7), 6, axis=0), np.repeat(tokens((6,), 6, seed=2), 6, axis=0)
    # The first is unchanged, the second differs after position 0, the third after position 1, and so on.
    later = np.triu(np.ones((6, 6), bool), k=1)
    later = np.concatenate([np.zeros((1, 6), bool), later[:5]])
    target = np.where(later, 1 + target % 19, target)
    logits, seen = run(model, source, target), run(opened(model), source, target)
    for row in range(1, 6):
        np.testing.assert_allclose(logits[row, :row], logits[0, :row], atol=1e-5)
        assert np.abs(logits[row, row] - logits[0, row]).max() > 1e-2
        assert np.abs(seen[row, :row] - seen[0, :row]).max() > 1e-2


def test_attention_is_a_distribution():
    """Attention weights sum to 1; those of padding in the source and of later tokens in the target are 0."""
    model = zoo.features("transformer_tiny", kind="attention", **SMALL)
    maps = [np.asarray(m) for m in model({"source": tokens((4, 7), 7), "target": tokens((6, 6), 6, seed=2)})]
    of_encoder, of_decoder = maps[:2], maps[2:]
    assert [m.shape for m in of_encoder] == [(2, 4, 7, 7)] * 2
    assert [m.shape for m in of_decoder] == [(2, 4, 6, 6), (2, 4, 6, 7)] * 2
    for weights in maps:
        np.testing.assert_allclose(weights.sum(-1), 1, atol=1e-6)
    for weights in (*of_encoder, *of_decoder[1::2]):
        assert weights[0, ..., 4:].max() < 1e-8
        assert weights[1].min() > 1e-8
    for weights in of_decoder[::2]:
        assert np.abs(np.triu(weights, k=1)).max() < 1e-8
        assert weights[..., np.tril(np.ones((6, 6), bool))].min() > 1e-8


def test_dropout_rates():
    """Section 5.4: dropout of the branches and of the sums of embeddings and positions."""
    model = zoo.get("transformer_tiny", projection_dropout=0.1, dropout=0.2)
    rates = {layer.name: layer.rate for layer in model.layers if hasattr(layer, "rate")}
    branches = [f"encoder{i}_{part}_dropout" for i in (1, 2) for part in ("attention", "feed")]
    branches += [f"decoder{i}_{part}_dropout" for i in (1, 2) for part in ("attention", "memory", "feed")]
    assert rates == dict.fromkeys([*branches, "source_dropout", "target_dropout"], 0.1) | {"head_dropout": 0.2}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"depths": (2,)},
            r"depths must be two numbers: blocks of the encoder and of the decoder. Received: depths=\(2,\)",
        ),
        ({"depths": (2, 0)}, r"depths must be at least 1 everywhere. Received: depths=\(2, 0\)"),
        ({"vocabulary": 3}, "vocabulary must be at least 4, .*. Received: vocabulary=3"),
        ({"positions": "rotary"}, "positions must be 'learned' or 'sinusoidal'. Received: positions='rotary'"),
        ({"attention_heads": 5}, "width must be a multiple of attention_heads. Received: width=64, attention_heads=5"),
        ({"projection_dropout": -0.1}, "projection_dropout must be at least 0 and below 1. Received: .*=-0.1"),
        ({"classes": 10}, "predicts the tokens of its vocabulary: set vocabulary= instead. Received: classes=10"),
        ({"input_shape": (16,)}, r"needs input_shape to be \(source length, target length\) of at least 1"),
        ({"pooling": "mean"}, "transformer_tiny has no such option. Received: pooling='mean'"),
    ],
)
def test_options_that_are_refused(options, message):
    """One line has what was expected and what was received."""
    with pytest.raises(BadOption, match=message) as caught:
        zoo.get("transformer_tiny", **options)
    assert "\n" not in str(caught.value)
