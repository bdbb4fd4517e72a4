"""WordPiece in TensorFlow: the ids of the library `tokenizers`, for every character, and labels of words."""

from __future__ import annotations

import dataclasses
import unicodedata

import numpy as np
import pytest

from training.data.tokenization import tokenizer
from zoo.embedding import encode
from zoo.specs.text import TextConfig, WordPieceConfig

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
WORDS = ("the", "un", "##able", "##break", "##a", "##b", "walk", "##ing", "walking", "cafe", "##s", "é", "café", "Café")
FAMILY = "\U0001f469\u200d\U0001f469\u200d\U0001f467"  # one emoji of three characters and joiners
HARD = [
    "", " \t\n ", "the unbreakable walkings", "walk,walking;the-cafe!?", "Café CAFÉ cafe\u0301", "İ ΟΔΟΣ ẞ Straße",
    "the [SEP] the[MASK]the", "[sep] [ CLS ] ##ing", "x" * 101, "x" * 100, "日本 the한국어", f"the{FAMILY}",
    "a\0b\u200bc\ufeffd\ue000e", "the\u3000the\u2028the\xa0the\x0bthe\x85the", "غير مُشكول हिन्दी",
    "\U000f0000the\U000f0002", "Ａｂ １２ ﬁ", "the " * 60,
]  # fmt: skip
# Characters to which Unicode later gave a lower case or a decomposition; Python and the library differ in these.
LATEST = {0x11938, *range(0x1C89, 0x1C8B), *range(0xA7CB, 0xA7DD), *range(0x10D50, 0x10D66), *range(0x16EA0, 0x16EB9)}


def config(texts, **options):
    """A tokenization that knows every character of some texts, so that no difference hides behind the unknown token."""
    from tokenizers import normalizers

    plain = [normalizers.NFD().normalize_str(text) for text in texts]
    known = sorted({c for text in [*texts, *plain] for c in (*text, *text.lower(), *text.upper())} - {*" \n\t\r"})
    tokens = (*SPECIAL, *WORDS, *known, *(f"##{character}" for character in known))
    return WordPieceConfig(tuple(dict.fromkeys(tokens)), **options)


def assert_equal(text, strings, length=24):
    """Assert that both give the same ids."""
    found, expected = np.asarray(tokenizer(text, length)(np.array(strings, object))), encode(text, strings, length)
    different = [strings[i] for i in np.flatnonzero((found != expected).any(-1))]
    assert different == []
    return found


@pytest.mark.parametrize(
    "options",
    [{}, {"lowercase": False, "strip_accents": False}, {"strip_accents": False}, {"split_cjk": False, "clean": False}],
)
def test_ids_are_those_of_the_library(options):
    """Accents, Chinese, emoji, control characters, long words, special tokens, and white space of all kinds."""
    ids = assert_equal(config(HARD, **options), HARD)
    assert len(np.unique(ids)) > 50


def test_comparison_can_fail():
    """Control: another option, and another vocabulary, give other ids."""
    text = config(HARD)
    for other in (dataclasses.replace(text, lowercase=False), dataclasses.replace(text, longest=2)):
        assert (np.asarray(tokenizer(other, 24)(np.array(HARD, object))) != encode(text, HARD, 24)).any()


def characters(step):
    """Every character of the planes that have letters, marks and symbols, one of each `step`."""
    numbers = (*range(1, 0xD800), *range(0xE000, 0x20000), *range(0x2F800, 0x2FA20), *range(0xE0000, 0xE0200))
    return [chr(n) for n in numbers[::step] if unicodedata.category(chr(n)) != "Cn" and n not in LATEST]


@pytest.mark.parametrize("step", [17, pytest.param(1, marks=pytest.mark.slow)])
def test_every_character_is_treated_as_in_the_library(step):
    """Between two letters a character is removed, stripped, lower-cased, or a word of its own."""
    found = characters(step)
    texts = [f"a{character}b" for character in found]
    assert_equal(config(found), texts, 12)


def test_first_piece_of_a_word_has_its_label():
    """Other pieces, special tokens and padding have none; a text longer than the model loses its end."""
    import tensorflow as tf

    text = config(["the unbreakable walks"])
    made, tags = tokenizer(text, 9), tf.ragged.constant([[7, 8, 9], [5]], dtype=tf.int64)
    ids, labels = made.tagged(tf.constant(["the unbreakable walking", "walking"]), tags)
    names = [[text.vocabulary[i] for i in row] for row in ids.numpy()]
    assert names[0] == ["[CLS]", "the", "un", "##break", "##able", "walking", "[SEP]", "[PAD]", "[PAD]"]
    assert labels.numpy().tolist()[0] == [-1, 7, 8, -1, -1, 9, -1, -1, -1]
    assert labels.numpy().tolist()[1] == [-1, 5, -1, -1, -1, -1, -1, -1, -1]
    short = tokenizer(text, 4).tagged(tf.constant(["the unbreakable walking"]), tags[:1])
    assert [text.vocabulary[i] for i in short[0].numpy()[0]] == ["[CLS]", "the", "un", "[SEP]"]
    assert short[1].numpy().tolist() == [[-1, 7, 8, -1]]


def test_words_and_characters_are_those_of_the_library():
    """The text configs of data give the same ids through the library, and are what JSON says."""
    words = TextConfig(("", "[UNK]", "[START]", "[END]", "hello", "world", "café"))
    letters = TextConfig(("", "[UNK]", "[START]", "[END]", "a", "b", " "), split="character", clean=False)
    for text in (words, letters, config(HARD)):
        assert TextConfig.from_json(text.to_json()) == text
        assert_equal(text, ["Hello, wor-ld CAFÉ!", "[UNK] [START] a b\nab", "", "hello  $world"], 8)
