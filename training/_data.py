"""What a dataset is: raw examples in named splits, their labels, and how raw values are to be read."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from training._configs import DataConfig
from zoo._lazy import tf
from zoo._preprocessing import Preprocessing
from zoo._registry import Registry
from zoo._text import Text

if TYPE_CHECKING:
    import tensorflow as _tf


@dataclasses.dataclass(frozen=True)
class Split:
    """One part of a dataset.

    Args:
        examples: tf.data of (x, y): x is a scalar string, the bytes of an encoded image or a text in UTF-8, or a
            float32 vector of features; y, by the task of the dataset, an int64 from 0 or a scalar string. In an order
            that never changes.
        count: how many examples.
    """

    examples: _tf.data.Dataset
    count: int


@dataclasses.dataclass(frozen=True)
class Dataset:
    """Examples with names, ready to be decoded.

    Args:
        name: what it is called.
        labels: the names of the classes or tags; their order is the order of the logits. None where text is written.
        shape: (height, width, channels) of all images, 0 where images differ, (features,), or () of text.
        splits: "train", and "validation" and "test" where they exist.
        preprocessing: the data's own contract, if it states one.
        text: how strings become tokens where x is text; a vocabulary of no more than `zoo._text.SPECIAL` asks for one
            learnt from the training split.
        task: "classify", y is the number of a label; "tag", y is a string of labels with white space between them,
            one for each token of x; "generate", y is the text to write.
    """

    name: str
    labels: tuple[str, ...]
    shape: tuple[int, ...]
    splits: dict[str, Split]
    preprocessing: Preprocessing | None = None
    text: Text | None = None
    task: str = "classify"


datasets: Registry[Callable[[DataConfig], Dataset]] = Registry("dataset", "training.datasets", "zoo.datasets")


def register(name: str) -> Callable[[Callable[[DataConfig], Dataset]], Callable[[DataConfig], Dataset]]:
    """Register the decorated function, which takes a DataConfig and returns a Dataset."""

    def decorate(load: Callable[[DataConfig], Dataset]) -> Callable[[DataConfig], Dataset]:
        datasets.add(name, load, load.__module__)
        return load

    return decorate


def listed(x: Sequence[Any], y: Sequence[Any]) -> Split:
    """Return a split of examples that are in memory: texts or vectors with their numbers or texts."""
    return Split(tf.data.Dataset.from_tensor_slices((x, y)).map(_as_label), len(x))


def _as_label(x: Any, y: Any) -> tuple[Any, Any]:
    return x, tf.cast(y, tf.int64) if y.dtype.is_integer else y


def load_dataset(config: DataConfig) -> Dataset:
    """Return the dataset of a name of ours, or of TFDS.

    Raises:
        UnknownName: neither knows the name.
        DataError: the data cannot be read, or would need a download that is not to be had.
    """
    if config.name in datasets:
        return datasets[config.name](config)
    from training._tfds import load_by_name

    return load_by_name(config)
