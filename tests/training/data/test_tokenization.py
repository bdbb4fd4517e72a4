"""Tokens and back: ids, cleaning, characters, the end of a text, and the order of a vocabulary."""

from __future__ import annotations

import numpy as np
import pytest
from loaded_data import one_line
from small_texts import CATS

from training import TextConfig
from training.data.tokenization import build_vocabulary, detokenize, tokenizer
from zoo.common.errors import BadOption
from zoo.specs.text import END, PADDING, SPECIAL, START, UNKNOWN

LETTERS = TextConfig((*SPECIAL, *"abc "), split="character", clean=False)


def test_tokens_become_their_ids():
    """Known tokens become their ids, others UNKNOWN; short texts are padded, long ones truncated."""
    ids = tokenizer(CATS, 4)(["the cat sat", "dog", "the the cat cat sat sat", "  cat   the "]).numpy()
    assert ids.dtype == np.int32
    assert ids.tolist() == [
        [4, 5, 6, PADDING],
        [UNKNOWN, PADDING, PADDING, PADDING],
        [4, 4, 5, 5],
        [5, 4, PADDING, PADDING],
    ]


def test_cleaning_lowers_and_strips():
    """Case and punctuation do not matter, also beyond ASCII; without cleaning they do."""
    assert tokenizer(CATS, 3)(["The, CAT! «GRÖSSE» GRÖßE…"]).numpy().tolist() == [[4, 5, UNKNOWN]]
    assert tokenizer(CATS, 4)(["«The» cat's GRÖßE…"]).numpy().tolist() == [[4, UNKNOWN, 7, PADDING]]
    plain = TextConfig(CATS.vocabulary, clean=False)
    assert tokenizer(plain, 3)(["The cat. cat"]).numpy().tolist() == [[UNKNOWN, UNKNOWN, 5]]


def test_characters_are_tokens():
    """In a split by character, white space is a token, and each character is one token in any number of bytes."""
    assert tokenizer(LETTERS, 6)(["ab c", "aßa"]).numpy().tolist() == [[4, 5, 7, 6, 0, 0], [4, UNKNOWN, 4, 0, 0, 0]]


def test_names_of_special_tokens_in_a_text_are_no_special_tokens():
    """A text that contains [END] does not end a sequence."""
    plain = TextConfig(CATS.vocabulary, clean=False)
    assert tokenizer(plain, 4)(["[START] cat [END] [UNK]"]).numpy().tolist() == [[UNKNOWN, 5, UNKNOWN, UNKNOWN]]


def test_ids_are_those_of_keras():
    """On ASCII, ids equal those of keras.layers.TextVectorization with the same vocabulary."""
    import keras

    texts = ["The cat, sat.", "a-b THE! cat's", "sat sat sat sat sat", "x"]
    theirs = keras.layers.TextVectorization(vocabulary=list(CATS.vocabulary[2:]), output_sequence_length=4)
    np.testing.assert_array_equal(tokenizer(CATS, 4)(texts), theirs(texts))


@pytest.mark.parametrize(("text", "sentences"), [(CATS, ["the cat sat", "cat", ""]), (LETTERS, ["a b", "cab", ""])])
def test_detokenizing_restores_the_text(text, sentences):
    """Ids become their text again."""
    assert [s.decode() for s in detokenize(text, tokenizer(text, 6)(sentences)).numpy()] == sentences


def test_words_stop_at_the_end():
    """Tokens after END and special tokens are not in the text."""
    ids = [[START, 4, UNKNOWN, 5, END, 6], [5, PADDING, 6, 4, 4, 4], [END, 4, 4, 4, 4, 4]]
    texts = [s.decode() for s in detokenize(CATS, np.array(ids, "int32")).numpy()]
    assert texts == ["the cat", "cat sat the the the", ""]


def test_tokenizer_lives_in_a_saved_model(tmp_path):
    """A SavedModel without Python code takes and returns strings."""
    import tensorflow as tf

    module = tf.Module()
    module.tokenizer = tokenizer(CATS, 5)
    signature = [tf.TensorSpec((None,), tf.string)]
    module.ids = tf.function(lambda texts: {"ids": module.tokenizer(texts)}, input_signature=signature)
    module.back = tf.function(
        lambda texts: {"texts": detokenize(CATS, module.tokenizer(texts))}, input_signature=signature
    )
    tf.saved_model.save(module, str(tmp_path / "saved"), {"ids": module.ids, "back": module.back})
    loaded = tf.saved_model.load(str(tmp_path / "saved"))
    texts = tf.constant(["The cat!", "sat dog cat"])
    np.testing.assert_array_equal(loaded.signatures["ids"](texts)["ids"], tokenizer(CATS, 5)(texts))
    assert loaded.signatures["back"](texts)["texts"].numpy().tolist() == [b"the cat", b"sat cat"]


def test_vocabulary_is_by_frequency_then_alphabet():
    """The most frequent token comes first, equal counts in alphabetical order; tokens beyond the limit are left out."""
    import tensorflow as tf

    examples = tf.data.Dataset.from_tensor_slices(["b a", "C. b", "a d b", "e"])
    assert build_vocabulary(TextConfig(), examples, 100).vocabulary == (*SPECIAL, "b", "a", "c", "d", "e")
    assert build_vocabulary(TextConfig(), examples, 6).vocabulary == (*SPECIAL, "b", "a")
    spelt = tf.data.Dataset.from_tensor_slices(["[UNK] [START] x"])
    assert build_vocabulary(TextConfig(clean=False), spelt, 100).vocabulary == (*SPECIAL, "x")
    for most in (1, 4):
        with pytest.raises(BadOption, match="vocabulary") as error:
            build_vocabulary(TextConfig(), examples, most)
        one_line(error)
