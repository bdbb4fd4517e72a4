"""Handwritten digits: the real 1,797 images of 8x8 pixels that scikit-learn ships, with no download.

Alpaydin and Kaynak, "Optical Recognition of Handwritten Digits", UCI 1998. The last 360 images, mostly by other
writers, are the test split, the 144 before them the validation split, the first 1,293 the training split.
An RBF-SVM (C=10) trained on the first 1,437 reaches 0.9583 on the test split.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

from training.data.dataset import Dataset, register_dataset
from training.recipe.config import DataConfig
from zoo.common.lazy import tfds
from zoo.specs.preprocessing import PreprocessingConfig

TRAIN, VALIDATION, TEST = range(1293), range(1293, 1437), range(1437, 1797)
# scikit-learn's 17 gray levels, 0 to 16, scaled to 8 bits.
LEVELS = 255 / 16


@register_dataset("digits")
def digits(config: DataConfig) -> Dataset:
    """Return the digits as a TFDS dataset, which is prepared from scikit-learn on first use."""
    from training.data.readers.tfds import from_builder

    builder = _builder_class()(data_dir=config.path or None)
    # Mean and standard deviation of the training pixels.
    return from_builder(builder, "digits", PreprocessingConfig(mean=(78.0,), std=(95.7,)), local=True)


@functools.cache
def _builder_class() -> Any:
    """Return the TFDS builder's class; defined here because its base class is a heavy import."""

    class Digits(tfds.core.GeneratorBasedBuilder):
        """scikit-learn's handwritten digits."""

        VERSION = tfds.core.Version("1.0.0")
        RELEASE_NOTES = {"1.0.0": "The 1,797 images, split in their order."}
        # There is no folder of checksums and citations next to this file.
        pkg_dir_path = None

        def _info(self) -> Any:
            return tfds.core.DatasetInfo(
                builder=self,
                description=__doc__,
                features=tfds.features.FeaturesDict(
                    {
                        "image": tfds.features.Image(shape=(8, 8, 1)),
                        "label": tfds.features.ClassLabel(names=[str(d) for d in range(10)]),
                    }
                ),
                supervised_keys=("image", "label"),
                # TFDS orders by hashed keys otherwise; the order of the images defines the splits.
                disable_shuffling=True,
            )

        def _split_generators(self, manager: Any) -> dict[str, Iterator[Any]]:
            images, labels = load_pixels()
            parts = {"train": TRAIN, "validation": VALIDATION, "test": TEST}
            return {name: _examples(images, labels, part) for name, part in parts.items()}

        def _generate_examples(self) -> None:
            """Unused: the split generators yield the examples themselves."""

    return Digits


def load_pixels() -> tuple[Any, Any]:
    """Return all images (1797, 8, 8, 1) as uint8 from 0 to 255, and their labels (1797,) as int64."""
    import numpy as np
    from sklearn.datasets import load_digits

    found = load_digits()
    return np.round(found.images * LEVELS).astype("uint8")[..., None], found.target.astype("int64")


def _examples(images: Any, labels: Any, part: range) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield the examples of one split in order."""
    for i in part:
        yield i, {"image": images[i], "label": int(labels[i])}
