"""Photographs of a hundred kinds of things: 50,000 training and 10,000 test images of 32x32 color pixels.

Prepare it with `tfds build cifar100`, in `data.path` or the default folder of TFDS. The last
tenth of the training images is the validation split.

Krizhevsky 2009, "Learning Multiple Layers of Features from Tiny Images".
"""

from __future__ import annotations

import dataclasses

from training.data.dataset import Dataset, register_dataset
from training.recipe.config import DataConfig
from zoo.specs.preprocessing import PreprocessingConfig


@register_dataset("cifar100")
def cifar100(config: DataConfig) -> Dataset:
    """Return the images; raises DataError if they are not prepared and the download fails."""
    from training.data.readers.tfds import load_by_name

    # Mean and standard deviation of the training pixels, as published.
    return dataclasses.replace(
        load_by_name(config), preprocessing=PreprocessingConfig(mean=(129.3, 124.1, 112.4), std=(68.2, 65.4, 70.4))
    )
