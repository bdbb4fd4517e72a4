"""Save the two newest checkpoints and the best of a run, and schedule the next one."""

from __future__ import annotations

import contextlib
import os
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from training.checkpoints.files import DamagedCheckpoint, Progress, load_checkpoint, save_checkpoint
from training.runs.run import Run
from zoo.common.errors import RunError
from zoo.common.lazy import np


class CheckpointManager:
    """The checkpoints of a run.

    A new checkpoint is written to a temporary file, synced, and replaces `last`, which becomes `previous`: at least one
    of the two is complete at any moment.

    Args:
        run: the run.
        writes: whether this process writes. Other processes call the same methods: reading a variable may need every
            worker.

    Attributes:
        last: the newest checkpoint.
        previous: the checkpoint before it.
        best: the checkpoint with the best weights.
        writing: whether a checkpoint is being written.
        damage: a description of the damaged last checkpoint if training resumed from the previous one; else "".
    """

    def __init__(self, run: Run, *, writes: bool = True) -> None:
        folder = run.checkpoints
        self.last, self.previous, self.best = (folder / f"{n}.safetensors" for n in ("last", "previous", "best"))
        self.writes, self.writing = writes, False
        self._run, self._recipe = run, run.recipe
        self.damage = ""
        self._chosen: Path | None = None
        self._saved = time.monotonic()

    @property
    def exists(self) -> bool:
        """Whether there is a checkpoint to resume from, readable or not."""
        return os.path.lexists(self.last) or os.path.lexists(self.previous)

    def load(self, model: Any) -> Progress:
        """Load the newest undamaged checkpoint, if there is one, into a compiled model; warn if it is not the last.

        Raises:
            RunError: neither checkpoint can be read, or they belong to another model.
        """
        if self._chosen is None and not self.exists:
            return Progress()
        if self._chosen:
            return load_checkpoint(self._chosen, model)
        progress = self._load_newest(model)
        self._chosen = self._chosen or self.last
        return progress

    def _load_newest(self, model: Any) -> Progress:
        try:
            return load_checkpoint(self.last, model)
        except DamagedCheckpoint as error:
            if not os.path.lexists(self.previous):
                raise
            broken = error
        try:
            progress = load_checkpoint(self.previous, model)
        except DamagedCheckpoint as error:
            raise RunError(f"Expected one readable checkpoint. Received: {broken} {error} Train again.") from error
        self._chosen = self.previous
        where = f"epoch {progress.epoch}, step {progress.step}"
        self.damage = f"{broken} Resuming from the previous checkpoint, {where}: {self.previous}"
        if self.writes:
            warnings.warn(self.damage, stacklevel=2)
        return progress

    def is_scheduled(self, step: int) -> bool:
        """Return whether a checkpoint is scheduled after a step.

        Args:
            step: completed steps of the whole training, over all sessions.
        """
        every = self._recipe.checkpoint_steps
        if every and step % every == 0:
            return True
        return time.monotonic() - self._saved > self._recipe.checkpoint_seconds

    def save(self, model: Any, progress: Progress) -> None:
        """Write the newest checkpoint; raises RunError and leaves the existing ones unchanged if that fails."""
        self._write(self.last, model, progress, self._rotate)
        self._chosen, self._saved = self.last, time.monotonic()

    def save_best(self, model: Any, progress: Progress) -> None:
        """Write the checkpoint of the best weights."""
        self._write(self.best, model, progress)

    def _write(self, path: Path, model: Any, progress: Progress, before: Callable[[], None] = lambda: None) -> None:
        if not self.writes:
            read_all(model)
            return
        self.writing = True
        try:
            save_checkpoint(path, model, progress, before=before)
        finally:
            self.writing = False

    def _rotate(self) -> None:
        """Rename the last checkpoint to the previous one, unless it is damaged."""
        if self._chosen == self.previous or not self.last.is_file():
            return
        linked = self.last.with_name(f".writing-{os.getpid()}-{self.previous.name}")
        try:
            # A hard link: the last checkpoint exists at every moment.
            os.link(self.last, linked)
            os.replace(linked, self.previous)
        except OSError:
            with contextlib.suppress(FileNotFoundError):
                linked.unlink()
            os.replace(self.last, self.previous)


def read_all(model: Any) -> None:
    """Read every variable of a checkpoint in its order, as the process that writes does."""
    for variable in (*model.variables, *model.optimizer.variables, *model.metrics_variables):
        np.asarray(variable)
