"""From a dataset to batches: the order and the augmentation of a step depend on the seed and the step alone."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

from training._augment import CROP, augment, concern, finish, is_active
from training._crop import draw_crops
from training._data import Dataset
from training._encode import PARALLEL, Encoder, make_encoder
from training._order import no_global_seed
from training._preprocess import normalize
from training._recipe import Recipe
from zoo._errors import BadOption
from zoo._lazy import np, tf
from zoo._preprocessing import Preprocessing
from zoo._text import Text

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
        """Return the batches of an epoch (from 0) after its first `skip`; see `in_step` for what is in them."""
        if self.learning is not self:
            return self.learning.train(epoch, skip)
        first = epoch * self.steps_per_epoch + skip
        steps = tf.data.Dataset.range(first, first + self.steps_per_epoch - skip)
        batches = self._cropped(epoch, skip, steps) if self._crops else self._shuffled(epoch, skip)
        return _served(tf.data.Dataset.zip(batches, steps).map(self._prepare_training, PARALLEL))

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
        return finish(normalize(augment(x, config, seed), self.contract), y, config, seed)

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
        split, repeats = self.dataset.splits["train"], self.recipe.data.augment.repeats
        if self._fits("train"):
            order = np.random.default_rng([self.recipe.seed, epoch]).permutation(split.count)
            arrays = self._arrays("train")
            order = tf.data.Dataset.from_tensor_slices(np.repeat(order, repeats)[: split.count])
            batches = order.batch(self.batch_size, drop_remainder=True).skip(skip)
            return batches.map(lambda i: _rows(arrays, i), PARALLEL)
        examples = self.encoder.decoded(self._ordered(epoch, skip))
        return examples.batch(self.batch_size, drop_remainder=True)

    def _cropped(self, epoch: int, skip: int, steps: Any) -> Any:
        """Return batches of random crops, each cut out of its encoded image while that is decoded."""
        drawn = steps.map(lambda step: draw_crops(self.batch_size, concern(self._seed(step), CROP))).unbatch()
        crops = self.encoder.cropped(self._ordered(epoch, skip), drawn, self.recipe.data.augment)
        return crops.batch(self.batch_size, drop_remainder=True)

    def _ordered(self, epoch: int, skip: int) -> Any:
        """Return the encoded examples of an epoch, in its order, after those of its first `skip` batches."""
        split, repeats = self.dataset.splits["train"], self.recipe.data.augment.repeats
        # One draw gives each epoch a seed of its own.
        seed = int(np.random.default_rng([self.recipe.seed, epoch]).integers(1 << 31))
        whole, rest = divmod(skip * self.batch_size, repeats)
        if split.shuffled:
            examples = split.shuffled(seed, whole)
        else:
            # Where images are repeated, an epoch sees few of them: each begins where the one before left off.
            start = epoch * (split.count // repeats) % split.count if repeats > 1 else 0
            examples = split.examples.skip(start).concatenate(split.examples.take(start)) if start else split.examples
            with no_global_seed():
                examples = examples.shuffle(min(SHUFFLE, split.count), seed, reshuffle_each_iteration=False)
            examples = examples.skip(whole)
        if repeats > 1:
            examples = examples.flat_map(lambda *e: tf.data.Dataset.from_tensors(e).repeat(repeats)).skip(rest)
        return examples

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
        return make_encoder(self.dataset, self.shape, self.contract, self.text)

    @functools.cached_property
    def _memory(self) -> dict[str, Any]:
        return {}


def _rows(arrays: Any, numbers: Any) -> Any:
    """Return the examples of these numbers."""
    return tf.nest.map_structure(lambda array: tf.gather(array, numbers), arrays)


def _served(batches: Any) -> Any:
    """Prepare batches ahead, with parallelism as stated.

    With autotuning on, closing an iterator waits for the tuner, which sleeps twice as long each time: an epoch of
    5.2 seconds took 10.2.
    """
    options = tf.data.Options()
    options.autotune.enabled = False
    return batches.prefetch(2).with_options(options)
