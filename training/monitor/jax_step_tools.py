"""Measurements of steps on JAX; see `training.monitor.step_monitor`."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

from training.common.jax_state import sync_state
from training.monitor.step_tools import Feed, StepTools, Weights
from training.monitor.units import Units
from zoo.common.lazy import LazyModule, keras, np

jax = LazyModule("jax", extra="jax")


class JaxFeed(Feed):
    """Passes batches to the compiled step of a model, which on JAX takes a state and returns the next."""

    def __call__(self, state: Any, iterator: Iterator[Any]) -> Any:
        """Take one step on the next batch; raises StopIteration after the last."""
        start = time.perf_counter()
        batch = next(iterator)
        self.waited += time.perf_counter() - start
        if self.keep:
            self.batch = batch
        return self._step(state, iter([batch]))


class JaxGradients:
    """Norms of the gradients of a step, on request: computed a second time, before the step, from the same state."""

    def __init__(self, model: Any, _: Any) -> None:
        self._model, self._enabled, self._squares = model, False, np.zeros(len(model.trainable_variables))
        self._compiled = jax.jit(self._sums_of_squares)
        model.hooks.wrappers.append(self._wrap)

    def _wrap(self, step: Callable[..., Any]) -> Callable[..., Any]:
        self._step = step
        return self._take

    def enable(self, enabled: bool) -> None:
        """Set whether the next step is measured."""
        self._enabled = enabled

    def norms(self) -> dict[str, float]:
        """Return the norm of the last measured gradient by the path of its variable."""
        sync_state(self._model)
        # mixed_float16 scales the loss, and with it every gradient.
        scale = float(np.asarray(getattr(self._model.optimizer, "dynamic_scale", 1.0)))
        paths = [v.path for v in self._model.trainable_variables]
        return dict(zip(paths, (np.sqrt(self._squares) / scale).tolist(), strict=True))

    def _take(self, state: Any, iterator: Iterator[Any]) -> Any:
        """Measure the gradients of the next batch, then take the step."""
        batch = next(iterator)
        if self._enabled:
            self._squares = np.asarray(self._compiled(state, batch), "float64")
        return self._step(state, iter([batch]))

    def _sums_of_squares(self, state: Any, batch: Any) -> Any:
        weights, others, optimizer, metrics = state
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(batch)
        gradient = jax.grad(self._model.compute_loss_and_updates, has_aux=True)
        options = {"training": True, "optimizer_variables": optimizer}
        gradients, _ = gradient(weights, others, metrics, x, y, sample_weight, **options)
        return [keras.ops.sum(keras.ops.square(keras.ops.cast(g, "float32"))) for g in gradients]


class JaxWeights(Weights):
    """Samples of all kernels."""

    def __init__(self, model: Any) -> None:
        super().__init__(model)
        self._model = model

    def sample(self) -> dict[str, Any]:
        """Return a sample of each kernel, always the same weights, by the path of the variable."""
        sync_state(self._model)
        pairs = [(v, i) for v, i in zip(self._kernels, self._indices, strict=True) if v.trainable]
        return {v.path: np.asarray(v).reshape(-1)[np.asarray(indices)].astype("float64") for v, indices in pairs}


class JaxUnits(Units):
    """The units of a functional model whose activation can die or saturate."""

    def __init__(self, model: Any, _: Any) -> None:
        super().__init__(model, _WholeBatch())
        self._model, self._compute, self._trained = model, self._idle, -1

    def _outputs(self, inputs: Any) -> dict[str, Any]:
        sync_state(self._model)
        trained = len(self._activations.trainable_variables)
        if trained != self._trained:
            # Keras compiles for the number of trained variables, which stages of fine-tuning change.
            self._activations.predict_function, self._trained = None, trained
        return self._activations.predict_on_batch(inputs)


class _WholeBatch:
    """A strategy in which a batch is one array on any number of devices."""

    def experimental_local_results(self, value: Any) -> tuple[Any]:
        return (np.asarray(value),)


TOOLS = StepTools(JaxGradients, JaxWeights, JaxUnits, JaxFeed)
