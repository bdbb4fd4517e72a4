"""TFRecord files: counting, selecting, reading in order and shuffled."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from training.common.compat import without_global_seed
from training.common.tracing import as_it_is
from training.data.dataset import Split
from training.data.readers.files import PARALLEL, Subset, keep_all
from zoo.common.errors import DataError
from zoo.common.lazy import np, tf
from zoo.reading.files import open_regular

if TYPE_CHECKING:
    import numpy as _np

# Files that are interleaved, records that each contributes per turn, and records in the shuffle buffer.
CYCLE, BLOCK, BUFFER = 16, 4, 10_000
# Bytes around the data of a record: its length (uint64) and the checksum of that, and the checksum of the data.
HEADER, FOOTER = 12, 4


def record_split(paths: Sequence[Path], parse: Callable[[Any], tuple[Any, Any]]) -> Split:
    """Return the split of the records of TFRecord files, in their order.

    Shuffling permutes the files, interleaves several of them, and mixes their records in a buffer.

    Args:
        paths: the files.
        parse: maps a record, a scalar string, to (x, y).

    Raises:
        DataError: a file is truncated.
    """
    names = [str(path) for path in paths]
    counts = [count_records(path) for path in paths]
    total, parse = sum(counts), as_it_is(parse)

    def shuffled(seed: int, skip: int, subset: Subset = keep_all) -> Any:
        order = [names[i] for i in np.random.default_rng(seed).permutation(len(names))]
        with without_global_seed():
            files = tf.data.Dataset.from_tensor_slices(order)
            records = files.interleave(tf.data.TFRecordDataset, CYCLE, BLOCK, num_parallel_calls=PARALLEL)
            records = records.shuffle(min(BUFFER, total), seed, reshuffle_each_iteration=False)
        return subset(records.skip(skip)).map(parse, PARALLEL)

    def select(numbers: _np.ndarray) -> Any:
        records = select_records(paths, counts, numbers)
        return tf.data.Dataset.from_tensor_slices(records).map(parse, PARALLEL)

    return Split(tf.data.TFRecordDataset(names).map(parse, PARALLEL), total, shuffled, select)


def count_records(path: Path) -> int:
    """Return the number of records in a TFRecord file by their lengths alone; raises DataError if it is truncated."""
    size, place, count = path.stat().st_size, 0, 0
    with open_regular(path, 0) as file:
        while place < size:
            file.seek(place)
            head = file.read(HEADER)
            place += HEADER + _length(head) + FOOTER
            if len(head) < HEADER or place > size:
                raise DataError(f"Expected whole TFRecord files. Received: {path}, truncated in record {count + 1}")
            count += 1
    return count


def select_records(paths: Sequence[Path], counts: Sequence[int], numbers: Sequence[int]) -> list[bytes]:
    """Return some records of TFRecord files that follow one another; of all others at most the lengths are read.

    Args:
        paths: the files.
        counts: records in each.
        numbers: of the wanted records, over all files, rising.
    """
    starts = np.cumsum([0, *counts])
    found: list[bytes] = []
    for path, first, last in zip(paths, starts, starts[1:], strict=False):
        wanted = [int(number - first) for number in numbers if first <= number < last]
        if wanted:
            found += read_records(path, wanted)
    return found


def read_records(path: Path, numbers: Sequence[int]) -> list[bytes]:
    """Return some records of a TFRecord file, by their numbers in rising order; of the others the lengths are read."""
    wanted, place, found = set(numbers), 0, []
    with open_regular(path, 0) as file:
        for number in range(max(wanted) + 1):
            file.seek(place)
            length = _length(file.read(HEADER))
            if number in wanted:
                found.append(file.read(length))
            place += HEADER + length + FOOTER
    return found


def _length(head: bytes) -> int:
    return int.from_bytes(head[:8], "little")
