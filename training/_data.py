"""What a dataset is: encoded examples in named splits, their labels, and how raw values are to be read."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING

from training._recipe import DataConfig
from zoo._preprocessing import Preprocessing
from zoo._registry import Registry

if TYPE_CHECKING:
    import tensorflow as tf


@dataclasses.dataclass(frozen=True)
class Split:
    """One part of a dataset.

    Args:
        examples: tf.data of (x, label): x is a scalar string, the bytes of an encoded image, or a float32 vector of
            features; label an int64 from 0. In an order that never changes.
        count: how many examples.
    """

    examples: tf.data.Dataset
    count: int


@dataclasses.dataclass(frozen=True)
class Dataset:
    """Examples with names, ready to be decoded.

    Args:
        name: what it is called.
        labels: the names of the classes; their order is the order of the logits.
        shape: (height, width, channels) of all images, 0 where images differ, or (features,).
        splits: "train", and "validation" and "test" where they exist.
        preprocessing: the data's own contract, if it states one.
    """

    name: str
    labels: tuple[str, ...]
    shape: tuple[int, ...]
    splits: dict[str, Split]
    preprocessing: Preprocessing | None = None


datasets: Registry[Callable[[DataConfig], Dataset]] = Registry("dataset", "training.datasets", "zoo.datasets")


def register(name: str) -> Callable[[Callable[[DataConfig], Dataset]], Callable[[DataConfig], Dataset]]:
    """Register the decorated function, which takes a DataConfig and returns a Dataset."""

    def decorate(load: Callable[[DataConfig], Dataset]) -> Callable[[DataConfig], Dataset]:
        datasets.add(name, load, load.__module__)
        return load

    return decorate


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
