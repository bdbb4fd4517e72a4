"""From a dataset to batches: the order and the augmentation of a step depend on the seed and the step alone."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import Iterator
from typing import Any

from training._augment import augment, is_active
from training._data import Dataset, load_dataset
from training._encode import PARALLEL, Encoder, make_encoder, settle_length
from training._recipe import DataConfig, Recipe
from training._text import learn
from zoo._errors import BadOption, DataError
from zoo._lazy import np, tf
from zoo._preprocessing import Preprocessing
from zoo._registry import ModelSpec
from zoo._text import SPECIAL, Text

# Decoded data up to this many bytes a split is kept in memory: images as uint8, texts as ids.
MEMORY = 1 << 30
# Options of the data that other kinds of it do not have.
OF_IMAGES, OF_TEXTS = ("augment", "image_size", "channels", "preprocessing"), ("length", "vocabulary")
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


def open_pipeline(recipe: Recipe, spec: ModelSpec, text: Text | None = None) -> Pipeline:
    """Load the data of a recipe and settle the shape and the contracts in which the network sees it.

    Args:
        recipe: what to serve.
        spec: the network's.
        text: the text contract of a run; without one the vocabulary is learnt from the training split.

    Raises:
        DataError: the data is missing or unreadable.
        BadOption: the recipe asks for what this data cannot give, or the network cannot take it.
    """
    dataset = load_dataset(recipe.data)
    for split in ("train", "validation", "test"):
        if split in dataset.splits and not dataset.splits[split].count:
            raise DataError(f"Expected examples in every split of {dataset.name}. Received: none in {split}.")
    if "validation" not in dataset.splits:
        raise DataError(f"Expected a validation split. Received: {dataset.name} without one.")
    _check_fit(recipe, dataset, spec)
    if dataset.text:
        return _open_text(recipe, dataset, spec, text)
    shape = _shape(recipe, dataset, spec)
    contract = recipe.data.preprocessing or dataset.preprocessing or spec.preprocessing
    if shape[-1] == 1 and 3 in (len(contract.mean), len(contract.std)):
        contract = _grey(contract)
    contract.check(shape[-1])
    return Pipeline(dataset, recipe, shape, contract)


def _check_fit(recipe: Recipe, dataset: Dataset, spec: ModelSpec) -> None:
    """Raise BadOption if the network does another thing than the data asks for, or an option cannot apply."""
    model, data = ("text" if known else "no text" for known in (spec.vocabulary, dataset.text))
    if (spec.task, model) != (dataset.task, data):
        raise BadOption(
            "The network must do what the data asks for, from what it holds. "
            f"Received: model.name={recipe.model.name!r} ({spec.task}, {model}), "
            f"data.name={recipe.data.name!r} ({dataset.task}, {data})"
        )
    unfit, kind = (OF_IMAGES, "images") if dataset.text else (OF_TEXTS, "texts")
    for name in unfit:
        if getattr(recipe.data, name) != getattr(DataConfig(), name):
            raise BadOption(f"data.{name} applies to {kind}. Received: {dataset.name}, which has {data}")
    if len(dataset.shape) != 3 and is_active(recipe.data.augment):
        raise BadOption(f"data.augment applies to images. Received: {dataset.name} of shape {dataset.shape}")


def _open_text(recipe: Recipe, dataset: Dataset, spec: ModelSpec, text: Text | None) -> Pipeline:
    """Settle length and vocabulary of texts, once every example is known to be good."""
    shape, most = settle_length(recipe.data.length, spec.input_shape), recipe.data.vocabulary
    plain = Preprocessing()
    make_encoder(dataset, shape, plain, text or dataset.text).check()
    if text is None and dataset.text.vocabulary == SPECIAL:
        examples = dataset.splits["train"].examples
        if dataset.task != "generate":
            examples = examples.map(lambda x, _: x)
        text = learn(dataset.text, examples, most or spec.vocabulary)
    elif most and text is None:
        raise BadOption(f"{dataset.name} states its own vocabulary. Received: data.vocabulary={most}. Leave it at 0.")
    return Pipeline(dataset, recipe, shape, plain, text or dataset.text)


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
