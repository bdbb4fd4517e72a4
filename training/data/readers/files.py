"""Orders of large data that a seed alone decides."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from training.data.dataset import Split
from zoo.common.errors import DataError
from zoo.common.lazy import np, tf

# Files read at a time.
PARALLEL = os.cpu_count() or 1
# Record files read in turns, records taken from each, and records mixed at a time.
CYCLE, BLOCK, BUFFER = 16, 4, 10_000

# Leaves out what is not to be read of a dataset.
Pick = Callable[[Any], Any]


def _all(examples: Any) -> Any:
    return examples


def file_split(paths: Sequence[str], labels: Sequence[Any]) -> Split:
    """Return the split of files with their labels; names are shuffled, all of them, before any file is read.

    Args:
        paths: of the files.
        labels: numbers of classes, or a row of them for each file.
    """
    names, numbers = np.array(list(paths)), np.asarray(labels, "int64")

    def read(order: Any, pick: Pick = _all) -> Any:
        examples = pick(tf.data.Dataset.from_tensor_slices((names[order].tolist(), numbers[order])))
        return examples.map(lambda path, label: (tf.io.read_file(path), label), PARALLEL)

    def shuffled(seed: int, skip: int, pick: Pick = _all) -> Any:
        return read(np.random.default_rng(seed).permutation(len(names))[skip:], pick)

    return Split(read(np.arange(len(names))), len(names), shuffled)


def record_split(paths: Sequence[Path], parse: Callable[[Any], tuple[Any, Any]]) -> Split:
    """Return the split of the records of TFRecord files, in their order.

    Shuffled, the files come in another order, several of them are read in turns, and what comes is mixed in a buffer.

    Args:
        paths: the files.
        parse: takes a record, a scalar string, and returns (x, y).

    Raises:
        DataError: a file is cut off.
    """
    names = [str(path) for path in paths]
    count = sum(count_records(path) for path in paths)

    def shuffled(seed: int, skip: int, pick: Pick = _all) -> Any:
        order = [names[i] for i in np.random.default_rng(seed).permutation(len(names))]
        with no_global_seed():
            files = tf.data.Dataset.from_tensor_slices(order)
            records = files.interleave(tf.data.TFRecordDataset, CYCLE, BLOCK, num_parallel_calls=PARALLEL)
            records = records.shuffle(min(BUFFER, count), seed, reshuffle_each_iteration=False)
        return pick(records.skip(skip)).map(parse, PARALLEL)

    return Split(tf.data.TFRecordDataset(names).map(parse, PARALLEL), count, shuffled)


def count_records(path: Path) -> int:
    """Return how many records a TFRecord file holds, by their lengths alone; raises DataError if it is cut off.

    A record is its length (uint64), the checksum of that (uint32), as many bytes, and their checksum (uint32).
    """
    size, place, count = path.stat().st_size, 0, 0
    with path.open("rb", buffering=0) as file:
        while place < size:
            file.seek(place)
            head = file.read(12)
            place += 16 + int.from_bytes(head[:8], "little")
            if len(head) < 12 or place > size:
                raise DataError(f"Expected whole TFRecord files. Received: {path}, cut off in record {count + 1}")
            count += 1
    return count


@contextlib.contextmanager
def no_global_seed() -> Iterator[None]:
    """Forget TensorFlow's global seed for a while, which a shuffle would mix with its own."""
    nothing = 87654321  # what get_seed says where no global seed is set
    before, _ = tf.compat.v1.get_seed(1)
    tf.random.set_seed(None)
    try:
        yield
    finally:
        tf.random.set_seed(None if before == nothing else before)
