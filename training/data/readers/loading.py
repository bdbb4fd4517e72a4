"""Open a dataset by its name: registered, or of TFDS."""

from __future__ import annotations

from training.data.dataset import Dataset, datasets
from training.data.readers.tfds import load_by_name
from training.recipe.config import DataConfig


def load_dataset(config: DataConfig) -> Dataset:
    """Return a registered dataset, or one of TFDS, with all examples checked.

    Raises:
        UnknownName: neither has the name.
        DataError: the data cannot be read, or needs a download that fails.
    """
    return open_dataset(config).checked()


def open_dataset(config: DataConfig) -> Dataset:
    """Return what `load_dataset` returns without reading the examples; `Dataset.check` then checks some of them."""
    if config.name in datasets:
        return datasets[config.name](config)
    return load_by_name(config)
