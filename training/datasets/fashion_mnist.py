"""Articles of clothing in ten classes: 60,000 training and 10,000 test images of 28x28 grayscale.

Prepare it with `tfds build fashion_mnist`, in `data.path` or the default folder of TFDS. The last
tenth of the training images is the validation split.

Xiao, Rasul and Vollgraf 2017, "Fashion-MNIST", arXiv:1708.07747.
"""

from __future__ import annotations

import dataclasses

from training.data.dataset import Dataset, register_dataset
from training.recipe.config import DataConfig
from zoo.specs.preprocessing import PreprocessingConfig


@register_dataset("fashion_mnist")
def fashion_mnist(config: DataConfig) -> Dataset:
    """Return the images; raises DataError if they are not prepared and the download fails."""
    from training.data.readers.tfds import load_by_name

    # Mean and standard deviation of the training pixels, as published.
    return dataclasses.replace(load_by_name(config), preprocessing=PreprocessingConfig(mean=(72.9,), std=(90.0,)))
