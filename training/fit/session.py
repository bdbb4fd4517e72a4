"""One process that trains one run: epochs, checkpoints, metrics and the final model."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Callable
from typing import Any

from training.checkpoints.files import load_weights
from training.checkpoints.manager import CheckpointManager
from training.common.callbacks import Clock, step_callback
from training.common.finite import check_finite, check_weights
from training.common.stopping import Interrupted, Stopped, StopRequest
from training.data.pipeline.pipeline import Pipeline
from training.data.pretrained import with_data
from training.distributed.device import Device
from training.fit.preemption import describe_stop, handle_preemption
from training.fit.stages import Stages
from training.learning.build import build_model
from training.learning.eval_resolution import evaluation_model
from training.learning.evaluation import evaluate_model
from training.learning.tasks import TASKS
from training.monitor.misclassified import show_misclassified
from training.monitor.nan_debug import find_first
from training.monitor.progress import ProgressDisplay
from training.monitor.step_monitor import StepMonitor
from training.monitor.tensorboard import TensorBoardWriter
from training.optim.ema import assign_averages, averaged_weights
from training.optim.lbfgs import Iteration, is_lbfgs, minimize
from training.runs.environment import processor
from training.runs.run import Run
from zoo.common.errors import TrainingError
from zoo.common.files import write_atomic
from zoo.common.lazy import np

# Receives the row of an epoch once its checkpoint is written; an exception ends the training there.
Observer = Callable[[dict[str, Any]], None]


class Session:
    """One process that trains one run.

    Attributes:
        progress: the progress of the last checkpoint.
        steps_done: completed steps of the current epoch.
    """

    def __init__(self, run: Run, device: Device, pipeline: Pipeline, model: Any, resized: Any) -> None:
        self.run, self.device, self.pipeline, self.model, self.resized = run, device, pipeline, model, resized
        self.recipe, self.task = run.recipe, TASKS[pipeline.dataset.task]
        self.checkpoints = CheckpointManager(run, writes=device.chief)
        self.stop = StopRequest()
        self.board = TensorBoardWriter(run.tensorboard, writes=device.chief)
        self.monitor = StepMonitor(run, model, device, self.board, pipeline)
        self.stages = Stages(self.recipe, model, pipeline, device)
        self.progress = self.checkpoints.load(model)
        self.steps_done = self.progress.step
        self.monitor.start(self.progress, self.checkpoints.damage)
        self.clock = Clock(self.progress.seconds)
        self.ended = "epochs"
        self.is_new = not self.checkpoints.exists
        # All workers read the checkpoint before the first of them writes.
        device.barrier()

    def train(self, display: ProgressDisplay, observe: Observer | None) -> None:
        """Train until the last epoch, and save checkpoints."""
        if self.is_new:
            # A failure in the first epoch leaves a checkpoint to resume from.
            self.save()
        try:
            with self.stop.listening(), handle_preemption(self):
                fit = self._fit_full_batch if is_lbfgs(self.recipe) else self._fit_epochs
                self.ended = fit(display, observe)
        except TrainingError as error:
            first = self._first_not_finite()
            self.monitor.record_failure(f"{error}. {first}".rstrip(". "))
            where = f"epoch {self.progress.epoch}, step {self.progress.step}"
            last = f"Last good checkpoint ({where}): {self.checkpoints.last}"
            raise TrainingError(". ".join(filter(None, (str(error), first, last)))) from error
        finally:
            self.board.close()

    def _first_not_finite(self) -> str:
        """Return a sentence on the first value that is not finite, "" if it cannot be found."""
        if not self.device.repeatable or is_lbfgs(self.recipe):
            return ""
        progress = self.checkpoints.load(self.model)
        self.stages.leave()
        self.stages.enter(progress.epoch, progress.step)
        return find_first(self.model, self.stages.pipeline, progress)

    def _fit_epochs(self, display: ProgressDisplay, observe: Observer | None) -> str:
        """Train on batches, epoch after epoch; return why training ended."""
        for epoch in range(self.progress.epoch, self.recipe.epochs):
            if self._is_out_of_patience():
                return "patience"
            if line := self.stages.enter(epoch, self.progress.step):
                display.note(line)
            try:
                row = self._epoch(epoch, display)
            except Interrupted:
                check_weights(self.model, epoch, self.steps_done)
                self.save(step=self.steps_done)
                self._raise_stopped()
            self._end_epoch(row, display, observe)
        return "epochs"

    def _fit_full_batch(self, display: ProgressDisplay, observe: Observer | None) -> str:
        """Train by iterations of L-BFGS, each as an epoch; return why training ended."""
        remaining, batch = self.recipe.epochs - self.progress.epoch, next(iter(self.pipeline.train(0)))
        before, start = 0, time.monotonic()

        def after(iteration: Iteration) -> bool:
            nonlocal before, start
            metrics = self.model.evaluate(*batch, batch_size=self.pipeline.batch_size, return_dict=True, verbose=0)
            passes, before = iteration.passes - before, iteration.passes
            spent, start = time.monotonic() - start, time.monotonic()
            metrics |= {"loss": iteration.loss, "passes": passes}
            row = self._row(self.progress.epoch, metrics, spent, passes * self.pipeline.batch_size)
            self._end_epoch(row, display, observe)
            return self._is_out_of_patience()

        if not remaining or self._is_out_of_patience():
            return "epochs"
        return minimize(self.model, batch, remaining, after)

    def _epoch(self, epoch: int, display: ProgressDisplay) -> dict[str, Any]:
        """Train one epoch, or the rest of it, and validate; return its metrics."""
        start, skip, self.monitor.feed.waited = time.monotonic(), self.progress.step, 0.0
        self.steps_done = skip
        display.start_epoch(skip)
        metrics = self._fit(epoch, skip, display) if skip < self.pipeline.steps_per_epoch else self._trained_metrics()
        spent = time.monotonic() - start
        examples = (self.pipeline.steps_per_epoch - skip) * self.pipeline.batch_size
        return self._row(epoch, metrics, spent, examples)

    def _trained_metrics(self) -> dict[str, float]:
        """Return the training metrics of an epoch that was interrupted in its validation."""
        self._restore_metrics()
        return {name: float(value) for name, value in self.model.get_metrics_result().items()}

    def _fit(self, epoch: int, skip: int, display: ProgressDisplay) -> dict[str, float]:
        steps = step_callback(
            epoch, skip, self._restore_metrics, lambda step, logs: self._end_step(step, logs, display)
        )
        pipeline = self.stages.pipeline
        return self.device.fit(self.model, pipeline, epoch, skip, [self.monitor.callback(epoch, skip), steps])

    def _row(self, epoch: int, metrics: dict[str, Any], spent: float, examples: int) -> dict[str, Any]:
        """Validate, and return the metrics of an epoch (from 0).

        Args:
            epoch: the epoch.
            metrics: the training metrics.
            spent: seconds spent training.
            examples: number of training examples.
        """
        with averaged_weights(self.model):
            evaluated = evaluation_model(self.resized, self.model) if self.resized else self.model
            pipeline = self.pipeline if self.resized else self.stages.pipeline
            # An iteration of L-BFGS cannot be resumed halfway; its validation is as short as it.
            whole = is_lbfgs(self.recipe) or not self.device.interruptible
            with contextlib.nullcontext() if whole else self.stop.interruptible(self.model):
                validation = self.device.evaluate(evaluated, pipeline, "validation")
        metrics |= {f"val_{name}": float(value) for name, value in validation.items()}
        check_finite(metrics["val_loss"], self.model, epoch, self.pipeline.steps_per_epoch)
        return {
            "epoch": epoch + 1,
            **metrics,
            "learning_rate": float(np.asarray(self.model.optimizer.learning_rate)),
            "images_per_second": examples / spent,
            "data_wait": min(1.0, self.monitor.feed.waited / spent),
            "seconds": self.clock.seconds,
        }

    def _restore_metrics(self) -> None:
        """Restore the running means of an interrupted epoch, which Keras has just reset."""
        if self.progress.step:
            self.checkpoints.load(self.model)

    def _end_step(self, step: int, logs: dict[str, Any], display: ProgressDisplay) -> None:
        """Update the display, save a scheduled checkpoint, and stop on request."""
        self.steps_done = step
        display.step(self.progress.epoch, step, logs, self.monitor.feed.waited)
        save = self.checkpoints.is_scheduled(self.progress.epoch * self.pipeline.steps_per_epoch + step)
        stop, save = self.device.synchronize(self.stop.signal, save)
        if save or stop:
            check_weights(self.model, self.progress.epoch, step)
            self.save(step=step)
        if stop:
            self._raise_stopped(stop)

    def _end_epoch(self, row: dict[str, Any], display: ProgressDisplay, observe: Observer | None) -> None:
        """Record the metrics of an epoch and save checkpoints, also the best."""
        self.run.add_metrics(row)
        self.board.add(row)
        self.board.histograms(self.model, row["epoch"], self.recipe.log.histograms)
        display.epoch(row)
        check_weights(self.model, self.progress.epoch, self.pipeline.steps_per_epoch)
        metric, sign = self.task.best
        # The initial value of `best` is a bound of an accuracy, but not of a loss.
        better = not self.progress.best_epoch or sign * (row[metric] - self.progress.best) >= 0
        best = {"best": row[metric], "best_epoch": row["epoch"]} if better else {}
        advanced = dataclasses.replace(self.progress, epoch=row["epoch"], step=0, **best)
        if better:
            with averaged_weights(self.model):
                self.checkpoints.save_best(self.model, advanced)
        self.save(epoch=row["epoch"], step=0, **best)
        stop, _ = self.device.synchronize(self.stop.signal, False, wait=True)
        if stop and row["epoch"] < self.recipe.epochs:
            self._raise_stopped(stop)
        if observe:
            observe(row)

    def _is_out_of_patience(self) -> bool:
        """Return whether the last `regularize.patience` epochs, all of the last stage, brought no better metric."""
        metric, sign = self.task.best
        # Rows of a killed process after its last checkpoint do not count.
        values = [sign * row[metric] for row in self.run.metrics() if row["epoch"] <= self.progress.epoch]
        patience = self.recipe.regularize.patience
        # An equal value is not better: a metric at its bound would never end the training.
        return (
            bool(patience and values) and len(values) - max(self.stages.last, values.index(max(values)) + 1) >= patience
        )

    def save(self, **changes: Any) -> None:
        """Write the last checkpoint."""
        progress = dataclasses.replace(self.progress, seconds=self.clock.seconds, **changes)
        self.checkpoints.save(self.model, progress)
        self.progress = progress

    def _raise_stopped(self, signal: int = 0) -> None:
        raise Stopped(describe_stop(self), code=128 + (signal or self.stop.signal))

    def finish(self, split: str = "test") -> None:
        """Save the selected weights as the model, evaluate it on a split, and mark the run as finished."""
        self.stages.leave()
        if self.recipe.save == "best":
            # The best checkpoint contains averaged weights, if there is an average.
            load_weights(self.checkpoints.best, self.model)
        else:
            assign_averages(self.model)
        model = evaluation_model(self.resized, self.model)
        described = self._described(model)
        write_atomic(self.run.model_path, lambda path: described.save(path, include_optimizer=False), parents=False)
        self.device.save_reference_logits(self.run, self.pipeline, lambda: build_model(self.recipe, self.pipeline))
        show_misclassified(model, self.pipeline, self.board, self.recipe)
        self.board.close()
        split = split if split in self.pipeline.dataset.splits else "validation"
        self.run.finish({"test": evaluate_model(model, self.pipeline, split).to_json(), **self._metadata(model)})

    def _described(self, model: Any) -> Any:
        """Return the model to save, with what its file says of the data."""
        data = self.pipeline
        preprocessing = None if data.text else data.preprocessing
        return with_data(model, preprocessing, tuple(data.dataset.labels), data.pretrained, data.text)

    def _outputs(self) -> dict[str, Any]:
        """Return what exports state of the outputs of a model for several targets."""
        outputs = self.pipeline.dataset.outputs
        return {"outputs": [output.to_json() for output in outputs]} if outputs else {}

    def _metadata(self, model: Any) -> dict[str, Any]:
        """Return the metadata of data and training that exports and reports need."""
        splits = {name: split.count for name, split in self.pipeline.dataset.splits.items()}
        return {
            "best": {self.task.best[0]: self.progress.best, "epoch": self.progress.best_epoch},
            "seconds": self.progress.seconds,
            "epochs": self.progress.epoch,
            "ended": self.ended,
            "parameters": int(sum(np.prod(w.shape) for w in model.trainable_weights)),
            "task": self.pipeline.dataset.task,
            "labels": list(self.pipeline.dataset.labels),
            **self._outputs(),
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
