"""BERT's tokenization in TensorFlow: inside the input pipeline and inside a SavedModel that takes strings.

The ids are those of the library `tokenizers`; see `training.data.characters`.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable
from typing import Any

from training.data.characters import CJK, PRIVATE, character_map
from zoo.common.lazy import LazyModule, tf
from zoo.specs.text import PADDING, WordPieceConfig

tokenizers = LazyModule("tokenizers", extra="text")
# The special tokens of a learned vocabulary, padding first.
SPECIAL_PIECES = WordPieceConfig.special
# Of a plane of Unicode without characters: the first stands for the first special token, and so on.
MARKS = 0xDFF00
# The value of a character that stays as it is: the empty string removes one.
SAME = "\0"


class Splitter:
    """Splits texts into words, and words into the longest pieces of a vocabulary, all words at once.

    Args:
        text: the tokenization.
    """

    def __init__(self, text: WordPieceConfig) -> None:
        self._text = text
        self._unknown = text.vocabulary.index(text.special[1])
        inside = [token.removeprefix(text.prefix) for token in text.vocabulary]
        self._sizes = tf.range(1, max(map(len, inside)) + 1)
        mapped = character_map(text) | {chr(MARKS + i): f" {token} " for i, token in enumerate(text.special)}
        self.table = _table(text.vocabulary, tf.range(len(text.vocabulary)), -1)
        self.characters = _table(list(mapped), list(mapped.values()), SAME)

    def __call__(self, strings: Any) -> Any:
        """Return the ids of the pieces of strings (n,), ragged int32 (n, any)."""
        words = self._words(strings)
        unique, index = tf.unique(words.flat_values)
        pieces = tf.gather(self._longest_pieces(unique), index)
        return tf.RaggedTensor.from_row_splits(pieces, words.row_splits).merge_dims(1, 2)

    def _words(self, strings: Any) -> Any:
        """Return the words of strings (n,), ragged (n, any)."""
        marks = "".join(chr(MARKS + i) for i in range(len(self._text.special)))
        strings = tf.strings.regex_replace(strings, f"[{marks}]|{PRIVATE}" if self._text.clean else f"[{marks}]", "")
        for i, token in enumerate(self._text.special):
            strings = tf.strings.regex_replace(strings, re.escape(token), chr(MARKS + i))
        if self._text.split_cjk:
            strings = tf.strings.regex_replace(strings, CJK, r" \0 ")
        characters = tf.strings.unicode_split(strings, "UTF-8", errors="replace")
        mapped = tf.ragged.map_flat_values(self._mapped, characters)
        return tf.strings.split(tf.strings.reduce_join(mapped, axis=-1))

    def _mapped(self, characters: Any) -> Any:
        found = self.characters.lookup(characters)
        return tf.where(tf.equal(found, SAME), characters, found)

    def _longest_pieces(self, words: Any) -> Any:
        """Return the pieces of words (m,), ragged int32 (m, any); the unknown token where there are none."""
        ends = tf.strings.length(words, unit="UTF8_CHAR")
        unknown = ends > self._text.longest
        _, unknown, pieces = tf.while_loop(
            lambda at, *_: tf.reduce_any(at < ends),
            lambda *state: self._step(words, ends, *state),
            (tf.where(unknown, ends, 0), unknown, tf.zeros([tf.size(words), 0], tf.int32)),
            shape_invariants=tuple(tf.TensorShape([None] * rank) for rank in (1, 1, 2)),
        )
        first = tf.where(unknown, self._unknown, -1)[:, None]
        pieces = tf.concat([first, tf.where(unknown[:, None], -1, pieces)], axis=1)
        return tf.ragged.boolean_mask(pieces, pieces >= 0)

    def _step(self, words: Any, ends: Any, at: Any, unknown: Any, pieces: Any) -> tuple[Any, Any, Any]:
        """Return the state after the longest piece of each word from its place `at` on."""
        places, sizes = tf.meshgrid(at, self._sizes, indexing="ij")
        parts = tf.strings.substr(tf.tile(words[:, None], [1, len(self._sizes)]), places, sizes, "UTF8_CHAR")
        prefixes = tf.where(tf.equal(places, 0), "", self._text.prefix)
        ids = self.table.lookup(tf.strings.join([prefixes, parts]))
        size = tf.reduce_max(tf.where((ids >= 0) & (places + sizes <= ends[:, None]), sizes, 0), axis=1)
        found = tf.gather(ids, tf.maximum(size - 1, 0), batch_dims=1)
        failed = (at < ends) & tf.equal(size, 0)
        pieces = tf.concat([pieces, tf.where(size > 0, found, -1)[:, None]], axis=1)
        return tf.where(failed, ends, at + size), unknown | failed, pieces


def word_piece_tokenizer(text: WordPieceConfig, length: int, filler: int) -> Any:
    """Return the tf.Module from strings to ids; see `training.data.tokenization.tokenizer`.

    Args:
        text: the tokenization.
        length: length of every sequence; 0 for ragged sequences.
        filler: label of the pieces inside a word, of special tokens and of padding.
    """
    return _class()(text, length, filler)


@functools.cache
def _class() -> Any:
    """Return the class of tokenizers, defined here because its base class is a heavy import."""

    class WordPieceTokenizer(tf.Module):
        """Puts the pieces of texts between a first and a last token; saving finds its tables."""

        def __init__(self, text: WordPieceConfig, length: int, filler: int) -> None:
            super().__init__()
            self._ends = [text.vocabulary.index(token) for token in text.special[2:4]]
            self._split, self._length, self._filler = Splitter(text), length, filler
            self._tables = [self._split.table, self._split.characters]

        def __call__(self, strings: Any) -> Any:
            """Return the ids of strings (n,)."""
            return framed(self._split(strings), self._length, *self._ends, PADDING)

        def tagged(self, strings: Any, tags: Any) -> tuple[Any, Any]:
            """Return the ids of strings (n,) and the label of each: a word's first piece has its label.

            Args:
                strings: texts (n,).
                tags: labels of their words, which white space separates, ragged (n, words).
            """
            words = tf.strings.split(strings)
            pieces = self._split(words.flat_values)
            counts, filler = pieces.row_lengths(), tf.cast(self._filler, tags.dtype)
            first = tf.equal(tf.ragged.range(counts).flat_values, 0)
            labels = tf.where(first, tf.repeat(tags.flat_values, counts), filler)
            labels = tf.RaggedTensor.from_row_splits(labels, pieces.row_splits)
            ids, labels = (
                tf.RaggedTensor.from_row_splits(each, words.row_splits).merge_dims(1, 2) for each in (pieces, labels)
            )
            return framed(ids, self._length, *self._ends, PADDING), framed(labels, self._length, *[self._filler] * 3)

    return WordPieceTokenizer


def learn_word_pieces(texts: Iterable[str], most: int) -> WordPieceConfig:
    """Return BERT's tokenization with a vocabulary that is learned from texts, by the library `tokenizers`.

    Args:
        texts: of the training split.
        most: maximum size of the vocabulary, special tokens included.

    Raises:
        MissingDependency: tokenizers is not installed; the extra `text` has it.
    """
    special = list(SPECIAL_PIECES)
    made = tokenizers.Tokenizer(tokenizers.models.WordPiece(unk_token=special[1]))
    made.normalizer = tokenizers.normalizers.BertNormalizer()
    made.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
    trainer = tokenizers.trainers.WordPieceTrainer(vocab_size=most, special_tokens=special, show_progress=False)
    made.train_from_iterator(texts, trainer)
    found = made.get_vocab()
    return WordPieceConfig(vocabulary=tuple(sorted(found, key=found.__getitem__)))


def framed(values: Any, length: int, first: int, last: int, filler: int) -> Any:
    """Return ragged values (n, any) between a first and a last one, truncated and padded to a length unless it is 0."""
    values = values[:, : max(0, length - 2)] if length else values
    column = tf.ones_like(values.row_splits[1:])[:, None]
    values = tf.concat([tf.cast(first * column, values.dtype), values, tf.cast(last * column, values.dtype)], axis=1)
    if not length:
        return values
    return tf.ensure_shape(values.to_tensor(tf.cast(filler, values.dtype), shape=(None, length)), (None, length))


def _table(keys: Any, values: Any, default: Any) -> Any:
    """Return a lookup table from strings."""
    start = tf.lookup.KeyValueTensorInitializer(tf.constant(keys, tf.string), tf.convert_to_tensor(values))
    return tf.lookup.StaticHashTable(start, default)
