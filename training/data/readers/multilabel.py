"""Images with any number of labels each, from annotations of objects."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from training.data.dataset import Dataset
from training.data.readers.folders import bad_message, good_images, image_split
from training.recipe.config import DataConfig
from zoo.common.errors import DataError
from zoo.common.lazy import np

# Which labels an image has: 1 for those that apply, -1 for those of which that is not judged.
Marks = Mapping[str, int]


def labelled_images(
    name: str, root: Path, labels: Sequence[str], splits: Mapping[str, Sequence[tuple[Path, Marks]]], config: DataConfig
) -> Dataset:
    """Return images as a dataset of several labels at once.

    Args:
        name: what it is called.
        root: the folder, for messages.
        labels: the names of all labels.
        splits: images with their marks, by split.
        config: whether to leave images out that cannot be decoded.

    Raises:
        DataError: an image is missing or cannot be decoded.
    """
    paths = [path for pairs in splits.values() for path, _ in pairs]
    lost = [path for path in paths if not path.is_file()]
    if lost and not config.skip_bad:
        raise DataError(bad_message(root, lost, len(paths), "the images of all annotations that can be found"))
    good = good_images(root, [path for path in paths if path not in set(lost)], config.skip_bad)
    number = {label: i for i, label in enumerate(labels)}
    made = {}
    for split, pairs in splits.items():
        kept = [(path, marks) for path, marks in pairs if path in good]
        answers = np.zeros((len(kept), len(labels)), "int64")
        for row, (_, marks) in enumerate(kept):
            for label, mark in marks.items():
                answers[row, number[label]] = mark
        made[split] = image_split(root, [path for path, _ in kept], answers)
    return Dataset(name, tuple(labels), (0, 0, 0), made, task="multilabel")


def tfds_labels(name: str, builder: str, config: DataConfig, read: Any, judged: str = "test") -> Dataset:
    """Return a prepared TFDS dataset of images with objects; see `training.data.readers.tfds.several_labels`."""
    from training.data.readers.tfds import open_builder, several_labels

    return several_labels(open_builder(builder, config), name, read, judged=judged)
