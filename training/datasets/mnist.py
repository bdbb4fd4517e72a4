"""Handwritten digits: 60,000 images of 28x28 grey pixels train, 10,000 are tested.

Read as TFDS prepares it (`tfds build mnist`), below `data.path` or where TFDS keeps its data; the last tenth of the
training images validates.

LeCun, Bottou, Bengio and Haffner 1998, "Gradient-based learning applied to document recognition".
"""

from __future__ import annotations

import dataclasses

from training.data.dataset import Dataset, register_dataset
from training.recipe.config import DataConfig
from zoo.specs.preprocessing import PreprocessingConfig


@register_dataset("mnist")
def mnist(config: DataConfig) -> Dataset:
    """Return the images; raises DataError where they are not prepared and cannot be fetched."""
    from training.data.readers.tfds import load_by_name

    # Mean and standard deviation of the training pixels, as the field states them.
    return dataclasses.replace(load_by_name(config), preprocessing=PreprocessingConfig(mean=(33.3,), std=(78.6,)))
