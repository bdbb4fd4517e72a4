"""Which rows of a batch a replica or a worker has, and numbers drawn for the whole batch wherever a part of it is."""

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
    """The part of each batch that a process computes, divided among its replicas.

    Args:
        workers: how many processes share a batch.
        worker: which of them this is, from 0.
        replicas: how many devices of this process share its part.
    """

    workers: int = 1
    worker: int = 0
    replicas: int = 1

    @property
    def all_replicas(self) -> int:
        """How many devices share a batch, over all processes."""
        return self.workers * self.replicas

    def rows(self, size: int) -> Any:
        """Return which rows of a training batch of so many this process has, in its order, int64.

        Where a part is even, it is made of pairs of a row and its mirror image, each part a mirror image of itself:
        what mixes a batch with itself in reverse order finds both in one part.
        """
        return part(size, self.workers, self.worker)

    def places(self, size: int) -> Any:
        """Return which of the rows of this process, of a batch of so many, each replica has, int64 (replicas, rows)."""
        return np.stack([part(size // self.workers, self.replicas, i) for i in range(self.replicas)])

    def table(self, size: int) -> Any:
        """Return which rows of a training batch each replica has, int64 (replicas of all processes, rows)."""
        shares = (dataclasses.replace(self, worker=worker) for worker in range(self.workers))
        return np.concatenate([share.rows(size)[share.places(size)] for share in shares])

    def bounds(self, size: int) -> tuple[int, int]:
        """Return the first row of a batch to be judged that this process has, and the one after its last."""
        each = size // self.workers
        return self.worker * each, (self.worker + 1) * each

    def check_mixing(self, size: int, in_step: bool) -> None:
        """Raise BadOption where pairs of a row and its mirror image cannot be kept together.

        Args:
            size: of a batch.
            in_step: whether each replica mixes its own rows, and not each process.
        """
        parts = self.all_replicas if in_step else self.workers
        if parts > 1 and size // parts % 2:
            raise BadOption(
                "data.augment.mixup and cutmix mix the rows of a batch in pairs, which parts of an odd size would tear "
                f"apart. Received: a batch of {size} in {parts} parts. Make data.batch_size a multiple of {2 * parts}."
            )


# All of each batch, on one device.
WHOLE = Shard()


def check_divisible(batch_size: int, replicas: int) -> None:
    """Raise BadOption unless every replica gets the same share of a batch, at least one row."""
    if batch_size % replicas:
        raise BadOption(
            "A batch is divided evenly among the replicas. "
            f"Received: replicas={replicas}, a batch of {batch_size}. Change replicas or data.batch_size."
        )


def part(size: int, parts: int, index: int) -> Any:
    """Return the rows of one of so many equal parts of a batch, int64; see `Shard.rows`."""
    each = size // parts
    if parts == 1 or each % 2:
        return np.arange(index * each, (index + 1) * each)
    first = np.arange(index * each // 2, (index + 1) * each // 2)
    return np.concatenate([first, size - 1 - first[::-1]])


_taken: contextvars.ContextVar[tuple[int, Any] | None] = contextvars.ContextVar("taken", default=None)


@contextlib.contextmanager
def taking(size: int, rows: Any) -> Iterator[None]:
    """Let `by_row` draw for a batch of so many rows, and give the numbers of these ones of it."""
    token = _taken.set((size, rows))
    try:
        yield
    finally:
        _taken.reset(token)


def by_row(count: Any, draw: Callable[[Any], Any], axis: int = 0) -> Any:
    """Return what is drawn for each row: the same for a row whatever part of the batch it is in.

    Args:
        count: how many rows there are here.
        draw: takes how many there are in the whole batch, and returns numbers with as many along `axis`.
        axis: the axis of the rows.
    """
    taken = _taken.get()
    return draw(count) if taken is None else tf.gather(draw(taken[0]), taken[1], axis=axis)


def over_replicas(value: Any) -> Any:
    """Return the sum of a value over all replicas of a step; the value itself outside of one."""
    context = tf.distribute.get_replica_context()
    if context is None or context.num_replicas_in_sync == 1:
        return value
    return context.all_reduce(tf.distribute.ReduceOp.SUM, value)
