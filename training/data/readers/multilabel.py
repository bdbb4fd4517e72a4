"""Images with any number of labels, from object annotations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from training.data.dataset import Dataset
from training.data.readers.folders import bad_message, image_splits
from training.recipe.config import DataConfig
from zoo.common.errors import DataError
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
    paths = [path for pairs in splits.values() for path, _ in pairs]
    missing = {path for path in paths if not path.is_file()}
    if missing and not config.skip_bad:
        raise DataError(bad_message(root, missing, len(paths), "images of all annotations"))
    number = {label: i for i, label in enumerate(labels)}
    images = {}
    for split, pairs in splits.items():
        found = [(path, marks) for path, marks in pairs if path not in missing]
        targets = np.zeros((len(found), len(labels)), "int64")
        for row, (_, marks) in enumerate(found):
            for label, mark in marks.items():
                targets[row, number[label]] = mark
        images[split] = [path for path, _ in found], targets
    made, check = image_splits(root, images, config.skip_bad)
    return Dataset(name, tuple(labels), (0, 0, 0), made, task="multilabel", check=check)


def tfds_labels(name: str, builder: str, config: DataConfig, read: Any, test: str = "test") -> Dataset:
    """Return a prepared TFDS dataset of images with objects; see `training.data.readers.tfds.several_labels`."""
    from training.data.readers.tfds import open_builder, several_labels

    return several_labels(open_builder(builder, config), name, read, test=test)
