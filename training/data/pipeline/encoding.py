"""From raw examples to arrays and from arrays to what a network takes, by the kind of data."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from training.augment.crop import crop_encoded
from training.common.preprocess import decode, normalize
from training.data.columns import ColumnSchema
from training.data.dataset import Dataset
from training.data.tokenization import BATCH, padded, tokenizer, tokens
from training.recipe.config import AugmentConfig
from zoo.common.errors import BadOption, DataError
from zoo.common.lazy import np, tf
from zoo.specs.preprocessing import PreprocessingConfig
from zoo.specs.text import END, START, TextConfig

if TYPE_CHECKING:
    import tensorflow as _tf

# Batches or images prepared at a time.
PARALLEL = os.cpu_count() or 1
# Tasks whose labels are what the network is to give, not numbers of classes.
DIRECT = ("multilabel", "regress")
# The label of a token that is padding: no class, so that its one-hot row is all zeros.
NO_TAG = -1


class Encoder:
    """Numbers as they come, one label each.

    Args:
        dataset: the examples.
        shape: shape of one example as an array.
        contract: the preprocessing that is in force.
        text: the text contract that is in force, if any.
    """

    def __init__(
        self, dataset: Dataset, shape: tuple[int, ...], preprocessing: PreprocessingConfig, text: TextConfig | None = None
    ) -> None:
        self.dataset, self.shape, self.preprocessing, self.text = dataset, shape, preprocessing, text

    # Whether a random crop is cut out of each encoded example.
    varied = False

    @property
    def width(self) -> int:
        """Bytes of one example as an array."""
        return 4 * int(np.prod(self.shape))

    def check(self) -> None:
        """Raise DataError if an example cannot be encoded, as far as that is told by reading them all."""

    def decoded(self, examples: _tf.data.Dataset) -> _tf.data.Dataset:
        """Return examples as arrays (x, y) without what a step decides."""
        return examples

    def raw(self, x: _tf.Tensor) -> _tf.Tensor:
        """Return x of a batch as an artifact takes it: float32 values, or int32 ids."""
        return tf.cast(x, tf.float32)

    def prepare(self, x: Any, y: Any) -> tuple[Any, Any]:
        """Return a batch as network and loss take it."""
        return normalize(x, self.preprocessing), self.answers(y)

    def answers(self, y: Any) -> Any:
        """Return labels as the loss takes them: one-hot, or several at once and numbers as float32."""
        if self.dataset.task in DIRECT:
            return tf.cast(y, tf.float32)
        return tf.one_hot(y, len(self.dataset.labels))


class ImageEncoder(Encoder):
    """Encoded images, one label each."""

    @property
    def width(self) -> int:
        """Bytes of an image as uint8."""
        return int(np.prod(self.shape))

    def decoded(self, examples: _tf.data.Dataset) -> _tf.data.Dataset:
        """Return images uint8 (height, width, channels) with their labels."""
        return examples.map(lambda x, y: (self._pixels(x), y), PARALLEL)

    def _pixels(self, encoded: Any) -> Any:
        return tf.cast(decode(encoded, self.shape, self.preprocessing), tf.uint8)

    @property
    def varied(self) -> bool:
        """Whether images have other sizes than the network takes, so that random crops are cut while decoding."""
        return tuple(self.dataset.shape[:2]) != tuple(self.shape[:2])

    def cropped(self, examples: _tf.data.Dataset, drawn: _tf.data.Dataset, config: AugmentConfig) -> _tf.data.Dataset:
        """Return random crops uint8 (height, width, channels), mirrored where the recipe asks for it, with labels.

        Args:
            examples: encoded images with their labels.
            drawn: (numbers, whether it is mirrored) of each image, see `training.augment.crop.draw_crops`.
            config: what is drawn from.
        """

        def crop(example: Any, draw: Any) -> Any:
            image = crop_encoded(example[0], draw[0], self.shape, self.preprocessing, config)
            if config.flip:
                # Image by image: batches of large images do not fit into a processor's cache.
                image = tf.cond(draw[1], lambda: tf.reverse(image, [1]), lambda: image)
            return image, example[1]

        return tf.data.Dataset.zip(examples, drawn).map(crop, PARALLEL)


class TableEncoder(Encoder):
    """Rows of a table, the cells as strings."""

    def check(self) -> None:
        """Raise DataError for a cell that is not what its column holds."""
        for name, split in self.dataset.splits.items():
            try:
                self._vectors(split.examples)
            except DataError as error:
                raise DataError(f"{error} of the {name} split of {self.dataset.name}") from error

    def decoded(self, examples: _tf.data.Dataset) -> _tf.data.Dataset:
        """Return vectors float32 (width,) with their labels; a table is small enough to be read at once."""
        return tf.data.Dataset.from_tensor_slices(self._vectors(examples))

    def _vectors(self, examples: _tf.data.Dataset) -> tuple[Any, Any]:
        cells, truth = zip(*examples.as_numpy_iterator(), strict=True)
        table: ColumnSchema = self.dataset.table
        return table.encode([[cell.decode() for cell in row] for row in cells]), np.stack(truth)


class TextEncoder(Encoder):
    """Texts, one label each."""

    def decoded(self, examples: _tf.data.Dataset) -> _tf.data.Dataset:
        """Return ids and labels of examples; batches make the lookup fast."""
        return examples.batch(BATCH).map(self.encoding(), PARALLEL).unbatch()

    def encoding(self) -> Any:
        """Return the function from batches of raw (x, y) to arrays."""
        ids = tokenizer(self.text, self.shape[0])
        return lambda x, y: (ids(x), y)

    def raw(self, x: _tf.Tensor) -> _tf.Tensor:
        """Return ids as they are."""
        return x

    def prepare(self, x: Any, y: Any) -> tuple[Any, Any]:
        """Return ids as they are, labels one-hot; padding has no label."""
        return x, self.answers(y)

    def check(self) -> None:
        """Raise DataError for the first example that is empty or does not go with its label."""
        for name, split in self.dataset.splits.items():
            done = 0
            for x, y in split.examples.batch(BATCH):
                found = tokens(self.text, x)
                for i in np.flatnonzero(found.row_lengths().numpy() == 0)[:1]:
                    self._refuse("text in every example", name, done + i, x[i], "without any")
                self.check_labels(name, done, (x, found), y)
                done += len(x)

    def check_labels(self, split: str, first: int, texts: tuple[Any, Any], y: Any) -> None:
        """Raise DataError for the first of a batch of texts (strings, tokens) that does not go with its label."""

    def _refuse(self, expected: str, split: str, number: int, text: Any, what: str) -> None:
        shown = text.numpy().decode("utf-8", "replace")[:80]
        raise DataError(
            f"Expected {expected}. Received: example {number} of {self.dataset.name}'s {split} split {what}: {shown!r}"
        )


class TagEncoder(TextEncoder):
    """Texts, one label for each token."""

    def encoding(self) -> Any:
        """Return the function from batches of strings (texts, tags) to ids and int64 labels, both (n, length)."""
        ids, numbers = tokenizer(self.text, self.shape[0]), _numbers(self.dataset.labels)
        length = self.shape[0]

        def encode(x: Any, y: Any) -> Any:
            tags = tf.ragged.map_flat_values(numbers.lookup, tf.strings.split(y))
            return ids(x), padded(tags, length, NO_TAG)

        return encode

    @property
    def width(self) -> int:
        """Bytes of ids and labels."""
        return 12 * self.shape[0]

    def check_labels(self, split: str, first: int, texts: tuple[Any, Any], y: Any) -> None:
        """Raise DataError where there are not as many tags as tokens, or unknown ones."""
        strings, found = texts
        tags = tf.strings.split(y)
        have, want = tags.row_lengths().numpy(), found.row_lengths().numpy()
        for i in np.flatnonzero(have != want)[:1]:
            self._refuse("a tag for each token", split, first + i, strings[i], f"with {have[i]} for {want[i]} tokens")
        unknown = sorted({tag.decode("utf-8", "replace") for tag in tags.flat_values.numpy()} - {*self.dataset.labels})
        if unknown:
            raise DataError(
                f"Expected the tags {', '.join(self.dataset.labels)}. Received: {unknown[:5]} in the {split} split of "
                f"{self.dataset.name}"
            )


class PairEncoder(TextEncoder):
    """Texts, each with another to write."""

    @property
    def width(self) -> int:
        """Bytes of source, target and labels."""
        return 4 * (self.shape[0] + 2 * self.shape[1])

    def encoding(self) -> Any:
        """Return the function from batches of strings (source, target) to ids.

        The target is [START, t1, ...] and the labels [t1, ..., END]; a target that is too long is cut before its end.
        """
        source, target = tokenizer(self.text, self.shape[0]), tokenizer(self.text)
        length = self.shape[1]

        def encode(x: Any, y: Any) -> Any:
            written = target(y)[:, : length - 1]
            mark = tf.ones_like(y, tf.int32)[:, None]
            before, after = tf.concat([START * mark, written], 1), tf.concat([written, END * mark], 1)
            return {"source": source(x), "target": padded(before, length)}, padded(after, length)

        return encode

    def prepare(self, x: Any, y: Any) -> tuple[Any, Any]:
        """Return ids and labels as they are."""
        return x, y


def make_encoder(dataset: Dataset, shape: tuple[int, ...], preprocessing: PreprocessingConfig, text: TextConfig | None) -> Encoder:
    """Return the encoder of a kind of data."""
    of_texts = {"tag": TagEncoder, "generate": PairEncoder}
    kind = of_texts.get(dataset.task, TextEncoder) if text else KINDS[bool(dataset.table), len(shape) == 3]
    return kind(dataset, shape, preprocessing, text)


# By whether it is a table and whether it is images.
KINDS = {(True, False): TableEncoder, (False, True): ImageEncoder, (False, False): Encoder}


def _numbers(labels: tuple[str, ...]) -> Any:
    """Return a table from the name of a label to its number."""
    start = tf.lookup.KeyValueTensorInitializer(tf.constant(labels), tf.range(len(labels), dtype=tf.int64))
    return tf.lookup.StaticHashTable(start, NO_TAG)


def settle_length(wanted: tuple[int, ...], model: tuple[int, ...]) -> tuple[int, ...]:
    """Return the length of texts, or of sources and targets: the recipe's, else the model's; raises BadOption."""
    if not wanted:
        return model
    least = 1 if len(model) == 1 else 2  # a target has room for its end and one token
    if len(wanted) != len(model) or min(wanted) < least:
        names = "[tokens]" if len(model) == 1 else "[source tokens, target tokens]"
        raise BadOption(f"data.length must be {names}, at least {least} each. Received: data.length={list(wanted)}")
    return wanted
