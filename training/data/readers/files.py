"""Files with labels, read in order, shuffled by name or selected."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from training.common.tracing import as_it_is
from training.data.dataset import Split
from zoo.common.lazy import np, tf
from zoo.reading.data_files import read_blocks

if TYPE_CHECKING:
    import numpy as _np

# Files that are read in parallel.
PARALLEL = os.cpu_count() or 1

# Maps a tf.data dataset to one without the elements that need not be read.
Subset = Callable[[Any], Any]


def keep_all(value: Any) -> Any:
    """Return a tf.data dataset, or the content of a file, unchanged."""
    return value


def read_file(path: Any) -> Any:
    """Return the content of a file, a scalar string; the file was opened by `zoo.reading` before."""
    return tf.io.read_file(path)


def file_split(
    paths: Sequence[str],
    labels: Sequence[Any],
    parse: Callable[[Any], Any] = keep_all,
    content: Callable[[Any], Any] = read_file,
) -> Split:
    """Return the split of files with their labels; shuffling permutes all names before any file is read.

    Args:
        paths: of the files.
        labels: class indices, or a row of them for each file; or rows of numbers, float32.
        parse: maps the content of a file, a scalar string, to x.
        content: maps the path of a file, a scalar string, to its content.
    """
    names, targets = np.array(list(paths)), np.asarray(labels)
    targets = targets if targets.dtype.kind == "f" else targets.astype("int64")

    def read(order: Any, subset: Subset = keep_all) -> Any:
        examples = subset(tf.data.Dataset.from_tensor_slices((names[order].tolist(), targets[order])))
        return examples.map(as_it_is(lambda path, label: (parse(content(path)), label)), PARALLEL)

    def shuffled(seed: int, skip: int, subset: Subset = keep_all) -> Any:
        return read(np.random.default_rng(seed).permutation(len(names))[skip:], subset)

    def select(numbers: _np.ndarray) -> Any:
        return read(np.asarray(numbers))

    def read_labels() -> Any:
        return tf.data.Dataset.from_tensor_slices(targets)

    return Split(read(np.arange(len(names))), len(names), shuffled, select, read_labels)


def name_in(root: Path, path: Path) -> str:
    """Return the path of a file below a folder, with slashes; its whole path elsewhere."""
    name, above = path.as_posix(), f"{root.as_posix().rstrip('/')}/"
    return name.removeprefix(above)


def listed(names: Sequence[str], most: int = 5) -> str:
    """Return the first names of a list as text, and how many more there are."""
    return ", ".join(names[:most]) + (f" and {len(names) - most:,} more" if len(names) > most else "")


def digest_of(content: bytes) -> str:
    """Return the digest of a file's content: half of SHA-256, in hexadecimal digits."""
    return hashlib.sha256(content).hexdigest()[:32]


def file_digest(path: Path) -> str:
    """Return the `digest_of` a file, which is read in blocks; raises OSError."""
    state = hashlib.sha256()
    for block in read_blocks(path):
        state.update(block)
    return state.hexdigest()[:32]
