"""How a model learns, from a recipe to a finished run. Reads top to bottom."""

from __future__ import annotations

import dataclasses
import os
import time
from typing import Any

import zoo
from training._build import build_model, compile_model, seeded
from training._callbacks import (
    Board,
    Clock,
    Display,
    Stopped,
    StopRequest,
    check_finite,
    check_weights,
    step_callback,
)
from training._checkpoint import Progress, load_checkpoint, load_weights, save_checkpoint
from training._files import write_atomic
from training._judge import judge, open_data
from training._open import open_pipeline
from training._pipeline import Pipeline
from training._recipe import Recipe
from training._run import Run, check_free, processor
from training._strategy import Device, check_divisible, open_device
from zoo._build import dtype_policy
from zoo._errors import TrainingError
from zoo._lazy import np


def train_new(recipe: Recipe, path: str | os.PathLike[str] | None, *, progress: bool = False) -> Run:
    """Train a recipe in a new run directory, which is made once data, devices and network are known to be good.

    Args:
        recipe: what to train.
        path: the directory to make; `runs/<recipe>/<time>-<4 hex>` if None.
        progress: show a progress bar, or a line an epoch where there is no terminal.

    Returns:
        The run, finished.

    Raises:
        TrainingError: the loss is not finite; the last good checkpoint stands.
        Stopped: SIGTERM or SIGINT came; the state is saved.
        RunError: the directory is not free, or the disk is full.
    """
    check_free(path)
    prepared = _prepare(recipe)
    return _train(Run.create(recipe, path, prepared[1].text), prepared, progress)


def resume_run(run: Run, *, progress: bool = False) -> Run:
    """Train what a run says from where its last checkpoint stands; a finished run is returned as it is."""
    return run if run.finished else _train(run, _prepare(run.recipe, run), progress)


def _train(run: Run, prepared: tuple[Device, Pipeline, Any], progress: bool) -> Run:
    with run.lock():
        session = Session(run, *prepared)
        with Display(run.recipe.name, run.recipe.epochs, session.pipeline.steps_per_epoch, progress) as display:
            session.train(display)
        session.finish()
    return run


def _prepare(recipe: Recipe, run: Run | None = None) -> tuple[Device, Pipeline, Any]:
    """Return the device, the data and the compiled model, its initial weights drawn from the seed."""
    device = open_device(recipe)
    pipeline = open_data(run) if run else open_pipeline(recipe, zoo.spec(recipe.model.name))
    check_divisible(pipeline.batch_size, device.replicas)
    with device.strategy.scope(), dtype_policy(device.precision), seeded(recipe.seed):
        model = build_model(recipe, pipeline)
        compile_model(model, recipe, pipeline, device.jit_compile)
        model.optimizer.build(model.trainable_variables)
    return device, pipeline, model


class Session:
    """One process training one run.

    Attributes:
        progress: where training stands.
    """

    def __init__(self, run: Run, device: Device, pipeline: Pipeline, model: Any) -> None:
        self.run, self.device, self.pipeline, self.model = run, device, pipeline, model
        self.recipe = run.recipe
        self.last, self.best = run.checkpoints / "last.safetensors", run.checkpoints / "best.safetensors"
        self.stop = StopRequest()
        self.progress = load_checkpoint(self.last, model) if self.last.is_file() else Progress()
        self.clock = Clock(self.progress.seconds)
        self._saved = time.monotonic()

    def train(self, display: Display) -> None:
        """Train until the last epoch, saving on the way."""
        if not self.last.is_file():
            # Whatever happens in the first epoch, there is something good to go back to.
            self._save()
        board = Board(self.run.tensorboard)
        try:
            with self.stop.listening():
                for epoch in range(self.progress.epoch, self.recipe.epochs):
                    row = self._epoch(epoch, display)
                    self.run.add_metrics(row)
                    board.add(row)
                    display.epoch(row)
                    self._end_epoch(row)
        except TrainingError as error:
            where = f"epoch {self.progress.epoch}, step {self.progress.step}"
            raise TrainingError(f"{error}. The last good checkpoint ({where}) stands: {self.last}") from error
        finally:
            board.close()

    def _epoch(self, epoch: int, display: Display) -> dict[str, Any]:
        """Train one epoch, or what is left of it, and validate; return its figures."""
        start, skip = time.monotonic(), self.progress.step
        history = self.model.fit(
            self.pipeline.train(epoch, skip),
            initial_epoch=epoch,
            epochs=epoch + 1,
            shuffle=False,
            verbose=0,
            callbacks=[step_callback(epoch, skip, self._restore_metrics, lambda step: self._end_step(step, display))],
        )
        trained = time.monotonic() - start
        figures = {name: float(values[-1]) for name, values in history.history.items()}
        validation = self.model.evaluate(self.pipeline.evaluate("validation"), return_dict=True, verbose=0)
        figures |= {f"val_{name}": float(value) for name, value in validation.items()}
        check_finite(figures["val_loss"], self.model, epoch, self.pipeline.steps_per_epoch)
        examples = (self.pipeline.steps_per_epoch - skip) * self.pipeline.batch_size
        return {
            "epoch": epoch + 1,
            **figures,
            "learning_rate": float(np.asarray(self.model.optimizer.learning_rate)),
            "images_per_second": examples / trained,
            "seconds": self.clock.seconds,
        }

    def _restore_metrics(self) -> None:
        """Bring back the running means of an interrupted epoch, which Keras has just reset."""
        if self.progress.step:
            load_checkpoint(self.last, self.model)

    def _end_step(self, step: int, display: Display) -> None:
        """Show, save when it is time, and stop when asked."""
        display.step(self.progress.epoch, step)
        due = time.monotonic() - self._saved > self.recipe.checkpoint_seconds
        # The end of an epoch has a checkpoint of its own, after validation.
        if (due or self.stop.signal) and step < self.pipeline.steps_per_epoch:
            check_weights(self.model, self.progress.epoch, step)
            self._save(step=step)
        if self.stop.signal and step < self.pipeline.steps_per_epoch:
            self._raise_stopped()

    def _end_epoch(self, row: dict[str, Any]) -> None:
        """Save; as the best if it is."""
        check_weights(self.model, self.progress.epoch, self.pipeline.steps_per_epoch)
        better = row["val_accuracy"] >= self.progress.best
        best = {"best": row["val_accuracy"], "best_epoch": row["epoch"]} if better else {}
        advanced = dataclasses.replace(self.progress, epoch=row["epoch"], step=0, **best)
        if better:
            save_checkpoint(self.best, self.model, advanced)
        self._save(epoch=row["epoch"], step=0, **best)
        if self.stop.signal and row["epoch"] < self.recipe.epochs:
            self._raise_stopped()

    def _save(self, **changed: Any) -> None:
        """Write the last checkpoint."""
        progress = dataclasses.replace(self.progress, seconds=self.clock.seconds, **changed)
        save_checkpoint(self.last, self.model, progress)
        self.progress, self._saved = progress, time.monotonic()

    def _raise_stopped(self) -> None:
        raise Stopped(
            f"Stopped after epoch {self.progress.epoch}, step {self.progress.step}; nothing is lost. "
            f"Go on with: zoo train --resume {self.run.path}",
            code=128 + self.stop.signal,
        )

    def finish(self) -> None:
        """Keep the chosen weights as the model, judge them on the test split, and close the run."""
        if self.recipe.keep == "best":
            load_weights(self.best, self.model)
        write_atomic(self.run.model_path, lambda path: self.model.save(path, include_optimizer=False))
        split = "test" if "test" in self.pipeline.dataset.splits else "validation"
        self.run.finish({"test": {"split": split, **judge(self.model, self.pipeline, split)}, **self._facts()})

    def _facts(self) -> dict[str, Any]:
        """Return what export and report need to know of the data and the training."""
        splits = {name: split.count for name, split in self.pipeline.dataset.splits.items()}
        return {
            "best": {"val_accuracy": self.progress.best, "epoch": self.progress.best_epoch},
            "seconds": self.progress.seconds,
            "parameters": int(sum(np.prod(w.shape) for w in self.model.trainable_weights)),
            "task": self.pipeline.dataset.task,
            "labels": list(self.pipeline.dataset.labels),
            "input_shape": list(self.pipeline.shape),
            "preprocessing": self.pipeline.contract.to_json(),
            "splits": splits,
            "precision": self.device.precision,
            "strategy": self.device.name,
            "replicas": self.device.replicas,
            "processor": processor(),
        }
