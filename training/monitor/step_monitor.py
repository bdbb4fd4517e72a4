"""Measure steps: gradients, updates, dead and saturated units, and the wait for data.

Measurements do not change the training: gradients are those of the step, weights are only read, and units are computed
in inference mode, which draws no dropout and moves no averages of batch normalization.
"""

from __future__ import annotations

from typing import Any

from training.checkpoints.files import Progress
from training.common.preprocess import normalize
from training.data.pipeline.pipeline import Pipeline
from training.distributed.device import Device
from training.monitor.step_tools import TOOLS, StepTools
from training.monitor.tensorboard import TensorBoardWriter
from training.recipe.config import LogConfig
from training.runs.run import Run
from zoo.common.lazy import keras, np
from zoo.specs.tasks import task_of


def _tools(backend: str) -> StepTools:
    if backend != "jax":
        return TOOLS
    from training.monitor.jax_step_tools import TOOLS as JAX_TOOLS

    return JAX_TOOLS


class StepMonitor:
    """Measures some steps of a training, and writes to the run and to TensorBoard.

    Attributes:
        feed: passes the batches to the steps.
    """

    def __init__(self, run: Run, model: Any, device: Device, board: TensorBoardWriter, pipeline: Pipeline) -> None:
        self._run, self._model, self._board = run, model, board
        self._config: LogConfig = run.recipe.log
        self._steps = pipeline.steps_per_epoch
        self._total = run.recipe.epochs * self._steps
        self._classes = len(pipeline.dataset.labels) if task_of(pipeline.dataset.task).classes else 0
        self._before: dict[str, Any] = {}
        self._step, self._pipeline, self._strategy = 0, pipeline, device.strategy
        tools = _tools(device.backend)
        if self._config.every:
            self._gradients, self._weights = tools.gradients(model, device.strategy), tools.weights(model)
            self._units = tools.units(model, device.strategy)
        self.feed = tools.feed(model)

    def callback(self, epoch: int, skip: int) -> Any:
        """Return a Keras callback for one epoch (from 0) after its first `skip` steps."""
        first, monitor = epoch * self._steps + skip + 1, self

        class Measure(keras.callbacks.Callback):
            def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
                monitor._begin(first + batch)

            def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
                monitor._end(first + batch)

        return Measure()

    @property
    def busy(self) -> Any:
        """A lock that is held except while nothing changes; None on a backend without it."""
        return getattr(self.feed, "busy", None)

    def start(self, progress: Progress, damage: str) -> None:
        """Start at the progress of a checkpoint; `damage` describes a damaged newer one, "" if there is none."""
        self._step = progress.epoch * self._steps + progress.step
        if damage:
            self._run.add_diagnostics({"step": self._step, "epoch": progress.epoch + 1, "damaged": damage})

    def record_failure(self, reason: str) -> None:
        """Record why the training failed."""
        self._run.add_diagnostics({"step": self._step + 1, "epoch": self._step // self._steps + 1, "failed": reason})

    def _is_measured(self, step: int) -> bool:
        """Return whether a step of the whole training, from 1, is measured: the first, the last, and each `every`."""
        # Steps that only accumulate gradients do not change the weights.
        update = self._run.recipe.optimizer.accumulate
        every = -(-self._config.every // update) * update
        return bool(every) and (step % every == 0 or step in (update, self._total - self._total % update))

    def _begin(self, step: int) -> None:
        self._board.profile(step, self._config.profile)
        if self._is_measured(step):
            self._gradients.enable(True)
            self.feed.keep, self._before = True, self._weights.sample()

    def _end(self, step: int) -> None:
        self._board.profile(step + 1, self._config.profile)
        self._step = step
        if self._is_measured(step):
            self._gradients.enable(False)
            row = {"step": step, "epoch": (step - 1) // self._steps + 1, **self._measure()}
            self.feed.keep, self.feed.batch, self._before = False, None, {}
            self._run.add_diagnostics(row)
            self._board.step(row)

    def _measure(self) -> dict[str, Any]:
        """Return the measurements of a step, layer by layer in the order of the model."""
        norms, after = self._gradients.norms(), self._weights.sample()
        kernels = [path for path in norms if path in after]
        sizes = {path: float(np.linalg.norm(self._before[path])) for path in kernels}
        moved = {path: float(np.linalg.norm(after[path] - self._before[path])) for path in kernels}
        return {
            "learning_rate": float(np.asarray(self._model.optimizer.learning_rate)),
            "classes": self._classes,
            "gradient_norm": _short(np.linalg.norm(list(norms.values()))),
            "gradients": {_layer(path): _short(norms[path]) for path in kernels},
            "updates": {_layer(path): _short(moved[path] / sizes[path]) if sizes[path] else None for path in kernels},
            **self._measured_units(),
        }

    def _measured_units(self) -> dict[str, dict[str, float]]:
        """Return the inactive units, none while only the head is computed."""
        if self._model.hooks.head:
            return {"dead": {}, "saturated": {}}
        return self._units.measure(self._model_batch())

    def _model_batch(self) -> Any:
        """Return the retained batch as inputs of the model, without random augmentation."""
        x, *rest = self.feed.batch
        if self._pipeline.augments_on_device:
            x = normalize(self._strategy.experimental_local_results(x)[0], self._pipeline.preprocessing)
        return (x, *rest)


def _layer(path: str) -> str:
    """Return the layer of a variable; of a layer with several kernels, the path."""
    return path.removesuffix("/kernel")


def _short(value: float) -> float | None:
    """Return a number with four digits, None if it is not finite."""
    return float(f"{value:.4g}") if np.isfinite(value) else None
