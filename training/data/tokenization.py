"""Tokenization in TensorFlow by a text config: in training, in evaluation and inside artifacts."""

from __future__ import annotations

import collections
import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

from training.data.wordpiece import word_piece_tokenizer
from zoo.common.errors import BadOption
from zoo.common.lazy import np, tf
from zoo.specs.text import END, PADDING, SPECIAL, UNKNOWN, TextConfig, WordPieceConfig, check_vocabulary

# ASCII punctuation, part of which are symbols in Unicode, and Unicode punctuation.
PUNCTUATION = r"[!-/:-@\[-`{-~]|\p{P}"
# Texts in a batch.
BATCH = 1024
# The label of a padding token: no class, so that its one-hot row is all zeros.
NO_LABEL = -1


def tokens(text: TextConfig, strings: Any) -> Any:
    """Return the tokens of strings (n,) in UTF-8 as a ragged tensor of strings (n, any): words if these have pieces."""
    if isinstance(text, WordPieceConfig):
        return tf.strings.split(strings)
    if text.clean:
        strings = tf.strings.regex_replace(tf.strings.lower(strings, encoding="utf-8"), PUNCTUATION, "")
    if text.split == "character":
        return tf.strings.unicode_split(strings, "UTF-8", errors="replace")
    return tf.strings.split(strings)


def tokenizer(text: TextConfig, length: int = 0) -> Any:
    """Return a tf.Module from strings to ids, which can be an attribute of a SavedModel.

    Args:
        text: the text config.
        length: length that every sequence is truncated or padded to; 0 for ragged sequences.

    Returns:
        A function of strings (n,) in UTF-8 that gives ids, int32 (n, length), or ragged (n, any) without a length. Its
        `tagged(strings, labels)` takes the labels of the tokens too, ragged (n, any), and returns both, padded.
    """
    if isinstance(text, WordPieceConfig):
        return word_piece_tokenizer(text, length, NO_LABEL)
    return _tokenizer_class()(text, length)


@functools.cache
def _tokenizer_class() -> Any:
    """Return the class of tokenizers, defined here because its base class is a heavy import."""

    class Tokenizer(tf.Module):
        """Looks tokens up in the vocabulary.

        Keras' TextVectorization reads the name of a special token in a text as the token, and lower-cases ASCII only.
        """

        def __init__(self, text: TextConfig, length: int) -> None:
            super().__init__()
            self._text, self._length = text, length
            own = tf.constant(text.vocabulary[len(SPECIAL) :], tf.string)
            ids = tf.range(len(SPECIAL), len(text.vocabulary))
            self._table = tf.lookup.StaticHashTable(tf.lookup.KeyValueTensorInitializer(own, ids), UNKNOWN)

        def __call__(self, strings: Any) -> Any:
            """Return the ids of strings (n,)."""
            ids = _never_empty(tf.ragged.map_flat_values(self._table.lookup, tokens(self._text, strings)))
            return padded(ids, self._length) if self._length else ids

        def tagged(self, strings: Any, labels: Any) -> tuple[Any, Any]:
            """Return the ids of strings (n,), and the labels of their tokens, both (n, length)."""
            return self(strings), padded(labels, self._length, NO_LABEL)

    return Tokenizer


def _never_empty(ids: Any) -> Any:
    """Return ragged ids (n, any) with an unknown token in each text that has none: a model cannot read padding only."""
    missing = tf.equal(ids.row_lengths(), 0)
    unknown = tf.ragged.boolean_mask(tf.fill([tf.size(missing), 1], UNKNOWN), missing[:, None])
    return tf.concat([ids, unknown], axis=1)


def without_tokens(text: TextConfig, strings: Sequence[str]) -> Any:
    """Return whether each text has no token, bool (n,)."""
    batches = (tf.constant(strings[low : low + BATCH], tf.string) for low in range(0, len(strings), BATCH))
    return np.concatenate([tokens(text, batch).row_lengths().numpy() == 0 for batch in batches])


def padded(ids: Any, length: int, filler: int = PADDING) -> Any:
    """Return ragged ids (n, any) truncated or padded to (n, length)."""
    return tf.ensure_shape(ids.to_tensor(filler, shape=(None, length)), (None, length))


def detokenize(text: TextConfig, ids: Any) -> Any:
    """Return the texts (n,) of ids int32 (n, t), up to the first `END` and without special tokens."""
    ends = tf.cumsum(tf.cast(tf.equal(ids, END), tf.int32), axis=1)
    visible = tf.logical_and(tf.equal(ends, 0), ids >= len(SPECIAL))
    found = tf.ragged.boolean_mask(tf.gather(tf.constant(text.vocabulary), ids), visible)
    return tf.strings.reduce_join(found, axis=-1, separator="" if text.split == "character" else " ")


def build_vocabulary(text: TextConfig, examples: Any, most: int) -> TextConfig:
    """Return the text config with a vocabulary of the most frequent tokens; ties are in alphabetical order.

    Args:
        text: the text config; its vocabulary is ignored.
        examples: tf.data of scalar strings, or of tuples of them.
        most: maximum size of the vocabulary, special tokens included.

    Raises:
        BadOption: `most` leaves no room for tokens.
    """
    if check_vocabulary(most) == len(SPECIAL):
        raise BadOption(
            f"data.vocabulary must be larger than the {len(SPECIAL)} special tokens. Received: data.vocabulary={most}"
        )
    counts: collections.Counter[bytes] = collections.Counter()
    for batch in examples.batch(BATCH):
        for strings in tf.nest.flatten(batch):
            counts.update(tokens(text, strings).flat_values.numpy().tolist())
    for special in SPECIAL:
        counts.pop(special.encode(), None)
    # TensorFlow's constants end at a zero byte.
    order = sorted((token for token in counts if b"\0" not in token), key=lambda token: (-counts[token], token))
    found = (token.decode("utf-8", "replace") for token in order[: most - len(SPECIAL)])
    return dataclasses.replace(text, vocabulary=(*SPECIAL, *dict.fromkeys(found)))
