"""Images with any number of labels, from object annotations."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from training.data.dataset import Dataset
from training.data.readers.images.sets import ImageFiles, image_dataset, require_files
from training.recipe.config import DataConfig
from zoo.common.lazy import np

# Labels of an image: 1 for each that applies, -1 for each that is not evaluated.
Marks = Mapping[str, int]


def labelled_images(
    name: str, root: Path, labels: Sequence[str], splits: Mapping[str, Sequence[tuple[Path, Marks]]], config: DataConfig
) -> Dataset:
    """Return a multi-label dataset of images; its check decodes them.

    Args:
        name: the name of the dataset.
        root: the folder, for messages.
        labels: the names of all labels.
        splits: images with their marks, by split.
        config: whether to skip images that cannot be decoded.

    Raises:
        DataError: an image is missing.
    """
    missing = require_files(root, [path for pairs in splits.values() for path, _ in pairs], config.skip_bad)
    number = {label: i for i, label in enumerate(labels)}
    targets: dict[Path, Any] = {}
    for path, marks in (pair for pairs in splits.values() for pair in pairs):
        targets[path] = np.zeros(len(labels), "int64")
        for label, mark in marks.items():
            targets[path][number[label]] = mark
    found = {split: [path for path, _ in pairs if path not in missing] for split, pairs in splits.items()}
    made = image_dataset(ImageFiles(name, root, tuple(labels), found, targets, "multilabel"), config)
    # Published images are used as they are stored, and do not change.
    return dataclasses.replace(made, turned=False, find_turned=None, files=None, refine=None)


def tfds_labels(name: str, builder: str, config: DataConfig, read: Any, test: str = "test") -> Dataset:
    """Return a prepared TFDS dataset of images with objects; see `training.data.readers.tfds.several_labels`."""
    from training.data.readers.tfds import open_builder, several_labels

    return several_labels(open_builder(builder, config), name, read, test=test)
