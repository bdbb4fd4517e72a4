"""Processes that train together: the chief writes, followers do not; all stop when one is lost."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from training.distributed.replicated import Replicated
from training.runs.run import Run
from zoo.common.errors import RunError
from zoo.common.lazy import tf

# Seconds that followers wait for the run directory, which the chief creates once all are ready; a disk may be slow.
TIMEOUT = 120.0


class WorkerLost(RunError):
    """Another worker ended, or cannot be reached; all workers can resume from the last checkpoint."""

    # EX_TEMPFAIL of sysexits.h: a retry may succeed.
    code = 75


@contextlib.contextmanager
def detect_lost_worker(worker: int, workers: int) -> Iterator[None]:
    """Raise WorkerLost if another worker cannot be reached; this is the `worker`-th of `workers`."""
    try:
        yield
    except (tf.errors.ResourceExhaustedError, tf.errors.InvalidArgumentError):
        raise
    except tf.errors.OpError as error:
        reason = " ".join(str(error.message).split())[:160]
        raise WorkerLost(
            f"Expected all workers to respond. Received: worker {worker} of {workers} lost another: "
            f"{reason}. Start all of them again, with --resume if the run directory exists."
        ) from error


@dataclasses.dataclass(frozen=True)
class MultiWorker(Replicated):
    """The devices of several processes."""

    # All processes take part in an evaluation.
    interruptible: bool = False

    def running(self) -> contextlib.AbstractContextManager[None]:
        """Return a context that raises WorkerLost if another worker cannot be reached."""
        return detect_lost_worker(self.worker, self.workers)


class Follower(Run):
    """The run directory of a worker that writes nothing; it keeps its metrics in memory."""

    writes = False

    def __init__(self, path: Path, recipe: Any) -> None:
        super().__init__(path, recipe)
        self._rows = super().metrics()

    def metrics(self) -> list[dict[str, Any]]:
        """Return one row for each epoch: those of the file, and those of this worker, which equal the chief's."""
        return list(self._rows)

    def add_metrics(self, row: dict[str, Any]) -> None:
        """Keep the row of an epoch in memory."""
        self._rows = [r for r in self._rows if r["epoch"] < row["epoch"]] + [row]

    def add_diagnostics(self, row: dict[str, Any]) -> None:
        """Do nothing: the chief writes."""

    def finish(self, result: dict[str, Any]) -> None:
        """Do nothing: the chief writes."""

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Do nothing: the chief writes."""
        yield


def wait_for_run(path: str | os.PathLike[str]) -> Follower:
    """Return the run as soon as the chief has created it; raises RunError after a timeout."""
    end = time.monotonic() + TIMEOUT
    while not (Path(path) / "recipe.json").is_file():
        if time.monotonic() > end:
            raise RunError(
                f"Expected the first worker to create the run directory. Received: run={str(path)!r}, still missing "
                f"after {TIMEOUT:g} seconds. Use a disk that all workers share."
            )
        time.sleep(0.2)
    return follow(Run.open(path))


def follow(run: Run) -> Follower:
    """Return a run for a worker that writes nothing."""
    return Follower(Path(os.path.abspath(run.path)), run.recipe)
