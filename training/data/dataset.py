"""What a dataset is: raw examples in named splits, their labels, and how raw values are to be read."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from training.data.columns import ColumnSchema
from training.recipe.config import DataConfig
from zoo.common.lazy import tf
from zoo.specs.preprocessing import PreprocessingConfig
from zoo.specs.registry import Registry
from zoo.specs.text import TextConfig

if TYPE_CHECKING:
    import tensorflow as _tf


@dataclasses.dataclass(frozen=True)
class Split:
    """One part of a dataset.

    Args:
        examples: tf.data of (x, y): x is a scalar string, the bytes of an encoded image or a text in UTF-8, or a
            float32 vector of features, or of a table the cells of a row as strings; y by the task of the dataset. In an
            order that never changes.
        count: how many examples.
        shuffled: returns `examples` in an order that is drawn from a seed, without the first so many of it; where
            there is a better way than a buffer, such as shuffling the names of files before they are read. A third
            argument, if there is one, takes and returns a dataset: what it leaves out is not to be read.
    """

    examples: _tf.data.Dataset
    count: int
    shuffled: Callable[..., _tf.data.Dataset] | None = None


@dataclasses.dataclass(frozen=True)
class TargetScale:
    """Mean and standard deviation of the training targets of a regression, in the data's own units.

    Args:
        mean: of each target.
        std: of each target, above 0.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]


@dataclasses.dataclass(frozen=True)
class Dataset:
    """Examples with names, ready to be decoded.

    Args:
        name: what it is called.
        labels: the names of the classes, tags, labels or targets; their order is the order of the logits or values.
            None where text is written.
        shape: (height, width, channels) of all images, 0 where images differ, (features,), or () of text and tables.
        splits: "train", and "validation" and "test" where they exist.
        preprocessing: the data's own contract, if it states one.
        text: how strings become tokens where x is text; a vocabulary of no more than `zoo.specs.text.SPECIAL` asks for one
            learnt from the training split.
        task: "classify", y is the number of a label, int64; "multilabel", y is int64 (labels,) of 1 for each label that
            applies, 0 for each that does not and -1 where that is not known; "regress", y is float32 (targets,) in the
            data's own units; "tag", y is a string of labels with white space between them, one for each token of x;
            "generate", y is the text to write.
        table: what the training rows say of the columns, where x is rows of a table.
        scale: of the targets of a regression, once it was measured.
        options: those of `DataConfig` that this data obeys beside the ones that apply to all of its kind.
    """

    name: str
    labels: tuple[str, ...]
    shape: tuple[int, ...]
    splits: dict[str, Split]
    preprocessing: PreprocessingConfig | None = None
    text: TextConfig | None = None
    task: str = "classify"
    table: ColumnSchema | None = None
    scale: TargetScale | None = None
    options: tuple[str, ...] = ()


# What a network must be registered to do for the tasks that others' networks serve too.
NETWORKS = {"multilabel": "classify", "regress": "classify"}

datasets: Registry[Callable[[DataConfig], Dataset]] = Registry("dataset", "training.datasets", "zoo.datasets")


def register_dataset(name: str) -> Callable[[Callable[[DataConfig], Dataset]], Callable[[DataConfig], Dataset]]:
    """Register the decorated function, which takes a DataConfig and returns a Dataset."""

    def decorate(load: Callable[[DataConfig], Dataset]) -> Callable[[DataConfig], Dataset]:
        datasets.add(name, load, load.__module__)
        return load

    return decorate


def in_memory_split(x: Sequence[Any], y: Sequence[Any]) -> Split:
    """Return a split of examples that are in memory: texts or vectors with their numbers or texts."""
    return Split(tf.data.Dataset.from_tensor_slices((x, y)).map(_as_label), len(x))


def _as_label(x: Any, y: Any) -> tuple[Any, Any]:
    return x, tf.cast(y, tf.int64) if y.dtype.is_integer else y
