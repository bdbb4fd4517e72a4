"""From a dataset to batches: the order and the augmentation of a step depend on the seed and the step alone."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import os
from collections.abc import Iterator
from typing import Any

from training._augment import augment, is_active
from training._data import Dataset, load_dataset
from training._preprocess import decode, normalize
from training._recipe import Recipe
from zoo._errors import BadOption, DataError
from zoo._lazy import np, tf
from zoo._preprocessing import Preprocessing
from zoo._registry import ModelSpec

# Decoded data up to this many bytes a split is kept in memory, as uint8 where it is images.
MEMORY = 1 << 30
# Encoded examples that are shuffled at a time where the data is larger.
SHUFFLE = 10_000
# Batches or images prepared at a time.
PARALLEL = os.cpu_count() or 1


@dataclasses.dataclass(frozen=True)
class Pipeline:
    """A dataset served as a recipe says.

    Args:
        dataset: the examples.
        recipe: batch size, seed, augmentation.
        shape: shape of one decoded example, (height, width, channels) or (features,).
        contract: the preprocessing that is in force.
    """

    dataset: Dataset
    recipe: Recipe
    shape: tuple[int, ...]
    contract: Preprocessing

    @property
    def batch_size(self) -> int:
        """Examples a step: the recipe's, or all there are if they are fewer."""
        return min(self.recipe.data.batch_size, self.dataset.splits["train"].count)

    @property
    def steps_per_epoch(self) -> int:
        """Whole batches in the training split; the rest of an epoch's shuffle is left out."""
        return self.dataset.splits["train"].count // self.batch_size

    def train(self, epoch: int, skip: int = 0) -> Any:
        """Return the batches of an epoch (from 0) after its first `skip`: (x float32, one-hot labels float32)."""
        batches = self._shuffled(epoch, skip)
        first = epoch * self.steps_per_epoch + skip
        steps = tf.data.Dataset.range(first, first + self.steps_per_epoch)
        return _served(tf.data.Dataset.zip(batches, steps).map(self._prepare_training, PARALLEL))

    def evaluate(self, split: str) -> Any:
        """Return the batches of a split in its order, none left out: (x float32, one-hot labels float32)."""
        if self._fits(split):
            batches = tf.data.Dataset.from_tensor_slices(self._arrays(split)).batch(self.batch_size)
        else:
            batches = self._decoded(self.dataset.splits[split].examples).batch(self.batch_size)
        return _served(batches.map(self._prepare, PARALLEL))

    def raw(self, split: str, count: int) -> tuple[Any, Any]:
        """Return up to `count` decoded examples spread over a split, float32 raw values, and int64 labels."""
        total = self.dataset.splits[split].count
        wanted = np.unique(np.linspace(0, total - 1, min(count, total)).astype("int64"))
        if self._fits(split):
            x, y = self._arrays(split)
            return x.numpy()[wanted].astype("float32"), y.numpy()[wanted]
        chosen = tf.constant(wanted)
        examples = self.dataset.splits[split].examples.enumerate()
        examples = examples.filter(lambda i, _: tf.reduce_any(tf.equal(i, chosen))).map(lambda _, e: e)
        x, y = next(iter(self._decoded(examples).batch(len(wanted))))
        return x.numpy().astype("float32"), y.numpy()

    def _shuffled(self, epoch: int, skip: int) -> Any:
        """Return batches of raw examples in the order of an epoch."""
        split = self.dataset.splits["train"]
        if self._fits("train"):
            order = np.random.default_rng([self.recipe.seed, epoch]).permutation(split.count)
            x, y = self._arrays("train")
            batches = tf.data.Dataset.from_tensor_slices(order).batch(self.batch_size, drop_remainder=True).skip(skip)
            return batches.map(lambda i: (tf.gather(x, i), tf.gather(y, i)), PARALLEL)
        # One draw gives each epoch a seed of its own.
        seed = int(np.random.default_rng([self.recipe.seed, epoch]).integers(1 << 31))
        with _no_global_seed():
            examples = split.examples.shuffle(min(SHUFFLE, split.count), seed, reshuffle_each_iteration=False)
        return self._decoded(examples.skip(skip * self.batch_size)).batch(self.batch_size, drop_remainder=True)

    def _prepare_training(self, batch: Any, step: Any) -> tuple[Any, Any]:
        x, y = batch
        config = self.recipe.data.augment
        if is_active(config):
            x = augment(tf.cast(x, tf.float32), config, tf.stack([tf.cast(self.recipe.seed, tf.int64), step]))
        return self._prepare(x, y)

    def _prepare(self, x: Any, y: Any) -> tuple[Any, Any]:
        return normalize(x, self.contract), tf.one_hot(y, len(self.dataset.labels))

    def _decoded(self, examples: Any) -> Any:
        """Decode encoded images; features pass."""
        if len(self.shape) != 3:
            return examples
        return examples.map(lambda x, y: (self._decode(x), y), PARALLEL)

    def _decode(self, encoded: Any) -> Any:
        return tf.cast(decode(encoded, self.shape, self.contract), tf.uint8)

    def _fits(self, split: str) -> bool:
        """Tell whether a split, decoded, is small enough to stay in memory."""
        width = 1 if len(self.shape) == 3 else 4
        return self.dataset.splits[split].count * int(np.prod(self.shape)) * width <= MEMORY

    def _arrays(self, split: str) -> tuple[Any, Any]:
        """Return a whole split, decoded once."""
        if split not in self._memory:
            count = self.dataset.splits[split].count
            self._memory[split] = next(iter(self._decoded(self.dataset.splits[split].examples).batch(count)))
        return self._memory[split]

    @functools.cached_property
    def _memory(self) -> dict[str, Any]:
        return {}


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


def open_pipeline(recipe: Recipe, spec: ModelSpec) -> Pipeline:
    """Load the data of a recipe and settle the shape and the contract in which the network sees it.

    Raises:
        DataError: the data is missing or unreadable.
        BadOption: the recipe asks for what this data cannot give.
    """
    dataset = load_dataset(recipe.data)
    for split in ("train", "validation", "test"):
        if split in dataset.splits and not dataset.splits[split].count:
            raise DataError(f"Expected examples in every split of {dataset.name}. Received: none in {split}.")
    if "validation" not in dataset.splits:
        raise DataError(f"Expected a validation split. Received: {dataset.name} without one.")
    shape = _shape(recipe, dataset, spec)
    if len(shape) != 3 and is_active(recipe.data.augment):
        raise BadOption(f"data.augment applies to images. Received: {dataset.name} of shape {shape}")
    contract = recipe.data.preprocessing or dataset.preprocessing or spec.preprocessing
    if shape[-1] == 1 and 3 in (len(contract.mean), len(contract.std)):
        contract = _grey(contract)
    contract.check(shape[-1])
    return Pipeline(dataset, recipe, shape, contract)


def _shape(recipe: Recipe, dataset: Dataset, spec: ModelSpec) -> tuple[int, ...]:
    """Return the shape of a decoded example: the recipe's, else the data's, else the model's."""
    if len(dataset.shape) != 3:
        return dataset.shape
    model = spec.input_shape if len(spec.input_shape) == 3 else (64, 64, 3)
    size = recipe.data.image_size or (dataset.shape[:2] if all(dataset.shape[:2]) else model[:2])
    if len(size) != 2 or min(size) < 1:
        raise BadOption(f"data.image_size must be [height, width]. Received: data.image_size={list(size)}")
    return (*size, recipe.data.channels or dataset.shape[2] or model[2])


def _grey(contract: Preprocessing) -> Preprocessing:
    """Return a contract for colour as one for grey images."""

    def average(values: tuple[float, ...]) -> tuple[float, ...]:
        return (sum(values) / len(values),)

    return dataclasses.replace(contract, mean=average(contract.mean), std=average(contract.std))
