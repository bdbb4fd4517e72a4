"""Measurements inside a step on TensorFlow: gradients, weights, and the batch."""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Callable
from typing import Any

from training.monitor.units import Units
from zoo.common.lazy import np, tf

# Weights of a kernel that its update is measured on: a ratio of norms is accurate to a few percent with as many.
SAMPLE = 4096


class Feed:
    """Passes batches to the compiled step of a model; measures the time it waits for them, and retains one on request.

    Attributes:
        waited: seconds spent waiting since it was last set.
        keep: whether to retain the next batch.
        batch: the retained batch.
        busy: a lock that is held except while waiting for a batch, when nothing changes.
    """

    def __init__(self, model: Any) -> None:
        self.waited, self.keep, self.batch = 0.0, False, None
        self.busy = threading.Lock()
        self.busy.acquire()
        # Keras takes the next batch inside the step, where the wait cannot be measured.
        model.hooks.wrappers.append(self._wrap)

    def _wrap(self, step: Callable[..., Any]) -> Callable[..., Any]:
        self._step = step
        return self

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
    """Norms of the gradients of a step, computed inside the compiled step on request, before any clipping."""

    def __init__(self, model: Any, strategy: Any) -> None:
        self._variables, self._optimizer = list(model.trainable_variables), model.optimizer
        self._strategy = strategy
        with strategy.scope():
            self._enabled = tf.Variable(False, trainable=False)
            # Each replica writes its own.
            self._squares = tf.Variable(
                tf.zeros([len(self._variables)]),
                trainable=False,
                synchronization=tf.VariableSynchronization.ON_READ,
                aggregation=tf.VariableAggregation.MEAN,
            )
        # Several devices have summed their gradients by then, so that each sees the same ones.
        model.optimizer.observer = self._observe

    def enable(self, enabled: bool) -> None:
        """Set whether the next step is measured."""
        self._enabled.assign(enabled)

    def norms(self) -> dict[str, float]:
        """Return the norm of the last measured gradient by the path of its variable, without frozen ones."""
        # mixed_float16 scales the loss, and with it every gradient.
        scale = float(np.asarray(getattr(self._optimizer, "dynamic_scale", 1.0)))
        squares = self._strategy.experimental_local_results(self._squares)[0]
        norms = np.sqrt(squares.numpy()) / scale
        return {v.path: float(norm) for v, norm in zip(self._variables, norms, strict=True) if v.trainable}

    def _observe(self, gradients: Any, variables: Any) -> None:
        """Measure the gradients of a step, which the optimizer passes."""
        by_path = {variable.path: gradient for gradient, variable in zip(gradients, variables, strict=True)}
        ordered = [by_path.get(variable.path) for variable in self._variables]

        def measure() -> Any:
            self._squares.assign(tf.stack([_sum_of_squares(gradient) for gradient in ordered]))
            return True

        tf.cond(self._enabled, measure, lambda: False)


def _sum_of_squares(gradient: Any) -> Any:
    """Return the sum of squares of a gradient, 0 for None."""
    if gradient is None:
        return tf.zeros([])
    values = gradient.values if isinstance(gradient, tf.IndexedSlices) else tf.convert_to_tensor(gradient)
    return tf.reduce_sum(tf.square(tf.cast(values, tf.float32)))


class Weights:
    """Samples of all kernels, to measure the size of an update."""

    def __init__(self, model: Any) -> None:
        random = np.random.default_rng(0)
        self._kernels = [v for v in model.trainable_variables if len(v.shape) > 1]
        self._indices = [_sample_indices(int(np.prod(v.shape)), random) for v in self._kernels]

    def sample(self) -> dict[str, Any]:
        """Return a sample of each kernel that is trained, always of the same weights, by the path of the variable."""
        return {
            v.path: tf.gather(tf.reshape(tf.convert_to_tensor(v), [-1]), indices).numpy().astype("float64")
            for v, indices in zip(self._kernels, self._indices, strict=True)
            if v.trainable
        }


def _sample_indices(size: int, random: Any) -> Any:
    return tf.constant(np.arange(size) if size <= SAMPLE else np.sort(random.integers(0, size, SAMPLE)))


@dataclasses.dataclass(frozen=True)
class StepTools:
    """The classes that measure steps on a Keras backend.

    Args:
        gradients: makes a `Gradients` of a model and a strategy.
        weights: makes a `Weights` of a model.
        units: makes a `training.monitor.units.Units` of a model and a strategy.
        feed: makes a `Feed` of a model.
    """

    gradients: Callable[[Any, Any], Any]
    weights: Callable[[Any], Any]
    units: Callable[[Any, Any], Any]
    feed: Callable[[Any], Any]


TOOLS = StepTools(Gradients, Weights, Units, Feed)
