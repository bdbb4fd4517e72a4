"""How a model learns, from a recipe to a finished run. Reads top to bottom."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import time
from collections.abc import Callable
from typing import Any

from training.checkpoints.files import load_weights
from training.checkpoints.manager import CheckpointManager
from training.common.callbacks import Clock, step_callback
from training.common.finite import check_finite, check_weights
from training.common.stopping import Interrupted, Stopped, StopRequest
from training.data.pipeline.opening import training_statistics
from training.data.pipeline.pipeline import Pipeline
from training.distributed.device import Device
from training.distributed.strategy import check_together
from training.distributed.workers import follow, wait_for_run
from training.learning.build import build_model
from training.learning.eval_resolution import look
from training.learning.evaluation import judge
from training.learning.tasks import TASKS
from training.monitor.misclassified import show_mistakes
from training.monitor.nan_debug import find_first
from training.monitor.progress import Display
from training.monitor.tensorboard import Board
from training.monitor.watch import Watch
from training.optim.ema import averaged, put_average
from training.optim.lbfgs import Step, is_asked, minimize
from training.preemption import rescue, where_stopped
from training.prepare import prepare
from training.recipe.recipe import Recipe
from training.runs.run import Run, check_free, processor
from zoo.common.errors import TrainingError
from zoo.common.files import write_atomic
from zoo.common.lazy import np

# Told the row of an epoch once its checkpoint is written; what it raises ends the training there.
Observer = Callable[[dict[str, Any]], None]


def train_new(
    recipe: Recipe,
    path: str | os.PathLike[str] | None,
    *,
    progress: bool = False,
    observe: Observer | None = None,
    split: str = "test",
) -> Run:
    """Train a recipe in a new run directory, which is made once data, devices and network are known to be good.

    Args:
        recipe: what to train.
        path: the directory to make; `runs/<recipe>/<time>-<4 hex>` if None.
        progress: show a progress bar, or a line an epoch where there is no terminal.
        observe: called with the row of each epoch.
        split: what the model is judged on in the end, if the data has it; else "validation".

    Returns:
        The run, finished.

    Raises:
        TrainingError: the loss is not finite; the last good checkpoint stands.
        Stopped: SIGTERM or SIGINT came; the state is saved.
        RunError: the directory is not free, or the disk is full.
    """
    check_together(recipe, path)
    check_free(path)
    prepared = prepare(recipe)
    if prepared[0].chief:
        run = Run.create(recipe, path, prepared[1].text, training_statistics(prepared[1]))
    else:
        run = wait_for_run(path)
    return _train(run, prepared, progress=progress, observe=observe, split=split)


def resume_run(run: Run, *, progress: bool = False, observe: Observer | None = None, split: str = "test") -> Run:
    """Train what a run says from where its last checkpoint stands; a finished run is returned as it is."""
    if run.finished:
        return run
    run.check_backend()
    prepared = prepare(run.recipe, run)
    return _train(run if prepared[0].chief else follow(run), prepared, progress=progress, observe=observe, split=split)


def _train(
    run: Run, prepared: tuple[Device, Pipeline, Any, Any], *, progress: bool, observe: Observer | None, split: str
) -> Run:
    device, pipeline, *_ = prepared
    with run.lock(), device.running():
        session = Session(run, *prepared)
        with Display(
            run.recipe.name,
            run.recipe.epochs,
            pipeline.steps_per_epoch,
            pipeline.batch_size,
            progress and device.chief,
        ) as display:
            session.train(display, observe if device.chief else None)
        if device.chief:
            session.finish(split)
        device.barrier()
    return run


class Session:
    """One process training one run.

    Attributes:
        progress: where the last checkpoint stands.
        reached: steps completed in the epoch under way.
    """

    def __init__(self, run: Run, device: Device, pipeline: Pipeline, model: Any, view: Any) -> None:
        self.run, self.device, self.pipeline, self.model, self.view = run, device, pipeline, model, view
        self.recipe = run.recipe
        self.keeper = CheckpointManager(run, writes=device.chief)
        self.stop = StopRequest()
        self.board = Board(run.tensorboard, writes=device.chief)
        self.watch = Watch(run, model, device, self.board, pipeline)
        self.progress = self.keeper.load(model)
        self.reached = self.progress.step
        self.watch.begin(self.progress, self.keeper.damage)
        self.clock = Clock(self.progress.seconds)
        self.ended = "epochs"
        self.fresh = not self.keeper.begun
        # All have read what there is before the first of them writes.
        device.barrier()

    def train(self, display: Display, observe: Observer | None) -> None:
        """Train until the last epoch, saving on the way."""
        if self.fresh:
            # Whatever happens in the first epoch, there is something good to go back to.
            self.save()
        try:
            with self.stop.listening(), rescue(self):
                learn = self._iterate if is_asked(self.recipe) else self._pass
                self.ended = learn(display, observe)
        except TrainingError as error:
            first = self._first()
            self.watch.failed(f"{error}. {first}".rstrip(". "))
            where = f"epoch {self.progress.epoch}, step {self.progress.step}"
            good = f"The last good checkpoint ({where}) stands: {self.keeper.last}"
            raise TrainingError(". ".join(filter(None, (str(error), first, good)))) from error
        finally:
            self.board.close()

    def _first(self) -> str:
        """Return a sentence on what was not finite first, "" where that cannot be found."""
        if not self.device.repeatable or is_asked(self.recipe):
            return ""
        return find_first(self.model, self.pipeline, self.keeper.load(self.model))

    def _pass(self, display: Display, observe: Observer | None) -> str:
        """Go through the data batch by batch, epoch after epoch; return why training ended."""
        for epoch in range(self.progress.epoch, self.recipe.epochs):
            if self._out_of_patience():
                return "patience"
            try:
                row = self._epoch(epoch, display)
            except Interrupted:
                check_weights(self.model, epoch, self.reached)
                self.save(step=self.reached)
                self._raise_stopped()
            self._end_epoch(row, display, observe)
        return "epochs"

    def _iterate(self, display: Display, observe: Observer | None) -> str:
        """Take the iterations of L-BFGS, each as an epoch; return why training ended."""
        left, batch = self.recipe.epochs - self.progress.epoch, next(iter(self.pipeline.train(0)))
        before, start = 0, time.monotonic()

        def after(step: Step) -> bool:
            nonlocal before, start
            figures = self.model.evaluate(*batch, batch_size=self.pipeline.batch_size, return_dict=True, verbose=0)
            passes, before, spent, start = step.passes - before, step.passes, time.monotonic() - start, time.monotonic()
            figures |= {"loss": step.loss, "passes": passes}
            row = self._row(self.progress.epoch, figures, spent, passes * self.pipeline.batch_size)
            self._end_epoch(row, display, observe)
            return self._out_of_patience()

        return minimize(self.model, batch, left, after) if left and not self._out_of_patience() else "epochs"

    def _epoch(self, epoch: int, display: Display) -> dict[str, Any]:
        """Train one epoch, or what is left of it, and validate; return its figures."""
        start, skip, self.watch.feed.waited = time.monotonic(), self.progress.step, 0.0
        self.reached = skip
        display.begin(skip)
        figures = self._fit(epoch, skip, display) if skip < self.pipeline.steps_per_epoch else self._trained()
        trained = time.monotonic() - start
        examples = (self.pipeline.steps_per_epoch - skip) * self.pipeline.batch_size
        return self._row(epoch, figures, trained, examples)

    def _trained(self) -> dict[str, float]:
        """Return the figures of an epoch that was left off while it was validated."""
        self._restore_metrics()
        return {name: float(value) for name, value in self.model.get_metrics_result().items()}

    def _fit(self, epoch: int, skip: int, display: Display) -> dict[str, float]:
        steps = step_callback(
            epoch, skip, self._restore_metrics, lambda step, logs: self._end_step(step, logs, display)
        )
        return self.device.fit(self.model, self.pipeline, epoch, skip, [self.watch.callback(epoch, skip), steps])

    def _row(self, epoch: int, figures: dict[str, Any], trained: float, examples: int) -> dict[str, Any]:
        """Validate, and return the figures of an epoch (from 0).

        Args:
            epoch: the epoch.
            figures: those of training.
            trained: seconds that it took.
            examples: how many were looked at.
        """
        with averaged(self.model):
            judged = look(self.view, self.model) if self.view else self.model
            # Those of L-BFGS are as short as its steps, which nothing goes on from in between.
            whole = is_asked(self.recipe) or not self.device.interruptible
            with contextlib.nullcontext() if whole else self.stop.interruptible(self.model):
                validation = self.device.evaluate(judged, self.pipeline, "validation")
        figures |= {f"val_{name}": float(value) for name, value in validation.items()}
        check_finite(figures["val_loss"], self.model, epoch, self.pipeline.steps_per_epoch)
        return {
            "epoch": epoch + 1,
            **figures,
            "learning_rate": float(np.asarray(self.model.optimizer.learning_rate)),
            "images_per_second": examples / trained,
            "data_wait": min(1.0, self.watch.feed.waited / trained),
            "seconds": self.clock.seconds,
        }

    def _restore_metrics(self) -> None:
        """Bring back the running means of an interrupted epoch, which Keras has just reset."""
        if self.progress.step:
            self.keeper.load(self.model)

    def _end_step(self, step: int, logs: dict[str, Any], display: Display) -> None:
        """Show, save when it is time, and stop when asked."""
        self.reached = step
        display.step(self.progress.epoch, step, logs, self.watch.feed.waited)
        due = self.keeper.due(self.progress.epoch * self.pipeline.steps_per_epoch + step)
        stop, due = self.device.agree(self.stop.signal, due)
        if due or stop:
            check_weights(self.model, self.progress.epoch, step)
            self.save(step=step)
        if stop:
            self._raise_stopped(stop)

    def _end_epoch(self, row: dict[str, Any], display: Display, observe: Observer | None) -> None:
        """Tell the figures, and save; as the best if it is."""
        self.run.add_metrics(row)
        self.board.add(row)
        self.board.histograms(self.model, row["epoch"], self.recipe.log.histograms)
        display.epoch(row)
        check_weights(self.model, self.progress.epoch, self.pipeline.steps_per_epoch)
        figure, sign = TASKS[self.pipeline.dataset.task].best
        # Before the first epoch there is nothing to be better than; a loss has no bound that would say so.
        better = not self.progress.best_epoch or sign * (row[figure] - self.progress.best) >= 0
        best = {"best": row[figure], "best_epoch": row["epoch"]} if better else {}
        advanced = dataclasses.replace(self.progress, epoch=row["epoch"], step=0, **best)
        if better:
            with averaged(self.model):
                self.keeper.save_best(self.model, advanced)
        self.save(epoch=row["epoch"], step=0, **best)
        stop, _ = self.device.agree(self.stop.signal, False, now=True)
        if stop and row["epoch"] < self.recipe.epochs:
            self._raise_stopped(stop)
        if observe:
            observe(row)

    def _out_of_patience(self) -> bool:
        """Tell whether so many epochs went by without a better figure that training is to end."""
        figure, sign = TASKS[self.pipeline.dataset.task].best
        # Those of a killed process that came after its last checkpoint do not count.
        figures = [sign * row[figure] for row in self.run.metrics() if row["epoch"] <= self.progress.epoch]
        patience = self.recipe.regularize.patience
        # Equal is not better: a figure that has reached its bound would never end the training.
        return bool(patience and figures) and len(figures) - 1 - figures.index(max(figures)) >= patience

    def save(self, **changed: Any) -> None:
        """Write the last checkpoint."""
        progress = dataclasses.replace(self.progress, seconds=self.clock.seconds, **changed)
        self.keeper.save(self.model, progress)
        self.progress = progress

    def _raise_stopped(self, signal: int = 0) -> None:
        raise Stopped(where_stopped(self), code=128 + (signal or self.stop.signal))

    def finish(self, split: str = "test") -> None:
        """Keep the chosen weights as the model, judge them on a split, and close the run."""
        if self.recipe.keep == "best":
            # Written with the mean weights in place, where there is a mean.
            load_weights(self.keeper.best, self.model)
        else:
            put_average(self.model)
        kept = look(self.view, self.model)
        write_atomic(self.run.model_path, lambda path: kept.save(path, include_optimizer=False))
        self.device.save_reference_logits(self.run, self.pipeline, lambda: build_model(self.recipe, self.pipeline))
        show_mistakes(kept, self.pipeline, self.board, self.recipe)
        self.board.close()
        split = split if split in self.pipeline.dataset.splits else "validation"
        self.run.finish({"test": {"split": split, **judge(kept, self.pipeline, split)}, **self._facts(kept)})

    def _facts(self, kept: Any) -> dict[str, Any]:
        """Return what export and report need to know of the data and the training."""
        splits = {name: split.count for name, split in self.pipeline.dataset.splits.items()}
        return {
            "best": {TASKS[self.pipeline.dataset.task].best[0]: self.progress.best, "epoch": self.progress.best_epoch},
            "seconds": self.progress.seconds,
            "epochs": self.progress.epoch,
            "ended": self.ended,
            "parameters": int(sum(np.prod(w.shape) for w in kept.trainable_weights)),
            "task": self.pipeline.dataset.task,
            "labels": list(self.pipeline.dataset.labels),
            "input_shape": list(self.pipeline.shape),
            "preprocessing": self.pipeline.preprocessing.to_json(),
            "splits": splits,
            "precision": self.device.precision,
            "strategy": self.device.name,
            "backend": self.device.backend,
            "replicas": self.device.replicas,
            "workers": self.device.workers,
            "processor": processor(),
        }
