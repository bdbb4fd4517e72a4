"""From raw texts to token ids, with a class index, tags or a target text."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from training.common.tracing import as_it_is
from training.data.pipeline.encoding import PARALLEL, Encoder
from training.data.tokenization import BATCH, NO_LABEL, padded, tokenizer, tokens
from zoo.common.errors import BadOption, DataError
from zoo.common.lazy import np, tf
from zoo.specs.text import END, START

if TYPE_CHECKING:
    import tensorflow as _tf


class TextEncoder(Encoder):
    """Encodes texts with one label each."""

    def decoded(self, examples: _tf.data.Dataset) -> _tf.data.Dataset:
        """Return ids and labels of examples; the lookup is faster on batches."""
        return examples.batch(BATCH).map(as_it_is(self.encoding()), PARALLEL).unbatch()

    def encoding(self) -> Any:
        """Return the function from batches of raw (x, y) to arrays."""
        ids = tokenizer(self.text, self.shape[0])
        return lambda x, y: (ids(x), y)

    def raw(self, x: _tf.Tensor) -> _tf.Tensor:
        """Return ids unchanged."""
        return x

    def prepare(self, x: Any, y: Any) -> tuple[Any, Any]:
        """Return ids unchanged and labels one-hot; padding has no label."""
        return x, self.targets(y)

    # Whether a text without tokens is the unknown token; otherwise it is refused.
    unknown = True

    def check(self, split: str, numbers: Any = None) -> None:
        """Raise DataError for the first example that is empty or does not fit its label."""
        if self.unknown:
            return
        done = 0
        for x, y in self.examples(split, numbers).batch(BATCH):
            found, places = tokens(self.text, x), np.arange(done, done + len(x))
            places = places if numbers is None else numbers[places]
            for i in np.flatnonzero(found.row_lengths().numpy() == 0)[:1]:
                self._refuse("text in every example", split, places[i], x[i], "without any")
            self.check_labels(split, places, (x, found), y)
            done += len(x)

    def check_labels(self, split: str, numbers: Any, texts: tuple[Any, Any], y: Any) -> None:
        """Raise DataError for the first of a batch of texts (strings, tokens) that does not fit its label.

        Args:
            split: its name.
            numbers: of the examples.
            texts: strings (n,) and their tokens.
            y: their labels.
        """

    def _refuse(self, expected: str, split: str, number: int, text: Any, what: str) -> None:
        shown = text.numpy().decode("utf-8", "replace")[:80]
        raise DataError(
            f"Expected {expected}. Received: example {number} of {self.dataset.name}'s {split} split {what}: {shown!r}"
        )


class TagEncoder(TextEncoder):
    """Encodes texts with one tag for each token."""

    unknown = False

    def encoding(self) -> Any:
        """Return the function from batches of strings (texts, tags) to ids and int64 labels, both (n, length)."""
        ids, indices = tokenizer(self.text, self.shape[0]), _label_indices(self.dataset.labels)
        return lambda x, y: ids.tagged(x, tf.ragged.map_flat_values(indices.lookup, tf.strings.split(y)))

    @property
    def width(self) -> int:
        """Return the bytes of ids and labels."""
        return 12 * self.shape[0]

    def check_labels(self, split: str, numbers: Any, texts: tuple[Any, Any], y: Any) -> None:
        """Raise DataError for an unknown tag, or unless there are as many tags as tokens."""
        strings, found = texts
        tags = tf.strings.split(y)
        have, want = tags.row_lengths().numpy(), found.row_lengths().numpy()
        for i in np.flatnonzero(have != want)[:1]:
            self._refuse("a tag for each token", split, numbers[i], strings[i], f"with {have[i]} for {want[i]} tokens")
        unknown = sorted({tag.decode("utf-8", "replace") for tag in tags.flat_values.numpy()} - {*self.dataset.labels})
        if unknown:
            raise DataError(
                f"Expected the tags {', '.join(self.dataset.labels)}. Received: {unknown[:5]} in the {split} split of "
                f"{self.dataset.name}"
            )


class PairEncoder(TextEncoder):
    """Encodes pairs of a source and a target text."""

    unknown = False

    @property
    def width(self) -> int:
        """Return the bytes of source, target and labels."""
        return 4 * (self.shape[0] + 2 * self.shape[1])

    def encoding(self) -> Any:
        """Return the function from batches of strings (source, target) to ids.

        The target is [START, t1, ...] and the labels [t1, ..., END]; a long target is truncated before END.
        """
        source, target = tokenizer(self.text, self.shape[0]), tokenizer(self.text)
        length = self.shape[1]

        def encode(x: Any, y: Any) -> Any:
            ids = target(y)[:, : length - 1]
            mark = tf.ones_like(y, tf.int32)[:, None]
            before, after = tf.concat([START * mark, ids], 1), tf.concat([ids, END * mark], 1)
            return {"source": source(x), "target": padded(before, length)}, padded(after, length)

        return encode

    def prepare(self, x: Any, y: Any) -> tuple[Any, Any]:
        """Return ids and labels unchanged."""
        return x, y


def _label_indices(labels: tuple[str, ...]) -> Any:
    """Return a lookup table from the name of a label to its index."""
    start = tf.lookup.KeyValueTensorInitializer(tf.constant(labels), tf.range(len(labels), dtype=tf.int64))
    return tf.lookup.StaticHashTable(start, NO_LABEL)


def text_length(wanted: tuple[int, ...], model: tuple[int, ...]) -> tuple[int, ...]:
    """Return the length of texts, or of sources and targets: the recipe's, else the model's.

    Raises:
        BadOption: the recipe's does not fit the model.
    """
    if not wanted:
        return model
    least = 1 if len(model) == 1 else 2  # room for END and one token of a target
    if len(wanted) != len(model) or min(wanted) < least:
        names = "[tokens]" if len(model) == 1 else "[source tokens, target tokens]"
        raise BadOption(f"data.length must be {names}, at least {least} each. Received: data.length={list(wanted)}")
    return wanted
