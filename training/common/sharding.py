"""Shards: the rows of a batch that a replica or worker computes, and random numbers that do not depend on them."""

from __future__ import annotations

import contextlib
import contextvars
import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

from zoo.common.errors import BadOption
from zoo.common.lazy import np, tf


@dataclasses.dataclass(frozen=True)
class Shard:
    """The part of each batch that a process computes, split over its replicas.

    Args:
        workers: number of processes that share a batch.
        worker: index of this process, from 0.
        replicas: number of devices of this process that share its part.
    """

    workers: int = 1
    worker: int = 0
    replicas: int = 1

    @property
    def all_replicas(self) -> int:
        """Return the number of devices that share a batch, over all processes."""
        return self.workers * self.replicas

    def rows(self, size: int) -> Any:
        """Return the rows of a training batch of `size` that this process computes, in its order, int64.

        Shards of even size hold pairs of rows i and size - 1 - i, so that mixup with the reversed batch finds both rows
        of a pair in one shard.
        """
        return shard_rows(size, self.workers, self.worker)

    def places(self, size: int) -> Any:
        """Return the positions of each replica among the rows of this process, int64 (replicas, rows)."""
        return np.stack([shard_rows(size // self.workers, self.replicas, i) for i in range(self.replicas)])

    def table(self, size: int) -> Any:
        """Return the rows of a training batch that each replica computes, int64 (replicas of all processes, rows)."""
        shards = (dataclasses.replace(self, worker=worker) for worker in range(self.workers))
        return np.concatenate([shard.rows(size)[shard.places(size)] for shard in shards])

    def bounds(self, size: int) -> tuple[int, int]:
        """Return the first row of an evaluation batch that this process computes, and the row after its last."""
        each = size // self.workers
        return self.worker * each, (self.worker + 1) * each

    def check_mixing(self, size: int, augments_on_device: bool) -> None:
        """Raise BadOption if shards cannot hold whole pairs of mixed rows.

        Args:
            size: batch size.
            in_step: whether each replica mixes its own rows, instead of each process.
        """
        parts = self.all_replicas if augments_on_device else self.workers
        if parts > 1 and size // parts % 2:
            raise BadOption(
                "data.augment.mixup and cutmix mix the rows of a batch in pairs and need shards of even size. "
                f"Received: a batch of {size} in {parts} shards. Make data.batch_size a multiple of {2 * parts}."
            )


# The whole batch, on one device.
WHOLE = Shard()


def check_divisible(batch_size: int, replicas: int) -> None:
    """Raise BadOption unless the batch size is a multiple of the replicas."""
    if batch_size % replicas:
        raise BadOption(
            "The batch size must be a multiple of the number of replicas. "
            f"Received: replicas={replicas}, a batch of {batch_size}. Change replicas or data.batch_size."
        )


def shard_rows(size: int, parts: int, index: int) -> Any:
    """Return the rows of shard `index` of `parts` equal shards of a batch, int64; see `Shard.rows`."""
    each = size // parts
    if parts == 1 or each % 2:
        return np.arange(index * each, (index + 1) * each)
    first = np.arange(index * each // 2, (index + 1) * each // 2)
    return np.concatenate([first, size - 1 - first[::-1]])


_batch: contextvars.ContextVar[tuple[int, Any] | None] = contextvars.ContextVar("batch", default=None)


@contextlib.contextmanager
def draw_for_batch(size: int, rows: Any) -> Iterator[None]:
    """Make `draw_by_row` draw for a batch of `size` rows and return the numbers of some of its rows."""
    token = _batch.set((size, rows))
    try:
        yield
    finally:
        _batch.reset(token)


def draw_by_row(count: Any, draw: Callable[[Any], Any], axis: int = 0) -> Any:
    """Return random numbers for each row, which do not depend on the shard that the row is in.

    Args:
        count: number of rows in this shard.
        draw: maps the number of rows of the whole batch to random numbers with as many along `axis`.
        axis: the axis of the rows.
    """
    batch = _batch.get()
    return draw(count) if batch is None else tf.gather(draw(batch[0]), batch[1], axis=axis)


def sum_over_replicas(value: Any) -> Any:
    """Return the sum of a value over all replicas of a step; outside of a step, the value itself."""
    context = tf.distribute.get_replica_context()
    if context is None or context.num_replicas_in_sync == 1:
        return value
    return context.all_reduce(tf.distribute.ReduceOp.SUM, value)
