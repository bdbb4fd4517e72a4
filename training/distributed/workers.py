"""Processes that train together: the chief writes, the others look on; one that is lost ends them all."""

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

# How long the others wait for the chief's run directory, which it makes once they all are ready; a disk may be slow.
PATIENCE = 120.0


class WorkerLost(RunError):
    """Another worker ended, or cannot be reached; all of them can go on from the last checkpoint."""

    # sysexits.h: a failure that may be over when it is tried again.
    code = 75


@contextlib.contextmanager
def together(worker: int, workers: int) -> Iterator[None]:
    """Raise WorkerLost where another worker than this one of so many cannot be reached."""
    try:
        yield
    except (tf.errors.ResourceExhaustedError, tf.errors.InvalidArgumentError):
        raise
    except tf.errors.OpError as error:
        reason = " ".join(str(error.message).split())[:160]
        raise WorkerLost(
            f"Another worker is gone, or cannot be reached. Received: worker {worker} of {workers}: "
            f"{reason}. Start all of them again, with --resume once the run is there."
        ) from error


@dataclasses.dataclass(frozen=True)
class MultiWorker(Replicated):
    """The devices of several processes."""

    # They have to go through an evaluation together.
    interruptible: bool = False

    def running(self) -> contextlib.AbstractContextManager[None]:
        """Return the context in which WorkerLost is raised where another worker cannot be reached."""
        return together(self.worker, self.workers)


class Follower(Run):
    """A run directory in the eyes of a worker that writes nothing: what it would add it keeps for itself."""

    writes = False

    def __init__(self, path: Path, recipe: Any) -> None:
        super().__init__(path, recipe)
        self._rows = super().metrics()

    def metrics(self) -> list[dict[str, Any]]:
        """Return one row an epoch: those of before, and those that this worker computed, which are the chief's."""
        return list(self._rows)

    def add_metrics(self, row: dict[str, Any]) -> None:
        """Keep the row of an epoch in mind."""
        self._rows = [r for r in self._rows if r["epoch"] < row["epoch"]] + [row]

    def add_diagnostics(self, row: dict[str, Any]) -> None:
        """Leave it to the chief."""

    def finish(self, result: dict[str, Any]) -> None:
        """Leave it to the chief."""

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Leave it to the chief."""
        yield


def wait_for_run(path: str | os.PathLike[str]) -> Follower:
    """Return the run that the chief makes, as soon as it is there; raises RunError if it does not come."""
    end = time.monotonic() + PATIENCE
    while not (Path(path) / "recipe.json").is_file():
        if time.monotonic() > end:
            raise RunError(
                f"Expected the run directory that the first worker makes. Received: run={str(path)!r}, where nothing "
                f"came in {PATIENCE:g} seconds. All workers need one disk."
            )
        time.sleep(0.2)
    return follow(Run.open(path))


def follow(run: Run) -> Follower:
    """Return a run as a worker that writes nothing has it."""
    return Follower(Path(os.path.abspath(run.path)), run.recipe)
