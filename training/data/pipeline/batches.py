"""Operations on tf.data datasets of examples and batches."""

from __future__ import annotations

from typing import Any

from training.common.tracing import as_it_is
from training.data.pipeline.encoding import PARALLEL
from zoo.common.lazy import np, tf


def take_rows(arrays: Any, numbers: Any) -> Any:
    """Return the rows of some numbers of each array in a structure."""
    return tf.nest.map_structure(lambda array: tf.gather(array, numbers), arrays)


def shard_examples(examples: Any, size: int, rows: Any) -> Any:
    """Return the examples at some rows of each batch of `size`, in their order.

    Args:
        examples: tf.data of examples, batch after batch.
        size: of a batch.
        rows: int64 (k,), from 0 to `size` - 1.
    """
    if len(rows) == size:
        return examples
    mine = tf.constant(np.isin(np.arange(size), rows))
    examples = examples.enumerate().filter(as_it_is(lambda i, _: mine[i % size]))
    return examples.map(as_it_is(lambda _, example: example))


def reorder_rows(batches: Any, rows: Any) -> Any:
    """Return batches, which are sorted by the numbers of their rows, in the order of `rows`."""
    places = np.argsort(np.argsort(rows))
    if np.array_equal(places, np.arange(len(rows))):
        return batches
    return batches.map(as_it_is(lambda *batch: take_rows(batch, places)))


def split_batches(batches: Any, places: Any) -> Any:
    """Return each batch as several, one after the other, of its rows at `places`, int64 (batches, rows)."""
    return batches.map(as_it_is(lambda *batch: take_rows(batch, places)), PARALLEL).unbatch()


def append_empty(batches: Any, count: int) -> Any:
    """Return batches followed by `count` batches of no examples."""
    if not count:
        return batches
    empty = tf.nest.map_structure(lambda t: tf.zeros([0, *t.shape[1:]], t.dtype), batches.element_spec)
    return batches.concatenate(tf.data.Dataset.from_tensors(empty).repeat(count))


def prefetch(batches: Any) -> Any:
    """Prepare batches ahead, without autotuning.

    With autotuning, closing an iterator waits for the tuner, which sleeps twice as long each time: an epoch of 5.2
    seconds took 10.2.
    """
    options = tf.data.Options()
    options.autotune.enabled = False
    return batches.prefetch(2).with_options(options)
