"""From raw examples to arrays, and from arrays to inputs and targets of a model: values, images and tables."""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from training.augment.crop import crop_encoded
from training.common.preprocess import decode, normalize
from training.common.tracing import as_it_is
from training.data.dataset import Dataset
from training.data.outputs import unit_targets
from training.recipe.config import AugmentConfig
from zoo.common.lazy import np, tf
from zoo.specs.preprocessing import PreprocessingConfig
from zoo.specs.tasks import task_of
from zoo.specs.text import TextConfig

if TYPE_CHECKING:
    import numpy as _np
    import tensorflow as _tf

# Batches or images prepared at a time.
PARALLEL = os.cpu_count() or 1
# Row numbers of a table that are read at a time.
ROWS = 1 << 16


class Encoder:
    """Encodes vectors of values with one label each.

    Args:
        dataset: the examples.
        shape: shape of one example as an array.
        preprocessing: the preprocessing.
        text: the text config, if the data is text.
    """

    def __init__(
        self,
        dataset: Dataset,
        shape: tuple[int, ...],
        preprocessing: PreprocessingConfig,
        text: TextConfig | None = None,
    ) -> None:
        self.dataset, self.shape, self.preprocessing, self.text = dataset, shape, preprocessing, text

    # Whether random crops are decoded straight from encoded images.
    varied = False

    @property
    def width(self) -> int:
        """Return the bytes of one example as an array."""
        return 4 * int(np.prod(self.shape))

    def check(self, split: str, numbers: Any = None) -> None:
        """Raise DataError if an example cannot be encoded; only kinds of data that are cheap to read are checked.

        Args:
            split: its name.
            numbers: of the examples to check, int64 (n,), rising; None for all.
        """

    def examples(self, split: str, numbers: Any = None) -> _tf.data.Dataset:
        """Return the raw examples of a split, or those of some numbers; no others are read."""
        found = self.dataset.splits[split]
        return found.examples if numbers is None else found.selected(numbers)

    def decoded(self, examples: _tf.data.Dataset) -> _tf.data.Dataset:
        """Return examples as arrays (x, y), without augmentation."""
        return examples

    def held(self, split: str) -> tuple[Any, Any]:
        """Return a whole split as arrays in memory."""
        found = self.dataset.splits[split]
        return next(iter(self.decoded(found.examples).batch(found.count)))

    def raw(self, x: _tf.Tensor) -> _tf.Tensor:
        """Return x of a batch as the input of an artifact: float32 values, or int32 ids."""
        return tf.cast(x, tf.float32)

    def prepare(self, x: Any, y: Any) -> tuple[Any, Any]:
        """Return a batch as the inputs and targets of the model."""
        return normalize(x, self.preprocessing), self.targets(y)

    def targets(self, y: Any) -> Any:
        """Return labels as targets of the loss: one-hot; several labels at once, and values, as float32."""
        if self.dataset.outputs:
            return unit_targets(y, self.dataset.outputs)
        if task_of(self.dataset.task).direct:
            return tf.cast(y, tf.float32)
        return tf.one_hot(y, len(self.dataset.labels))


@functools.lru_cache(maxsize=8)
def _decoder(
    decode: Callable[..., Any], shape: tuple[int, ...], preprocessing: PreprocessingConfig, turned: bool
) -> Callable[[Any], Any]:
    """Return the function from an encoded image to uint8 pixels (height, width, channels), traced once a process.

    Tracing it takes longer than decoding some thousand small images, and each split of each run would do so.
    """

    def pixels(encoded: Any) -> Any:
        return tf.cast(decode(encoded, shape, preprocessing, turns=turned), tf.uint8)

    return tf.function(pixels, input_signature=[tf.TensorSpec((), tf.string)], autograph=False)


class ImageEncoder(Encoder):
    """Decodes images with one label each."""

    @property
    def width(self) -> int:
        """Return the bytes of an image as uint8."""
        return int(np.prod(self.shape))

    def decoded(self, examples: _tf.data.Dataset) -> _tf.data.Dataset:
        """Return images uint8 (height, width, channels) with their labels."""
        return examples.map(as_it_is(lambda x, y: (self._pixels(x), y)), PARALLEL)

    def _pixels(self, encoded: Any) -> Any:
        # Mean and deviation are of the data, and decoding does not use them.
        preprocessing = dataclasses.replace(self.preprocessing, mean=(0.0,), std=(1.0,))
        return _decoder(decode, tuple(self.shape), preprocessing, bool(self.dataset.turned))(encoded)

    @property
    def varied(self) -> bool:
        """Whether images differ in size from the input of the model, so that random crops are decoded directly."""
        return tuple(self.dataset.shape[:2]) != tuple(self.shape[:2])

    def cropped(self, examples: _tf.data.Dataset, drawn: _tf.data.Dataset, config: AugmentConfig) -> _tf.data.Dataset:
        """Return random crops uint8 (height, width, channels), flipped if the recipe sets it, with labels.

        Args:
            examples: encoded images with their labels.
            drawn: (random numbers, whether to flip) of each image, see `training.augment.crop.draw_crops`.
            config: the augmentation.
        """

        def crop(example: Any, draw: Any) -> Any:
            image = crop_encoded(example[0], draw[0], self.shape, self.preprocessing, config, turns=self.dataset.turned)
            if config.flip:
                # Image by image: batches of large images do not fit into a processor's cache.
                image = tf.cond(draw[1], lambda: tf.reverse(image, [1]), lambda: image)
            return image, example[1]

        return tf.data.Dataset.zip(examples, drawn).map(as_it_is(crop), PARALLEL)


class TableEncoder(Encoder):
    """Encodes rows of a table by the column schema.

    In memory a row is compact: one value for each number or category. A batch is expanded to vectors.
    """

    # Compact rows are in memory in any case.
    width = 0

    def decoded(self, examples: _tf.data.Dataset) -> _tf.data.Dataset:
        """Return compact rows float32 with their labels; a table is read at once."""
        return tf.data.Dataset.from_tensor_slices(self._compact(examples))

    def held(self, split: str) -> tuple[Any, Any]:
        """Return the compact rows and the labels of a split."""
        x, y = self._compact(self.dataset.splits[split].examples)
        # A conversion would copy the rows twice; this tensor has the memory of the array, which nothing else keeps.
        return tf.experimental.dlpack.from_dlpack(x.__dlpack__()), tf.convert_to_tensor(y)

    def rows(self, split: str) -> _np.ndarray:
        """Return the compact rows of a split, without the copy that a tensor takes."""
        return self._compact(self.dataset.splits[split].examples)[0]

    def _compact(self, examples: _tf.data.Dataset) -> tuple[Any, Any]:
        parts = list(examples.batch(ROWS).as_numpy_iterator())
        rows, targets = (np.concatenate(part) for part in zip(*parts, strict=True))
        table, columns = self.dataset.table, self.dataset.cells.columns
        return table.compact((columns[name].take(rows) for name in table.names), len(rows)), targets

    def raw(self, x: _tf.Tensor) -> _tf.Tensor:
        """Return the vectors of compact rows; see `ColumnSchema.expand`."""
        table = self.dataset.table
        slots, plain = table.slots, table.width == table.compact_width and not table.slots.kinds.any()
        values = x if plain else tf.gather(x, slots.places, axis=1)
        gaps = tf.math.is_nan(values)
        filled = tf.where(gaps, slots.constants, values)
        if plain:
            return filled
        marked = tf.where(slots.kinds == 1, tf.cast(gaps, tf.float32), filled)
        return tf.where(slots.kinds == 2, tf.cast(values == slots.constants, tf.float32), marked)

    def prepare(self, x: Any, y: Any) -> tuple[Any, Any]:
        """Return a batch as normalized vectors and targets."""
        return super().prepare(self.raw(x), y)
