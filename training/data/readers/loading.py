"""Datasets by name: registered ones, and those of TFDS."""

from __future__ import annotations

from training.data.dataset import Dataset, datasets
from training.data.readers.tfds import load_by_name
from training.recipe.config import DataConfig


def load_dataset(config: DataConfig) -> Dataset:
    """Return the dataset of a name of ours, or of TFDS.

    Raises:
        UnknownName: neither knows the name.
        DataError: the data cannot be read, or would need a download that is not to be had.
    """
    if config.name in datasets:
        return datasets[config.name](config)
    return load_by_name(config)
