"""Step-wise decoding against the whole model, and beam search against exhaustive search."""

from __future__ import annotations

import gc
import itertools
import weakref

import keras
import numpy as np
import pytest

import zoo
from zoo.common.errors import BadOption
from zoo.decoding import beam, greedy, split_model
from zoo.specs.text import END, PADDING, START

SMALL = {"width": 16, "attention_heads": 2, "hidden": 32, "depths": (1, 2), "input_shape": (6, 5)}
WORDS = 6


def small(**options):
    """A small model with large weights, so that its output depends on the source.

    Each is drawn by its own name, so that a sequence ends early, late or not at all, whatever the order of layers.
    """
    model = zoo.get("transformer_tiny", **{"vocabulary": WORDS, **SMALL, **options})
    for variable in model.trainable_variables:
        draw = np.random.default_rng([2, *variable.path.encode()])
        values = draw.normal(0, 0.4 if variable.name == "embedding" else 0.3, variable.shape)
        variable.assign({"gamma": 1 + values, "beta": 0 * values}.get(variable.name, values))
    return model


def sources(count, length=6, words=WORDS):
    """Ids, the last sequence padded."""
    ids = np.random.default_rng(1).integers(1, words, (count, length)).astype("int32")
    ids[-1, length // 2 + 1 :] = PADDING
    return keras.ops.convert_to_tensor(ids)


def targets(count, length=5, words=WORDS):
    """Ids that start as a target does."""
    ids = np.random.default_rng(2).integers(1, words, (count, length)).astype("int32")
    ids[:, 0] = START
    return ids


def whole(model, source, target):
    """Logits of the model as in training: all positions at once."""
    return np.asarray(model({"source": source, "target": keras.ops.convert_to_tensor(target)}, training=False))


def stepwise(parts, source, target):
    """Logits of one step after the other, through the cache."""
    memory, count = parts.encoder({"source": source})["memory"], len(target)
    cache, logits = keras.ops.zeros((count, *parts.cache_shape)), []
    for i in range(target.shape[1]):
        token, position = keras.ops.convert_to_tensor(target[:, i]), keras.ops.full((count,), i, "int32")
        inputs = {"token": token, "position": position, "source": source, "memory": memory, "cache": cache}
        outputs = parts.decoder(inputs)
        cache = outputs["cache"]
        logits.append(np.asarray(outputs["logits"]))
    return np.stack(logits, axis=1)


@pytest.mark.parametrize(
    "options",
    [
        pytest.param({}, marks=pytest.mark.slow),
        pytest.param({"norm": "pre", "activation": "swiglu"}, marks=pytest.mark.slow),
        {"positions": "learned", "attention_bias": True, "layer_scale": 0.5},
        pytest.param({"input_shape": (2, 5), "classifier_activation": "softmax"}, marks=pytest.mark.slow),
        pytest.param({"input_shape": (6, 1)}, marks=pytest.mark.slow),
    ],
)
def test_steps_are_the_whole(options):
    """Logits step by step with a cache equal the logits of all positions at once."""
    model = small(**options)
    length, steps = options.get("input_shape", (6, 5))
    source, target = sources(3, length), targets(3, steps)
    parts = split_model(model)
    found, expected = stepwise(parts, source, target), whole(model, source, target)
    if "classifier_activation" in options:
        found = np.exp(found) / np.exp(found).sum(-1, keepdims=True)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert (parts.length, parts.cache_shape) == (steps, (4, 2, steps, 8))
    assert parts.encoder.output["memory"].shape == (None, 4, 2, length, 8)
    # The control: other tokens give other logits.
    assert np.abs(stepwise(parts, source, 1 + target % 5) - expected).max() > 1e-2


def test_parts_are_as_documented():
    """Names, shapes and dtypes of what goes in and out, whatever the precision of the layers."""
    parts = split_model(small(dtype="mixed_bfloat16"))
    shapes = {key: (tuple(t.shape), t.dtype) for key, t in parts.decoder.input.items()}
    memory, cache = ((None, 4, 2, 6, 8), "float32"), ((None, 4, 2, 5, 8), "float32")
    assert shapes == {
        "token": ((None,), "int32"),
        "position": ((None,), "int32"),
        "source": ((None, 6), "int32"),
        "memory": memory,
        "cache": cache,
    }
    after = {key: (tuple(t.shape), t.dtype) for key, t in parts.decoder.output.items()}
    assert after == {"logits": ((None, WORDS), "float32"), "cache": cache}
    assert {key: (tuple(t.shape), t.dtype) for key, t in parts.encoder.output.items()} == {"memory": memory}
    assert greedy(parts, sources(2)).shape == (2, 5)


def test_a_saved_model_can_be_split_again(tmp_path):
    """Splitting does not change a model: it can be saved, and the loaded model can be split twice."""
    model, source, target = small(), sources(3), targets(3)
    expected = stepwise(split_model(model), source, target)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    for _ in range(2):
        np.testing.assert_allclose(stepwise(split_model(loaded), source, target), expected, atol=1e-5)
    np.testing.assert_allclose(whole(loaded, source, target), expected, atol=1e-5)
    assert [layer.name for layer in loaded.layers] == [layer.name for layer in model.layers]


def greedy_by_hand(model, source):
    """Greedy decoding without a cache: the whole model for each token."""
    length = model.output_shape[1]
    target, tokens = np.zeros((len(source), length + 1), "int32"), np.zeros((len(source), length), "int32")
    target[:, 0], done = START, np.zeros(len(source), bool)
    for i in range(length):
        token = np.where(done, PADDING, whole(model, source, target[:, :-1])[:, i].argmax(-1))
        tokens[:, i] = target[:, i + 1] = token
        done |= token == END
    return tokens


def test_greedy_selects_the_most_likely_tokens():
    """Each token is the most likely one of the whole model; PADDING follows END."""
    model, source = small(), sources(24)
    found = np.asarray(greedy(split_model(model), source))
    np.testing.assert_array_equal(found, greedy_by_hand(model, source))
    ends = (found == END).argmax(axis=1)[(found == END).any(axis=1)]
    assert found.dtype == np.int32
    # The model's outputs must differ between sources.
    assert len(set(map(bytes, found))) > 3
    assert 0 < len(ends) < 24
    assert len(set(ends)) > 1
    for row in found:
        assert not row[list(row).index(END) + 1 :].any() if END in row else True


def candidates(length):
    """All sequences: those that end with END, and those that have no room for it."""
    words = [word for word in range(WORDS) if word != END]
    ended = [(*first, END) for n in range(length) for first in itertools.product(words, repeat=n)]
    return [*ended, *itertools.product(words, repeat=length)]


def scores(model, source, sequences, penalty):
    """Wu et al. 2016, equation 14 without coverage, of all sequences for one source, by the whole model."""
    target = np.zeros((len(sequences), model.output_shape[1] + 1), "int32")
    target[:, 0] = START
    for row, sequence in zip(target, sequences, strict=True):
        row[1 : len(sequence) + 1] = sequence
    repeated = np.repeat(np.asarray(source)[None], len(sequences), axis=0)
    logits = whole(model, keras.ops.convert_to_tensor(repeated), target[:, :-1]).astype("float64")
    likely = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    total = [sum(rows[i, word] for i, word in enumerate(s)) for rows, s in zip(likely, sequences, strict=True)]
    lengths = np.array([len(sequence) for sequence in sequences])
    return np.array(total) / ((5 + lengths) / 6) ** penalty


def stripped(row):
    """A row of tokens without what is after the end."""
    row = [int(token) for token in row]
    return tuple(row[: row.index(END) + 1] if END in row else row)


@pytest.fixture(scope="module")
def searched():
    """A model, its encoder and decoder, sources, and all possible sequences."""
    model = small(input_shape=(6, 3))
    return model, split_model(model), sources(8), candidates(3)


@pytest.mark.parametrize("penalty", [0.6, *(pytest.param(p, marks=pytest.mark.slow) for p in (0.0, 4.0))])
def test_wide_beams_find_the_best_of_all(searched, penalty):
    """With room for all beginnings the search is exhaustive, and never worse than the greedy one."""
    model, parts, source, sequences = searched
    found, score = map(np.asarray, beam(parts, source, WORDS**2, penalty))
    most_likely = np.asarray(greedy(parts, source))
    better = 0
    for i in range(len(found)):
        every = scores(model, source[i], sequences, penalty)
        assert stripped(found[i]) == sequences[every.argmax()]
        assert score[i] == pytest.approx(every.max(), abs=1e-4)
        better += every.max() > every[sequences.index(stripped(most_likely[i]))] + 1e-3
        assert not found[i][len(stripped(found[i])) :].any()
    assert better > 0


def test_a_penalty_prefers_long_sequences(searched):
    """The higher the exponent, the longer the best sequences."""
    _, parts, source, _ = searched
    lengths = [sum(len(stripped(row)) for row in np.asarray(beam(parts, source, 4, p)[0])) for p in (0.0, 1.0, 4.0)]
    assert lengths == sorted(lengths)
    assert lengths[0] < lengths[-1]


def test_one_beam_is_greedy():
    """With one beam each token is the most likely one, for every penalty."""
    parts, source = split_model(small()), sources(24)
    np.testing.assert_array_equal(np.asarray(beam(parts, source, 1, 2.0)[0]), np.asarray(greedy(parts, source)))


def test_beams_score_their_sequences():
    """A narrow search is no worse than greedy on the whole, its scores are true, and examples do not see each other."""
    model, source = small(), sources(12)
    parts = split_model(model)
    found, score = map(np.asarray, beam(parts, source, 3))
    most_likely = np.asarray(greedy(parts, source))
    alone = [beam(parts, source[i : i + 1], 3) for i in range(2)]
    np.testing.assert_array_equal(found[:2], np.concatenate([np.asarray(rows) for rows, _ in alone]))
    true = [scores(model, source[i], [stripped(row)], 0.6)[0] for i, row in enumerate(found)]
    np.testing.assert_allclose(score, true, atol=1e-4)
    assert score.mean() > np.mean(
        [scores(model, source[i], [stripped(row)], 0.6)[0] for i, row in enumerate(most_likely)]
    )


def test_generate():
    """The public function takes and returns arrays, uses changed weights, and does not keep the model alive."""
    model, source = small(), np.asarray(sources(5))
    expected = np.asarray(greedy(split_model(model), sources(5)))
    found = zoo.generate(model, source)
    assert (type(found), found.dtype) == (np.ndarray, np.int32)
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(zoo.generate(model, source[:2]), expected[:2])
    assert zoo.generate(model, source[:0]).shape == (0, 5)
    searched = np.asarray(beam(split_model(model), sources(5), 3, 1.0)[0])
    np.testing.assert_array_equal(zoo.generate(model, source, beams=3, penalty=1), searched)
    model.set_weights([value[::-1] for value in model.get_weights()])
    assert (zoo.generate(model, source) != expected).any()
    np.testing.assert_array_equal(zoo.generate(model, source), greedy_by_hand(model, sources(5)))
    reference = weakref.ref(model)
    del model
    gc.collect()
    assert reference() is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            (np.zeros((2, 7), "int32"),),
            r"token ids \(n, 6\), padded with 0 .*. Received: source of int32 \(2, 7\)",
        ),
        ((np.zeros(6, "int32"),), r"token ids \(n, 6\), .*. Received: source of int32 \(6,\)"),
        ((np.zeros((2, 6)),), r"token ids \(n, 6\), .*. Received: source of float64 \(2, 6\)"),
        ((np.full((2, 6), WORDS),), "source must be ids from 0 to 5. Received: source from 6 to 6"),
        ((np.full((2, 6), -1),), "source must be ids from 0 to 5. Received: source from -1 to -1"),
        ((np.zeros((2, 6), "int32"), 0), "beams must be at least 1 and penalty at least 0. Received: beams=0"),
        ((np.zeros((2, 6), "int32"), 2, -1.0), "beams must be at least 1 and penalty .*. Received: .*penalty=-1.0"),
        ((np.zeros((2, 6), "int32"), 2.5), "beams must be a whole number. Received: beams=2.5"),
    ],
)
def test_what_generate_refuses(arguments, message, searched):
    """One line has what was expected and what was received."""
    with pytest.raises(BadOption, match=message) as caught:
        zoo.generate(searched[0], *arguments)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("mlp_tiny", {}),
        ("encoder_tiny", {}),
        ("transformer_tiny", {"include_top": False}),
        ("transformer_tiny", {"classes": 0}),
    ],
)
def test_other_models_are_refused(name, options):
    """Only a sequence-to-sequence model with logits can be split."""
    with pytest.raises(BadOption, match="Expected a sequence-to-sequence model"):
        split_model(zoo.get(name, **options))
    with pytest.raises(BadOption, match=r"Expected a sequence-to-sequence model.*Received: model=<mlp>"):
        zoo.generate("mlp", [[1]])
