"""Open a dataset by its name: registered, or of TFDS."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from training.data.dataset import DataFiles, Dataset, datasets
from training.data.readers.files import file_digest
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
        return _with_file(datasets[config.name](config), config)
    return load_by_name(config)


def _with_file(dataset: Dataset, config: DataConfig) -> Dataset:
    """Return a dataset with the file that it is read from, such as a table."""
    path = Path(config.path).expanduser()
    if dataset.files or not config.path or not path.is_file():
        return dataset
    files = DataFiles(path.parent, {"all": [path]}, (), (), file_digest)
    return dataclasses.replace(dataset, files=files)
