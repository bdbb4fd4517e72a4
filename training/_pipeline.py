"""From a dataset to batches: the order and the augmentation of a step depend on the seed and the step alone."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import Iterator
from typing import Any

from training._augment import augment, is_active
from training._data import Dataset
from training._encode import PARALLEL, Encoder, make_encoder
from training._recipe import Recipe
from zoo._errors import BadOption
from zoo._lazy import np, tf
from zoo._preprocessing import Preprocessing
from zoo._text import Text

# Decoded data up to this many bytes a split is kept in memory: images as uint8, texts as ids.
MEMORY = 1 << 30
# Encoded examples that are shuffled at a time where the data is larger.
SHUFFLE = 10_000


@dataclasses.dataclass(frozen=True)
class Pipeline:
    """A dataset served as a recipe says.

    Args:
        dataset: the examples.
        recipe: batch size, seed, augmentation.
        shape: shape of one decoded example, (height, width, channels), (features,), (tokens,) or (source tokens,
            target tokens).
        contract: the preprocessing that is in force.
        text: the text contract that is in force, its vocabulary complete; None where the data is no text.

    A batch is (x, y). Of images and features, x is float32; of texts, int32 ids, and a dictionary of "source" and
    "target" where text is written. The labels y are one-hot float32 (n, classes), or (n, tokens, classes) of tags with
    rows of zeros for padding, or the int32 ids (n, target tokens) to write.
    """

    dataset: Dataset
    recipe: Recipe
    shape: tuple[int, ...]
    contract: Preprocessing
    text: Text | None = None

    @property
    def batch_size(self) -> int:
        """Examples a step: the recipe's, or all there are if they are fewer."""
        return min(self.recipe.data.batch_size, self.dataset.splits["train"].count)

    @property
    def steps_per_epoch(self) -> int:
        """Whole batches in the training split; the rest of an epoch's shuffle is left out."""
        return self.dataset.splits["train"].count // self.batch_size

    def train(self, epoch: int, skip: int = 0) -> Any:
        """Return the batches of an epoch (from 0) after its first `skip`."""
        batches = self._shuffled(epoch, skip)
        first = epoch * self.steps_per_epoch + skip
        steps = tf.data.Dataset.range(first, first + self.steps_per_epoch)
        return _served(tf.data.Dataset.zip(batches, steps).map(self._prepare_training, PARALLEL))

    def evaluate(self, split: str) -> Any:
        """Return the batches of a split in its order, none left out."""
        if self._fits(split):
            batches = tf.data.Dataset.from_tensor_slices(self._arrays(split)).batch(self.batch_size)
        else:
            batches = self.encoder.decoded(self.dataset.splits[split].examples).batch(self.batch_size)
        return _served(batches.map(self.encoder.prepare, PARALLEL))

    def raw(self, split: str, count: int) -> tuple[Any, Any]:
        """Return up to `count` decoded examples spread over a split, as arrays.

        Returns:
            Raw float32 values, or int32 ids, and labels: int64 (n,); int64 (n, tokens) of tags, -1 where padded; int32
            (n, target tokens) of text to write.
        """
        wanted = self._spread(split, count)
        if self._fits(split):
            x, y = _rows(self._arrays(split), wanted)
        else:
            x, y = next(iter(self.encoder.decoded(self._chosen(split, wanted)).batch(len(wanted))))
        return tf.nest.map_structure(lambda t: t.numpy(), (tf.nest.map_structure(self.encoder.raw, x), y))

    def strings(self, split: str, count: int) -> list[str]:
        """Return the texts (of pairs, the sources) of the examples that `raw` returns."""
        if self.text is None:
            raise BadOption(f"Only texts have strings. Received: {self.dataset.name} of shape {self.shape}")
        examples = self._chosen(split, self._spread(split, count))
        return [x.decode("utf-8", "replace") for x, _ in examples.as_numpy_iterator()]

    def _spread(self, split: str, count: int) -> Any:
        """Return the numbers of up to `count` examples spread over a split."""
        total = self.dataset.splits[split].count
        return np.unique(np.linspace(0, total - 1, min(count, total)).astype("int64"))

    def _chosen(self, split: str, wanted: Any) -> Any:
        """Return the raw examples of these numbers."""
        chosen = tf.constant(wanted)
        examples = self.dataset.splits[split].examples.enumerate()
        return examples.filter(lambda i, _: tf.reduce_any(tf.equal(i, chosen))).map(lambda _, e: e)

    def _shuffled(self, epoch: int, skip: int) -> Any:
        """Return batches of raw examples in the order of an epoch."""
        split = self.dataset.splits["train"]
        if self._fits("train"):
            order = np.random.default_rng([self.recipe.seed, epoch]).permutation(split.count)
            arrays = self._arrays("train")
            batches = tf.data.Dataset.from_tensor_slices(order).batch(self.batch_size, drop_remainder=True).skip(skip)
            return batches.map(lambda i: _rows(arrays, i), PARALLEL)
        # One draw gives each epoch a seed of its own.
        seed = int(np.random.default_rng([self.recipe.seed, epoch]).integers(1 << 31))
        with _no_global_seed():
            examples = split.examples.shuffle(min(SHUFFLE, split.count), seed, reshuffle_each_iteration=False)
        examples = self.encoder.decoded(examples.skip(skip * self.batch_size))
        return examples.batch(self.batch_size, drop_remainder=True)

    def _prepare_training(self, batch: Any, step: Any) -> tuple[Any, Any]:
        x, y = batch
        config = self.recipe.data.augment
        if is_active(config):
            x = augment(tf.cast(x, tf.float32), config, tf.stack([tf.cast(self.recipe.seed, tf.int64), step]))
        return self.encoder.prepare(x, y)

    def _fits(self, split: str) -> bool:
        """Tell whether a split, decoded, is small enough to stay in memory."""
        return self.dataset.splits[split].count * self.encoder.width <= MEMORY

    def _arrays(self, split: str) -> tuple[Any, Any]:
        """Return a whole split, decoded once."""
        if split not in self._memory:
            count = self.dataset.splits[split].count
            self._memory[split] = next(iter(self.encoder.decoded(self.dataset.splits[split].examples).batch(count)))
        return self._memory[split]

    @functools.cached_property
    def encoder(self) -> Encoder:
        """What turns raw examples into arrays."""
        return make_encoder(self.dataset, self.shape, self.contract, self.text)

    @functools.cached_property
    def _memory(self) -> dict[str, Any]:
        return {}


def _rows(arrays: Any, numbers: Any) -> Any:
    """Return the examples of these numbers."""
    return tf.nest.map_structure(lambda array: tf.gather(array, numbers), arrays)


@contextlib.contextmanager
def _no_global_seed() -> Iterator[None]:
    """Forget TensorFlow's global seed for a while, which a shuffle would mix with its own."""
    nothing = 87654321  # what get_seed says where no global seed is set
    before, _ = tf.compat.v1.get_seed(1)
    tf.random.set_seed(None)
    try:
        yield
    finally:
        tf.random.set_seed(None if before == nothing else before)


def _served(batches: Any) -> Any:
    """Prepare batches ahead, with parallelism as stated.

    With autotuning on, closing an iterator waits for the tuner, which sleeps twice as long each time: an epoch of
    5.2 seconds took 10.2.
    """
    options = tf.data.Options()
    options.autotune.enabled = False
    return batches.prefetch(2).with_options(options)
