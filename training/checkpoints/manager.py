"""What is kept on disk while a run trains: its two newest checkpoints and its best, and when the next one is due."""

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

    A new one is written aside, synced, and takes the place of `last`, which becomes `previous`: at any moment at least
    one of the two is whole.

    Args:
        run: the run.
        writes: whether this process writes. One that does not takes part in all the same: reading a variable may need
            every worker.

    Attributes:
        last: the newest checkpoint.
        previous: the one before it.
        best: the one whose weights were the best.
        writing: whether one is being written.
        damage: what was wrong with the last one, where that was gone on from which came before; else "".
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
    def begun(self) -> bool:
        """Whether there is something to go on from."""
        return self.last.is_file() or self.previous.is_file()

    def load(self, model: Any) -> Progress:
        """Put the newest whole checkpoint into a compiled model, and say so if it is not the last; leave it if none is.

        Raises:
            RunError: neither can be read, or they are of another model.
        """
        if self._chosen is None and not self.begun:
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
            if not self.previous.is_file():
                raise
            broken = error
        try:
            progress = load_checkpoint(self.previous, model)
        except DamagedCheckpoint as error:
            raise RunError(f"Neither checkpoint of this run can be read. {broken}; {error}. Train anew.") from error
        self._chosen = self.previous
        where = f"epoch {progress.epoch}, step {progress.step}"
        self.damage = f"{broken}. Going on from the one before it, {where}: {self.previous}"
        if self.writes:
            warnings.warn(self.damage, stacklevel=2)
        return progress

    def due(self, step: int) -> bool:
        """Tell whether it is time for a checkpoint.

        Args:
            step: steps completed in the whole training, in this session and before.
        """
        every = self._recipe.checkpoint_steps
        if every and step % every == 0:
            return True
        return time.monotonic() - self._saved > self._recipe.checkpoint_seconds

    def save(self, model: Any, progress: Progress) -> None:
        """Write the newest checkpoint; raises RunError, and then those that were there are as they were."""
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
        """Keep the last checkpoint as the one before; not a damaged one."""
        if self._chosen == self.previous or not self.last.is_file():
            return
        beside = self.last.with_name(f".writing-{os.getpid()}-{self.previous.name}")
        try:
            # A second name for the same file: at no moment is there no last one.
            os.link(self.last, beside)
            os.replace(beside, self.previous)
        except OSError:
            with contextlib.suppress(FileNotFoundError):
                beside.unlink()
            os.replace(self.last, self.previous)


def read_all(model: Any) -> None:
    """Read every variable that a checkpoint holds, in its order, as those who write do."""
    for variable in (*model.variables, *model.optimizer.variables, *model.metrics_variables):
        np.asarray(variable)
