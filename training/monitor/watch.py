"""What is measured beside the steps: gradients, updates, units that died or saturate, and the wait for data.

Nothing here changes what is learnt: gradients are those that the step has anyway, weights are only read, and units are
looked at in inference mode, which draws no dropout and moves no average of a batch normalization.
"""

from __future__ import annotations

import dataclasses
import importlib
import threading
import time
from collections.abc import Callable
from typing import Any

from training.checkpoints.files import Progress
from training.common.preprocess import normalize
from training.data.pipeline import Pipeline
from training.distributed.strategy import Device
from training.monitor.tensorboard import Board
from training.monitor.units import Units
from training.recipe.config import LogConfig
from training.runs.run import Run
from zoo.common.lazy import keras, np, tf

# Weights of a layer that its update is measured on: a ratio of norms is known to a few percent from as many.
SAMPLE = 4096
# Tasks that choose one of several classes.
CLASSES = ("classify", "tag")


class Feed:
    """Hands batches to the compiled step of a model: counts the time it waits for them, keeps one when asked.

    Attributes:
        waited: seconds spent waiting since it was last set.
        keep: whether the next batch is kept.
        batch: the batch that was kept.
        busy: a lock that is held but while a batch is waited for, when nothing changes.
    """

    def __init__(self, model: Any) -> None:
        self.waited, self.keep, self.batch = 0.0, False, None
        self.busy = threading.Lock()
        self.busy.acquire()
        model.make_train_function()
        self._step = model.train_function
        # Keras takes the next batch inside the step, where nobody sees how long that takes.
        model.train_function = self

    def __call__(self, iterator: Any) -> Any:
        """Take one step on the next batch; raises StopIteration after the last."""
        start = time.perf_counter()
        self.busy.release()
        try:
            batch = next(iterator)
        finally:
            self.busy.acquire()
        self.waited += time.perf_counter() - start
        if self.keep:
            self.batch = batch
        return self._step([batch])


class Gradients:
    """Norms of the gradients of a step, taken inside the compiled step when asked, before any clipping."""

    def __init__(self, model: Any, strategy: Any) -> None:
        self._variables, self._optimizer = list(model.trainable_variables), model.optimizer
        self._strategy = strategy
        with strategy.scope():
            self._asked = tf.Variable(False, trainable=False)
            # Each replica writes its own.
            self._squares = tf.Variable(
                tf.zeros([len(self._variables)]),
                trainable=False,
                synchronization=tf.VariableSynchronization.ON_READ,
                aggregation=tf.VariableAggregation.MEAN,
            )
        # Behind where several devices add them up, and so on each of them the same.
        self._apply = model.optimizer.apply
        model.optimizer.apply = self._measured

    def ask(self, wanted: bool) -> None:
        """Say whether the next step measures."""
        self._asked.assign(wanted)

    def norms(self) -> dict[str, float]:
        """Return the norm of the last measured gradient by the path of its variable."""
        # mixed_float16 scales the loss, and with it every gradient.
        scale = float(np.asarray(getattr(self._optimizer, "dynamic_scale", 1.0)))
        squares = self._strategy.experimental_local_results(self._squares)[0]
        norms = np.sqrt(squares.numpy()) / scale
        return {v.path: float(norm) for v, norm in zip(self._variables, norms, strict=True)}

    def _measured(self, found: Any, variables: Any = None) -> Any:
        """Stand for `apply` of the optimizer."""
        by_path = {variable.path: gradient for gradient, variable in zip(found, variables, strict=True)}
        gradients = [by_path.get(variable.path) for variable in self._variables]

        def measure() -> Any:
            self._squares.assign(tf.stack([_square(gradient) for gradient in gradients]))
            return True

        tf.cond(self._asked, measure, lambda: False)
        return self._apply(found, variables)


def _square(gradient: Any) -> Any:
    """Return the sum of squares of a gradient, 0 where there is none."""
    if gradient is None:
        return tf.zeros([])
    values = gradient.values if isinstance(gradient, tf.IndexedSlices) else tf.convert_to_tensor(gradient)
    return tf.reduce_sum(tf.square(tf.cast(values, tf.float32)))


class Weights:
    """Samples of all kernels, to tell how far a step moves them."""

    def __init__(self, model: Any) -> None:
        random = np.random.default_rng(0)
        self._kernels = [v for v in model.trainable_variables if len(v.shape) > 1]
        self._chosen = [_chosen(int(np.prod(v.shape)), random) for v in self._kernels]

    def sample(self) -> dict[str, Any]:
        """Return a sample of each kernel, always the same weights, by the path of the variable."""
        return {
            v.path: tf.gather(tf.reshape(tf.convert_to_tensor(v), [-1]), chosen).numpy().astype("float64")
            for v, chosen in zip(self._kernels, self._chosen, strict=True)
        }


def _chosen(size: int, random: Any) -> Any:
    return tf.constant(np.arange(size) if size <= SAMPLE else np.sort(random.integers(0, size, SAMPLE)))


@dataclasses.dataclass(frozen=True)
class Tools:
    """What measures on a backend of Keras.

    Args:
        gradients: makes what `Gradients` is, of a model and a strategy.
        weights: makes what `Weights` is, of a model.
        units: makes what `training.monitor.units.Units` is, of a model and a strategy.
        feed: makes what `Feed` is, of a model.
    """

    gradients: Callable[[Any, Any], Any]
    weights: Callable[[Any], Any]
    units: Callable[[Any, Any], Any]
    feed: Callable[[Any], Any]


# Modules that hold TOOLS of their own, by the backend.
OTHER_TOOLS = {"jax": "training.monitor.jax_watch"}


def _tools(backend: str) -> Tools:
    if backend in OTHER_TOOLS:
        return importlib.import_module(OTHER_TOOLS[backend]).TOOLS
    return Tools(Gradients, Weights, Units, Feed)


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
            self._run.add_health({"step": self._step, "epoch": progress.epoch + 1, "damaged": damage})

    def failed(self, reason: str) -> None:
        """Keep why the training could not go on."""
        self._run.add_health({"step": self._step + 1, "epoch": self._step // self._steps + 1, "failed": reason})

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
            self._run.add_health(row)
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
            x = normalize(self._strategy.experimental_local_results(x)[0], self._pipeline.contract)
        return (x, *rest)


def _layer(path: str) -> str:
    """Return the layer of a variable; those with several kernels say which."""
    return path.removesuffix("/kernel")


def _short(value: float) -> float | None:
    """Return four digits of a number, None where it is not finite."""
    return float(f"{value:.4g}") if np.isfinite(value) else None
