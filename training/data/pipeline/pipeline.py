"""From a dataset to batches: the order and the augmentation of a step depend on the seed and the step alone."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import inspect
from typing import Any

from training.augment.augment import CROP, augment, concern, finish, is_active
from training.augment.crop import draw_crops
from training.augment.mixing import mixes
from training.common.compat import without_global_seed
from training.common.preprocess import normalize
from training.common.sharding import WHOLE, Shard, check_divisible, taking
from training.data.dataset import Dataset
from training.data.pipeline.encoding import PARALLEL, Encoder, make_encoder
from training.recipe.recipe import Recipe
from zoo.common.errors import BadOption
from zoo.common.lazy import np, tf
from zoo.specs.preprocessing import PreprocessingConfig
from zoo.specs.text import TextConfig

# Decoded data up to this many bytes a split is kept in memory: images as uint8, texts as ids.
MEMORY = 1 << 30
# Encoded examples that are shuffled at a time where the data is larger.
SHUFFLE = 10_000
# Where augmentation takes place if the recipe leaves it open. On 2 CPU cores shared with other programs, medians over
# epochs in turns: digits_resnet 416 and 634 images/s in the pipeline, 888 and 690 in the step, with 24.8 and 16.5
# against 15.2 and 15.7 s of processor time; resnet_tiny on JPEGs at 224 pixels 6.7 against 6.8 images/s, 20.7 against
# 19.0 s. The step is hardly cheaper, and on a GPU it has to do without XLA, so that one asks for it.
PLACES = {"auto": "pipeline"}


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
    "target" where text is written. The labels y are one-hot float32 (n, classes), in training weighted means of two
    where images are mixed, or (n, tokens, classes) of tags with rows of zeros for padding, or the int32 ids (n, target
    tokens) to write.
    """

    dataset: Dataset
    recipe: Recipe
    shape: tuple[int, ...]
    preprocessing: PreprocessingConfig
    text: TextConfig | None = None

    @property
    def batch_size(self) -> int:
        """Examples a step: the recipe's, or all there are if they are fewer."""
        return min(self.recipe.data.batch_size, self.dataset.splits["train"].count)

    def check(self, share: Shard) -> None:
        """Raise BadOption unless batches can be divided into such parts."""
        check_divisible(self.batch_size, share.all_replicas)
        if mixes(self.recipe.data.augment):
            share.check_mixing(self.batch_size, self.in_step)

    @property
    def steps_per_epoch(self) -> int:
        """Whole batches in the training split; the rest of an epoch's shuffle is left out."""
        return self.dataset.splits["train"].count // self.batch_size

    def train(self, epoch: int, skip: int = 0, share: Shard = WHOLE) -> Any:
        """Return the batches of an epoch; see `in_step` for what is in them.

        Args:
            epoch: from 0.
            skip: how many of its batches are left out, the first ones.
            share: the part of each batch that is wanted, which nothing else is read or decoded for; where several
                replicas compute it, the part of each comes as a batch of its own.
        """
        if self.learning is not self:
            return self.learning.train(epoch, skip, share)
        first = epoch * self.steps_per_epoch + skip
        steps = tf.data.Dataset.range(first, first + self.steps_per_epoch - skip)
        with taking(self.batch_size, share.rows(self.batch_size)) if share != WHOLE else contextlib.nullcontext():
            batches = self._cropped(epoch, skip, steps, share) if self._crops else self._shuffled(epoch, skip, share)
            batches = tf.data.Dataset.zip(batches, steps).map(self._prepare_training, PARALLEL)
        return _served(_apart(batches, share.places(self.batch_size)) if share.replicas > 1 else batches)

    @property
    def in_step(self) -> bool:
        """Whether batches are augmented by `change` inside the training step: x is raw until then, and of any type."""
        config = self.recipe.data.augment
        return is_active(config) and PLACES.get(config.place, config.place) == "device"

    def change(self, x: Any, y: Any, seed: Any) -> tuple[Any, Any]:
        """Return a raw batch augmented and normalized.

        Args:
            x: raw images (n, height, width, channels).
            y: labels as the loss takes them.
            seed: int64 (2,), of the recipe and of the step.
        """
        if self.learning is not self:
            return self.learning.change(x, y, seed)
        config = self.recipe.data.augment
        if self._crops:
            config = dataclasses.replace(config, crop_scale=(), flip=False)
        return finish(normalize(augment(x, config, seed), self.preprocessing), y, config, seed)

    def evaluate(self, split: str, share: Shard = WHOLE) -> Any:
        """Return the batches of a split in its order, none left out.

        Args:
            split: its name.
            share: the part of each batch that is wanted; where several replicas compute it, the part of each comes as a
                batch of its own. In the last batch parts are smaller, or hold nothing.
        """
        size, count = self.batch_size, self.dataset.splits[split].count
        first, last = share.bounds(size)
        mine = np.arange(size)[first:last]
        each = size // share.all_replicas
        if self._fits(split):
            examples = _picked(tf.data.Dataset.from_tensor_slices(self._arrays(split)), size, mine)
        else:
            examples = self.encoder.decoded(_picked(self.dataset.splits[split].examples, size, mine))
        batches = examples.batch(each)
        have = count // size * len(mine) + min(max(count % size - first, 0), len(mine))
        lacking = -(-count // size) * share.replicas - -(-have // each)
        if lacking:
            empty = tf.nest.map_structure(lambda t: tf.zeros([0, *t.shape[1:]], t.dtype), batches.element_spec)
            batches = batches.concatenate(tf.data.Dataset.from_tensors(empty).repeat(lacking))
        return _served(batches.map(self.encoder.prepare, PARALLEL))

    def raw(self, split: str, count: int) -> tuple[Any, Any]:
        """Return up to `count` decoded examples, evenly spaced over a split, as arrays; no others are read.

        Returns:
            Raw float32 values, or int32 ids, and labels: int64 (n,); int64 (n, tokens) of tags, -1 where padded; int32
            (n, target tokens) of target text.
        """
        numbers = self._sample_numbers(split, count)
        if split in self._memory:
            x, y = _rows(self._memory[split], numbers)
        else:
            examples = self.dataset.splits[split].selected(numbers)
            x, y = next(iter(self.encoder.decoded(examples).batch(len(numbers))))
        return tf.nest.map_structure(lambda t: t.numpy(), (tf.nest.map_structure(self.encoder.raw, x), y))

    def strings(self, split: str, count: int) -> list[str]:
        """Return the texts (of pairs, the sources) of the examples that `raw` returns."""
        if self.text is None:
            raise BadOption(f"Expected a dataset of texts. Received: {self.dataset.name} of shape {self.shape}")
        examples = self.dataset.splits[split].selected(self._sample_numbers(split, count))
        return [x.decode("utf-8", "replace") for x, _ in examples.as_numpy_iterator()]

    def _sample_numbers(self, split: str, count: int) -> Any:
        """Return the numbers of up to `count` examples evenly spaced over a split, int64, rising."""
        total = self.dataset.splits[split].count
        return np.unique(np.linspace(0, total - 1, min(count, total)).astype("int64"))

    def _shuffled(self, epoch: int, skip: int, share: Shard) -> Any:
        """Return batches of raw examples in the order of an epoch."""
        mine = share.rows(self.batch_size)
        split, repeats = self.dataset.splits["train"], self.recipe.data.augment.repeats
        if self._fits("train"):
            order = np.random.default_rng([self.recipe.seed, epoch]).permutation(split.count)
            arrays = self._arrays("train")
            order = tf.data.Dataset.from_tensor_slices(np.repeat(order, repeats)[: split.count])
            batches = order.batch(self.batch_size, drop_remainder=True).skip(skip)
            return batches.map(lambda i: _rows(arrays, tf.gather(i, mine)), PARALLEL)
        examples = self.encoder.decoded(self._ordered(epoch, skip, share))
        return _arranged(examples.batch(len(mine), drop_remainder=True), mine)

    def _cropped(self, epoch: int, skip: int, steps: Any, share: Shard) -> Any:
        """Return batches of random crops, each cut out of its encoded image while that is decoded."""
        mine = share.rows(self.batch_size)
        # Examples come in the order of the data, and only then in that of the rows.
        with taking(self.batch_size, np.sort(mine)):
            drawn = steps.map(lambda step: draw_crops(len(mine), concern(self._seed(step), CROP))).unbatch()
        crops = self.encoder.cropped(self._ordered(epoch, skip, share), drawn, self.recipe.data.augment)
        return _arranged(crops.batch(len(mine), drop_remainder=True), mine)

    def _ordered(self, epoch: int, skip: int, share: Shard) -> Any:
        """Return the encoded examples of an epoch, in its order, after those of its first `skip` batches.

        Of each batch only those of this share are there.
        """
        mine, size = share.rows(self.batch_size), self.batch_size
        split, repeats = self.dataset.splits["train"], self.recipe.data.augment.repeats
        # One draw gives each epoch a seed of its own.
        seed = int(np.random.default_rng([self.recipe.seed, epoch]).integers(1 << 31))
        whole, rest = divmod(skip * self.batch_size, repeats)
        if split.shuffled and repeats == 1 and len(inspect.signature(split.shuffled).parameters) > 2:
            return split.shuffled(seed, whole, lambda examples: _picked(examples, size, mine))
        if split.shuffled:
            examples = split.shuffled(seed, whole)
        else:
            # Where images are repeated, an epoch sees few of them: each begins where the one before left off.
            start = epoch * (split.count // repeats) % split.count if repeats > 1 else 0
            examples = split.examples.skip(start).concatenate(split.examples.take(start)) if start else split.examples
            with without_global_seed():
                examples = examples.shuffle(min(SHUFFLE, split.count), seed, reshuffle_each_iteration=False)
            examples = examples.skip(whole)
        if repeats > 1:
            examples = examples.flat_map(lambda *e: tf.data.Dataset.from_tensors(e).repeat(repeats)).skip(rest)
        return _picked(examples, size, mine)

    def _prepare_training(self, batch: Any, step: Any) -> tuple[Any, Any]:
        x, y = batch
        if not is_active(self.recipe.data.augment):
            return self.encoder.prepare(x, y)
        y = self.encoder.answers(y)
        return (x, y) if self.in_step else self.change(x, y, self._seed(step))

    def _seed(self, step: Any) -> Any:
        return tf.stack([tf.cast(self.recipe.seed, tf.int64), step])

    @property
    def _crops(self) -> bool:
        """Whether training images are cropped while they are decoded."""
        return bool(self.recipe.data.augment.crop_scale) and self.encoder.varied

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
    def learning(self) -> Pipeline:
        """The same data as a network in training sees it, where training images have a size of their own."""
        if not self.recipe.data.train_size:
            return self
        data = dataclasses.replace(self.recipe.data, train_size=())
        shape = (*self.recipe.data.train_size, self.shape[-1])
        return dataclasses.replace(self, recipe=dataclasses.replace(self.recipe, data=data), shape=shape)

    @functools.cached_property
    def encoder(self) -> Encoder:
        """What turns raw examples into arrays."""
        return make_encoder(self.dataset, self.shape, self.preprocessing, self.text)

    @functools.cached_property
    def _memory(self) -> dict[str, Any]:
        return {}


def _rows(arrays: Any, numbers: Any) -> Any:
    """Return the examples of these numbers."""
    return tf.nest.map_structure(lambda array: tf.gather(array, numbers), arrays)


def _picked(examples: Any, size: int, rows: Any) -> Any:
    """Return those of a stream of examples that are some rows of its batches of `size`, in their order."""
    if len(rows) == size:
        return examples
    mine = tf.constant(np.isin(np.arange(size), rows))
    return examples.enumerate().filter(lambda i, _: mine[i % size]).map(lambda _, example: example)


def _arranged(batches: Any, rows: Any) -> Any:
    """Return batches of rows that come in the order of their numbers in the order of `rows`."""
    places = np.argsort(np.argsort(rows))
    if np.array_equal(places, np.arange(len(rows))):
        return batches
    return batches.map(lambda *batch: _rows(batch, places))


def _apart(batches: Any, places: Any) -> Any:
    """Return each batch as several, one after the other: of its rows at `places`, int64 (batches, rows)."""
    return batches.map(lambda *batch: _rows(batch, places), PARALLEL).unbatch()


def _served(batches: Any) -> Any:
    """Prepare batches ahead, with parallelism as stated.

    With autotuning on, closing an iterator waits for the tuner, which sleeps twice as long each time: an epoch of
    5.2 seconds took 10.2.
    """
    options = tf.data.Options()
    options.autotune.enabled = False
    return batches.prefetch(2).with_options(options)
