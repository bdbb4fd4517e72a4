"""From a dataset to batches; the order and the augmentation of a step depend only on the seed and the step."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from typing import Any

from training.augment.augment import CROP, augment, augment_normalized, fold_seed, is_active
from training.augment.crop import draw_crops
from training.augment.mixing import has_mixing
from training.common.preprocess import normalize
from training.common.sharding import WHOLE, Shard, check_divisible, draw_for_batch
from training.common.tracing import as_it_is
from training.data.dataset import Dataset
from training.data.pipeline.batches import (
    append_empty,
    prefetch,
    reorder_rows,
    shard_examples,
    split_batches,
    take_rows,
)
from training.data.pipeline.encoders import make_encoder
from training.data.pipeline.encoding import PARALLEL, Encoder
from training.data.pipeline.shuffling import epoch_examples
from training.recipe.recipe import Recipe
from zoo.common.errors import BadOption
from zoo.common.lazy import np, tf
from zoo.specs.info import ModelInfo
from zoo.specs.preprocessing import PreprocessingConfig
from zoo.specs.text import TextConfig

# Splits of up to this many bytes, decoded, are held in memory: images as uint8, texts as ids.
MEMORY = 1 << 30
# The shuffle buffer of larger splits, in encoded examples.
SHUFFLE = 10_000
# Where augmentation runs with place="auto". On 2 shared CPU cores, medians over alternating epochs: digits_resnet 416
# and 634 images/s in the pipeline, 888 and 690 in the step, 24.8 and 16.5 against 15.2 and 15.7 s of processor time;
# resnet_tiny on JPEGs at 224 pixels 6.7 against 6.8 images/s, 20.7 against 19.0 s. The step is hardly cheaper, and it
# rules out XLA on a GPU.
PLACES = {"auto": "pipeline"}


@dataclasses.dataclass(frozen=True)
class Pipeline:
    """The batches of a dataset under a recipe.

    Args:
        dataset: the examples.
        recipe: batch size, seed, augmentation.
        shape: shape of one decoded example, (height, width, channels), (features,), (tokens,) or (source tokens,
            target tokens).
        preprocessing: the preprocessing.
        text: the text config with its vocabulary; None where the data is no text.
        checked: whether every example is checked; otherwise examples are checked when they are read.
        pretrained: what the weights state that the training starts from; None for random ones.

    A batch is (x, y). Of images and features, x is float32; of texts, int32 ids, and a dictionary of "source" and
    "target" where text is generated. The labels y are one-hot float32 (n, classes), in training weighted means of two
    where images are mixed; (n, tokens, classes) of tags, with rows of zeros for padding; or int32 ids (n, target
    tokens).
    """

    dataset: Dataset
    recipe: Recipe
    shape: tuple[int, ...]
    preprocessing: PreprocessingConfig
    text: TextConfig | None = None
    checked: bool = True
    pretrained: ModelInfo | None = None

    @property
    def batch_size(self) -> int:
        """Return the examples per step: the recipe's batch size, at most the training split."""
        return min(self.recipe.data.batch_size, self.dataset.splits["train"].count)

    def check(self, shard: Shard) -> None:
        """Raise BadOption unless batches can be split into such shards."""
        check_divisible(self.batch_size, shard.all_replicas)
        if has_mixing(self.recipe.data.augment):
            shard.check_mixing(self.batch_size, self.augments_on_device)

    @property
    def steps_per_epoch(self) -> int:
        """Return the number of full batches in the training split; the remainder of a shuffle is dropped."""
        return self.dataset.splits["train"].count // self.batch_size

    def train(self, epoch: int, skip: int = 0, shard: Shard = WHOLE) -> Any:
        """Return the batches of an epoch; see `augments_on_device`.

        Args:
            epoch: from 0.
            skip: number of batches to skip at its start.
            shard: the part of each batch to read; nothing else is read or decoded. With several replicas, the part of
                each replica is a separate batch.
        """
        if self.for_training is not self:
            return self.for_training.train(epoch, skip, shard)
        self.check_examples("train")
        first = epoch * self.steps_per_epoch + skip
        steps = tf.data.Dataset.range(first, first + self.steps_per_epoch - skip)
        size, load = self.batch_size, self._cropped if self._crops else self._shuffled
        with draw_for_batch(size, shard.rows(size)) if shard != WHOLE else contextlib.nullcontext():
            batches = load(epoch, skip, steps, shard)
            batches = tf.data.Dataset.zip(batches, steps).map(as_it_is(self._prepare_training), PARALLEL)
        return prefetch(split_batches(batches, shard.places(size)) if shard.replicas > 1 else batches)

    @property
    def augments_on_device(self) -> bool:
        """Return whether `augment_batch` augments batches in the training step; batches of `train` are then raw."""
        config = self.recipe.data.augment
        return is_active(config) and PLACES.get(config.place, config.place) == "device"

    def augment_batch(self, x: Any, y: Any, seed: Any) -> tuple[Any, Any]:
        """Return a raw batch augmented and normalized.

        Args:
            x: raw images (n, height, width, channels).
            y: targets of the loss.
            seed: int64 (2,), the seed of the recipe and the step.
        """
        if self.for_training is not self:
            return self.for_training.augment_batch(x, y, seed)
        config = self.recipe.data.augment
        if self._crops:
            config = dataclasses.replace(config, crop_scale=(), flip=False)
        return augment_normalized(normalize(augment(x, config, seed), self.preprocessing), y, config, seed)

    def evaluate(self, split: str, shard: Shard = WHOLE) -> Any:
        """Return all batches of a split in its order.

        Args:
            split: its name.
            shard: the part of each batch to return. With several replicas, the part of each replica is a separate
                batch. Parts of the last batch are smaller, or empty.
        """
        self.check_examples(split)
        size, count = self.batch_size, self.dataset.splits[split].count
        first, last = shard.bounds(size)
        mine = np.arange(size)[first:last]
        each = size // shard.all_replicas
        if self._fits(split):
            examples = shard_examples(tf.data.Dataset.from_tensor_slices(self._arrays(split)), size, mine)
        else:
            examples = self.encoder.decoded(shard_examples(self.dataset.splits[split].examples, size, mine))
        have = count // size * len(mine) + min(max(count % size - first, 0), len(mine))
        missing = -(-count // size) * shard.replicas - -(-have // each)
        return prefetch(append_empty(examples.batch(each), missing).map(as_it_is(self.encoder.prepare), PARALLEL))

    def raw(self, split: str, count: int) -> tuple[Any, Any]:
        """Return up to `count` decoded examples, evenly spaced over a split, as arrays; no others are read.

        Returns:
            Raw float32 values, or int32 ids, and labels: int64 (n,); int64 (n, tokens) of tags, -1 where padded; int32
            (n, target tokens) of target text.
        """
        x, y = self._selected(split, self._sample_numbers(split, count))
        return tf.nest.map_structure(lambda t: t.numpy(), (tf.nest.map_structure(self.encoder.raw, x), y))

    def first_batch(self, split: str) -> tuple[Any, Any]:
        """Return the first batch of `evaluate`; no other examples are read."""
        count = min(self.batch_size, self.dataset.splits[split].count)
        return self.encoder.prepare(*self._selected(split, np.arange(count)))

    def check_examples(self, split: str, numbers: Any = None) -> None:
        """Check examples of a split, unless all are known to be checked; raises DataError.

        Args:
            split: its name.
            numbers: of the examples, int64 (n,), rising; None for all.
        """
        if self.checked or split in self._checked:
            return
        if self.dataset.check:
            self.dataset.check({split: np.arange(self.dataset.splits[split].count) if numbers is None else numbers})
        self.encoder.check(split, numbers)
        if numbers is None:
            self._checked.add(split)

    def strings(self, split: str, count: int) -> list[str]:
        """Return the texts (of pairs, the sources) of the examples that `raw` returns."""
        if self.text is None:
            raise BadOption(f"Expected a dataset of texts. Received: {self.dataset.name} of shape {self.shape}")
        numbers = self._sample_numbers(split, count)
        self.check_examples(split, numbers)
        examples = self.dataset.splits[split].selected(numbers)
        return [x.decode("utf-8", "replace") for x, _ in examples.as_numpy_iterator()]

    def rows(self, split: str, count: int) -> list[list[str]]:
        """Return the texts of the feature columns of the examples that `raw` returns, of a table."""
        examples = self.dataset.splits[split].selected(self._sample_numbers(split, count))
        places = [int(x) for x, _ in examples.as_numpy_iterator()]
        columns = self.dataset.cells.columns
        texts = [columns[name].take(places).texts() for name in self.dataset.table.names]
        return [list(row) for row in zip(*texts, strict=True)]

    def _selected(self, split: str, numbers: Any) -> tuple[Any, Any]:
        """Return the examples of some numbers as arrays, read alone unless the split is in memory."""
        if split in self._memory:
            return take_rows(self._memory[split], numbers)
        self.check_examples(split, numbers)
        examples = self.dataset.splits[split].selected(numbers)
        return next(iter(self.encoder.decoded(examples).batch(len(numbers))))

    def _sample_numbers(self, split: str, count: int) -> Any:
        """Return the numbers of up to `count` examples evenly spaced over a split, int64, rising."""
        total = self.dataset.splits[split].count
        return np.unique(np.linspace(0, total - 1, min(count, total)).astype("int64"))

    def _shuffled(self, epoch: int, skip: int, _steps: Any, shard: Shard) -> Any:
        """Return batches of decoded examples in the order of an epoch."""
        mine = shard.rows(self.batch_size)
        split, repeats = self.dataset.splits["train"], self.recipe.data.augment.repeats
        if self._fits("train"):
            order = np.random.default_rng([self.recipe.seed, epoch]).permutation(split.count)
            arrays = self._arrays("train")
            order = tf.data.Dataset.from_tensor_slices(np.repeat(order, repeats)[: split.count])
            batches = order.batch(self.batch_size, drop_remainder=True).skip(skip)
            return batches.map(as_it_is(lambda i: take_rows(arrays, tf.gather(i, mine))), PARALLEL)
        examples = self.encoder.decoded(self._epoch_examples(epoch, skip, shard))
        return reorder_rows(examples.batch(len(mine), drop_remainder=True), mine)

    def _cropped(self, epoch: int, skip: int, steps: Any, shard: Shard) -> Any:
        """Return batches of random crops, which are decoded straight from the encoded images."""
        mine = shard.rows(self.batch_size)
        # Examples are sorted by their rows until they are batched.
        with draw_for_batch(self.batch_size, np.sort(mine)):
            draw = as_it_is(lambda step: draw_crops(len(mine), fold_seed(self._seed(step), CROP)))
            drawn = steps.map(draw).unbatch()
        crops = self.encoder.cropped(self._epoch_examples(epoch, skip, shard), drawn, self.recipe.data.augment)
        return reorder_rows(crops.batch(len(mine), drop_remainder=True), mine)

    def _epoch_examples(self, epoch: int, skip: int, shard: Shard) -> Any:
        """Return the encoded examples of an epoch in its order, a shard of each batch, without the first `skip`."""
        mine, size = shard.rows(self.batch_size), self.batch_size
        split, repeats = self.dataset.splits["train"], self.recipe.data.augment.repeats
        seeds = (self.recipe.seed, epoch)
        return epoch_examples(split, seeds, skip * size, repeats, SHUFFLE, lambda e: shard_examples(e, size, mine))

    def _prepare_training(self, batch: Any, step: Any) -> tuple[Any, Any]:
        x, y = batch
        if not is_active(self.recipe.data.augment):
            return self.encoder.prepare(x, y)
        y = self.encoder.targets(y)
        return (x, y) if self.augments_on_device else self.augment_batch(x, y, self._seed(step))

    def _seed(self, step: Any) -> Any:
        return tf.stack([tf.cast(self.recipe.seed, tf.int64), step])

    @property
    def _crops(self) -> bool:
        """Return whether random crops of training images are decoded straight from the encoded images."""
        return bool(self.recipe.data.augment.crop_scale) and self.encoder.varied

    def _fits(self, split: str) -> bool:
        """Return whether a decoded split is small enough to hold in memory."""
        return self.dataset.splits[split].count * self.encoder.width <= MEMORY

    def _arrays(self, split: str) -> tuple[Any, Any]:
        """Return a whole split, decoded once and held in memory."""
        if split not in self._memory:
            self._memory[split] = self.encoder.held(split)
        return self._memory[split]

    @functools.cached_property
    def for_training(self) -> Pipeline:
        """Return the pipeline of training images, which may have another size."""
        if not self.recipe.data.train_size:
            return self
        recipe = self.recipe.override(**{"data.train_size": []})
        return dataclasses.replace(self, recipe=recipe, shape=(*self.recipe.data.train_size, self.shape[-1]))

    @functools.cached_property
    def encoder(self) -> Encoder:
        """Return the encoder from raw examples to arrays."""
        return make_encoder(self.dataset, self.shape, self.preprocessing, self.text)

    @functools.cached_property
    def _memory(self) -> dict[str, Any]:
        return {}

    @functools.cached_property
    def _checked(self) -> set[str]:
        return set()
