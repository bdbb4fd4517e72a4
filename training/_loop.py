"""How a model learns, from a recipe to a finished run. Reads top to bottom."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import os
import random
import time
from collections.abc import Iterator
from typing import Any

import zoo
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
from training._optimizer import make_optimizer
from training._pipeline import Pipeline, open_pipeline
from training._recipe import Recipe
from training._run import Run, check_free, processor
from training._strategy import Device, check_divisible, open_device
from training._tasks import TASKS
from zoo._build import dtype_policy
from zoo._errors import BadOption, RunError, TrainingError
from zoo._lazy import keras, np


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
        compile_model(model, recipe, pipeline.steps_per_epoch, device.jit_compile)
        model.optimizer.build(model.trainable_variables)
    return device, pipeline, model


def open_data(run: Run) -> Pipeline:
    """Return the data of a run; texts become the ids that they were when it began, whatever the data is now.

    Raises:
        RunError: the run has lost its vocabulary.
    """
    spec, text = zoo.spec(run.recipe.model.name), run.text()
    if spec.vocabulary and text is None:
        raise RunError(f"Expected the vocabulary of a run on texts. Received: {run.path} without text.json")
    return open_pipeline(run.recipe, spec, text)


def build_model(recipe: Recipe, pipeline: Pipeline) -> Any:
    """Return the network of a recipe for the data of a pipeline, with logits for its labels."""
    options, sizes = dict(recipe.model.options), TASKS[pipeline.dataset.task].sizes(pipeline)
    for name in sizes.keys() & options.keys():
        raise BadOption(
            f"{name} follows from the data. Received: model.options.{name}={options[name]}. Set data.{name} instead."
        )
    return zoo.get(recipe.model.name, input_shape=pipeline.shape, **sizes, **options)


def compile_model(model: Any, recipe: Recipe, steps_per_epoch: int, jit_compile: bool) -> None:
    """Give a network its loss, optimizer and metric, and build what belongs to them."""
    task = TASKS[zoo.spec(recipe.model.name).task]
    model.compile(
        optimizer=make_optimizer(recipe, steps_per_epoch),
        loss=task.loss(recipe.loss.label_smoothing),
        metrics=[task.metric()],
        jit_compile=jit_compile,
    )
    # The variables of metrics appear with the first batch otherwise, too late for a checkpoint to restore them.
    empty = keras.ops.zeros((1, *model.output_shape[1:]))
    model._compile_metrics.build(empty, empty)


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Draw initial weights and the seeds of dropout from `seed`; Keras takes both from Python's generator."""
    before = random.getstate()
    random.seed(seed)
    try:
        yield
    finally:
        random.setstate(before)


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


def judge(model: Any, pipeline: Pipeline, split: str) -> dict[str, Any]:
    """Return the figures of a model on a split.

    Returns:
        accuracy: share of right labels, of texts by token; of what is written, share of texts that are exact.
        loss: mean cross-entropy, of texts by token.
        examples: how many there are.
        confusion: a matrix of counts (rows: truth, columns: prediction); None of what is written.
        token_accuracy: of what is written only, share of tokens that are right after the right ones before.
    """
    return TASKS[pipeline.dataset.task].judge(model, pipeline.evaluate(split))


def evaluate_run(run: Run, split: str = "test") -> dict[str, Any]:
    """Judge the model of a finished run on one split of its data.

    Args:
        run: a finished run.
        split: "train", "validation" or "test".

    Returns:
        What `judge` returns.

    Raises:
        RunError: the run is unfinished, or has no such split.
    """
    run.result()
    pipeline = open_data(run)
    if split not in pipeline.dataset.splits:
        have = ", ".join(pipeline.dataset.splits)
        raise RunError(f"split must be one of {have}. Received: split={split!r}")
    return judge(load_model(run), pipeline, split)


def load_model(run: Run) -> Any:
    """Return the trained model of a run, as it was saved; raises RunError if it cannot be read."""
    for registering in ("zoo._layers", "zoo._sequence"):
        # Keras knows layers that are not its own once their module is imported.
        importlib.import_module(registering)
    try:
        return keras.saving.load_model(run.model_path, compile=False)
    except (OSError, TypeError, ValueError, KeyError) as error:
        reason = " ".join(str(error).split())[:200]
        raise RunError(f"Expected a readable model. Received: {run.model_path}: {reason}") from error
