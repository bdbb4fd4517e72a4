"""Photographs of ten kinds of things: 50,000 images of 32x32 colour pixels train, 10,000 are tested.

Read as TFDS prepares it (`tfds build cifar10`), below `data.path` or where TFDS keeps its data; the last tenth of the
training images validates.

Krizhevsky 2009, "Learning Multiple Layers of Features from Tiny Images".
"""

from __future__ import annotations

import dataclasses

from training.data.dataset import Dataset, register_dataset
from training.recipe.config import DataConfig
from zoo.specs.preprocessing import PreprocessingConfig


@register_dataset("cifar10")
def cifar10(config: DataConfig) -> Dataset:
    """Return the images; raises DataError where they are not prepared and cannot be fetched."""
    from training.data.readers.tfds import load_by_name

    # Mean and standard deviation of the training pixels, as the field states them.
    return dataclasses.replace(
        load_by_name(config), preprocessing=PreprocessingConfig(mean=(125.3, 123.0, 113.9), std=(63.0, 62.1, 66.7))
    )
