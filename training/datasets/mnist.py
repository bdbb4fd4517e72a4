"""Handwritten digits: 60,000 training and 10,000 test images of 28x28 grayscale pixels.

Prepare it with `tfds build mnist`, in `data.path` or the default folder of TFDS. The last
tenth of the training images is the validation split.

LeCun, Bottou, Bengio and Haffner 1998, "Gradient-based learning applied to document recognition".
"""

from __future__ import annotations

import dataclasses

from training.data.dataset import Dataset, register_dataset
from training.recipe.config import DataConfig
from zoo.specs.preprocessing import PreprocessingConfig


@register_dataset("mnist")
def mnist(config: DataConfig) -> Dataset:
    """Return the images; raises DataError if they are not prepared and the download fails."""
    from training.data.readers.tfds import load_by_name

    # Mean and standard deviation of the training pixels, as published.
    return dataclasses.replace(load_by_name(config), preprocessing=PreprocessingConfig(mean=(33.3,), std=(78.6,)))
