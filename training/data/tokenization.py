"""The text contract carried out by TensorFlow: in training, in evaluation and inside artifacts."""

from __future__ import annotations

import collections
import dataclasses
import functools
from typing import Any

from zoo.common.errors import BadOption
from zoo.common.lazy import tf
from zoo.specs.text import END, PADDING, SPECIAL, UNKNOWN, TextConfig, check_vocabulary

# Punctuation of ASCII, some of which Unicode calls symbols, and that of Unicode.
PUNCTUATION = r"[!-/:-@\[-`{-~]|\p{P}"
# Texts read at a time.
BATCH = 1024


def tokens(text: TextConfig, strings: Any) -> Any:
    """Return the tokens of strings (n,) in UTF-8 as a ragged tensor of strings (n, any)."""
    if text.clean:
        strings = tf.strings.regex_replace(tf.strings.lower(strings, encoding="utf-8"), PUNCTUATION, "")
    if text.split == "character":
        return tf.strings.unicode_split(strings, "UTF-8", errors="replace")
    return tf.strings.split(strings)


def tokenizer(text: TextConfig, length: int = 0) -> Any:
    """Return a tf.Module that turns strings into ids; it can be an attribute of what becomes a SavedModel.

    Args:
        text: the contract.
        length: what every sequence is cut or padded to; 0 leaves them as long as they are.

    Returns:
        A function of strings (n,) in UTF-8 that gives ids, int32 (n, length), or ragged (n, any) without a length.
    """
    return _tokenizer_class()(text, length)


@functools.cache
def _tokenizer_class() -> Any:
    """Return the class of tokenizers; made here because its base class is a heavy import."""

    class Tokenizer(tf.Module):
        """Looks tokens up.

        Keras' TextVectorization would take the name of a special token in a text for the token itself, and put no
        more than ASCII in lower case.
        """

        def __init__(self, text: TextConfig, length: int) -> None:
            super().__init__()
            self._text, self._length = text, length
            own = tf.constant(text.vocabulary[len(SPECIAL) :], tf.string)
            ids = tf.range(len(SPECIAL), len(text.vocabulary))
            self._table = tf.lookup.StaticHashTable(tf.lookup.KeyValueTensorInitializer(own, ids), UNKNOWN)

        def __call__(self, strings: Any) -> Any:
            """Return the ids of strings (n,)."""
            ids = tf.ragged.map_flat_values(self._table.lookup, tokens(self._text, strings))
            return padded(ids, self._length) if self._length else ids

    return Tokenizer


def padded(ids: Any, length: int, filler: int = PADDING) -> Any:
    """Return ragged ids (n, any) cut or padded to (n, length)."""
    return tf.ensure_shape(ids.to_tensor(filler, shape=(None, length)), (None, length))


def detokenize(text: TextConfig, ids: Any) -> Any:
    """Return what ids int32 (n, t) say as strings (n,), up to the first `END`; special tokens are left out."""
    ended = tf.cumsum(tf.cast(tf.equal(ids, END), tf.int32), axis=1)
    wanted = tf.logical_and(tf.equal(ended, 0), ids >= len(SPECIAL))
    found = tf.ragged.boolean_mask(tf.gather(tf.constant(text.vocabulary), ids), wanted)
    return tf.strings.reduce_join(found, axis=-1, separator="" if text.split == "character" else " ")


def build_vocabulary(text: TextConfig, examples: Any, most: int) -> TextConfig:
    """Return the contract with a vocabulary: the tokens that are most frequent, the first of the alphabet among equals.

    Args:
        text: the contract, whose own vocabulary is not looked at.
        examples: tf.data of scalar strings, or of tuples of them.
        most: how many tokens to keep at most, special ones included.

    Raises:
        BadOption: `most` leaves no room for a token.
    """
    if check_vocabulary(most) == len(SPECIAL):
        raise BadOption(f"data.vocabulary must leave room beside the {len(SPECIAL)} special tokens. Received: {most}")
    counts: collections.Counter[bytes] = collections.Counter()
    for batch in examples.batch(BATCH):
        for strings in tf.nest.flatten(batch):
            counts.update(tokens(text, strings).flat_values.numpy().tolist())
    for special in SPECIAL:
        counts.pop(special.encode(), None)
    order = sorted(counts, key=lambda token: (-counts[token], token))
    found = (token.decode("utf-8", "replace") for token in order[: most - len(SPECIAL)])
    return dataclasses.replace(text, vocabulary=(*SPECIAL, *dict.fromkeys(found)))
