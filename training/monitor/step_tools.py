"""What is measured inside a step under TensorFlow: gradients, weights, and the batch itself."""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Callable
from typing import Any

from training.monitor.units import Units
from zoo.common.lazy import np, tf

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


TOOLS = Tools(Gradients, Weights, Units, Feed)
