"""What is measured beside the steps: gradients, updates, units that died or saturate, and the wait for data.

Nothing here changes what is learnt: gradients are those that the step has anyway, weights are only read, and units are
looked at in inference mode, which draws no dropout and moves no average of a batch normalization.
"""

from __future__ import annotations

from typing import Any

from training.checkpoints.files import Progress
from training.common.preprocess import normalize
from training.data.pipeline.pipeline import Pipeline
from training.distributed.device import Device
from training.monitor.step_tools import TOOLS, Tools
from training.monitor.tensorboard import Board
from training.recipe.config import LogConfig
from training.runs.run import Run
from zoo.common.lazy import keras, np

# Weights of a layer that its update is measured on: a ratio of norms is known to a few percent from as many.
SAMPLE = 4096
# Tasks that choose one of several classes.
CLASSES = ("classify", "tag")


def _tools(backend: str) -> Tools:
    if backend != "jax":
        return TOOLS
    from training.monitor.jax_watch import TOOLS as JAX_TOOLS

    return JAX_TOOLS


class Watch:
    """Measures a training at some of its steps, and tells the run and TensorBoard.

    Attributes:
        feed: what hands the batches to the steps.
    """

    def __init__(self, run: Run, model: Any, device: Device, board: Board, pipeline: Pipeline) -> None:
        self._run, self._model, self._board = run, model, board
        self._config: LogConfig = run.recipe.log
        self._steps = pipeline.steps_per_epoch
        self._total = run.recipe.epochs * self._steps
        self._classes = len(pipeline.dataset.labels) if pipeline.dataset.task in CLASSES else 0
        self._before: dict[str, Any] = {}
        self._step, self._pipeline, self._strategy = 0, pipeline, device.strategy
        tools = _tools(device.backend)
        if self._config.every:
            self._gradients, self._weights = tools.gradients(model, device.strategy), tools.weights(model)
            self._units = tools.units(model, device.strategy)
        self.feed = tools.feed(model)

    def callback(self, epoch: int, skip: int) -> Any:
        """Return a Keras callback for one epoch (from 0) after its first `skip` steps."""
        first, watch = epoch * self._steps + skip + 1, self

        class Measure(keras.callbacks.Callback):
            def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
                watch._begin(first + batch)

            def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
                watch._end(first + batch)

        return Measure()

    @property
    def busy(self) -> Any:
        """A lock that is held but while nothing changes; None on a backend that has none."""
        return getattr(self.feed, "busy", None)

    def begin(self, progress: Progress, damage: str) -> None:
        """Begin, or go on, where training stands; `damage` says what was wrong with its last checkpoint."""
        self._step = progress.epoch * self._steps + progress.step
        if damage:
            self._run.add_diagnostics({"step": self._step, "epoch": progress.epoch + 1, "damaged": damage})

    def failed(self, reason: str) -> None:
        """Keep why the training could not go on."""
        self._run.add_diagnostics({"step": self._step + 1, "epoch": self._step // self._steps + 1, "failed": reason})

    def _due(self, step: int) -> bool:
        """Tell whether a step of the whole training, from 1, is measured: the first, every so many steps, the last."""
        # Steps between two that change the weights leave nothing to measure.
        update = self._run.recipe.optimizer.accumulate
        every = -(-self._config.every // update) * update
        return bool(every) and (step % every == 0 or step in (update, self._total - self._total % update))

    def _begin(self, step: int) -> None:
        self._board.profile(step, self._config.profile)
        if self._due(step):
            self._gradients.ask(True)
            self.feed.keep, self._before = True, self._weights.sample()

    def _end(self, step: int) -> None:
        self._board.profile(step + 1, self._config.profile)
        self._step = step
        if self._due(step):
            self._gradients.ask(False)
            row = {"step": step, "epoch": (step - 1) // self._steps + 1, **self._measure()}
            self.feed.keep, self.feed.batch, self._before = False, None, {}
            self._run.add_diagnostics(row)
            self._board.step(row)

    def _measure(self) -> dict[str, Any]:
        """Return what a step was like, layer by layer in the order of the network."""
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
            **self._units.measure(self._given()),
        }

    def _given(self) -> Any:
        """Return the batch that was kept as the network is given it; what is random about images is left out."""
        x, *rest = self.feed.batch
        if self._pipeline.in_step:
            x = normalize(self._strategy.experimental_local_results(x)[0], self._pipeline.preprocessing)
        return (x, *rest)


def _layer(path: str) -> str:
    """Return the layer of a variable; those with several kernels say which."""
    return path.removesuffix("/kernel")


def _short(value: float) -> float | None:
    """Return four digits of a number, None where it is not finite."""
    return float(f"{value:.4g}") if np.isfinite(value) else None
