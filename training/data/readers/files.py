"""Files with labels, read in order, shuffled by name or selected."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from training.data.dataset import Split
from zoo.common.lazy import np, tf

if TYPE_CHECKING:
    import numpy as _np

# Files that are read in parallel.
PARALLEL = os.cpu_count() or 1

# Maps a tf.data dataset to one without the elements that need not be read.
Subset = Callable[[Any], Any]


def keep_all(value: Any) -> Any:
    """Return a tf.data dataset, or the content of a file, unchanged."""
    return value


def file_split(paths: Sequence[str], labels: Sequence[Any], parse: Callable[[Any], Any] = keep_all) -> Split:
    """Return the split of files with their labels; shuffling permutes all names before any file is read.

    Args:
        paths: of the files.
        labels: class indices, or a row of them for each file.
        parse: maps the content of a file, a scalar string, to x.
    """
    names, targets = np.array(list(paths)), np.asarray(labels, "int64")

    def read(order: Any, subset: Subset = keep_all) -> Any:
        examples = subset(tf.data.Dataset.from_tensor_slices((names[order].tolist(), targets[order])))
        return examples.map(lambda path, label: (parse(tf.io.read_file(path)), label), PARALLEL)

    def shuffled(seed: int, skip: int, subset: Subset = keep_all) -> Any:
        return read(np.random.default_rng(seed).permutation(len(names))[skip:], subset)

    def select(numbers: _np.ndarray) -> Any:
        return read(np.asarray(numbers))

    def read_labels() -> Any:
        return tf.data.Dataset.from_tensor_slices(targets)

    return Split(read(np.arange(len(names))), len(names), shuffled, select, read_labels)
