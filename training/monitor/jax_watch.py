"""What is measured beside the steps under JAX; see `training.monitor.watch`."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

from training.common.jax_state import sync_state
from training.monitor.step_tools import Feed, Tools, Weights
from training.monitor.units import Units
from zoo.common.lazy import LazyModule, keras, np

jax = LazyModule("jax", extra="jax")


class JaxFeed(Feed):
    """Hands batches to the compiled step of a model, which under JAX takes a state and returns the next."""

    def __call__(self, state: Any, iterator: Iterator[Any]) -> Any:
        """Take one step on the next batch; raises StopIteration after the last."""
        start = time.perf_counter()
        batch = next(iterator)
        self.waited += time.perf_counter() - start
        if self.keep:
            self.batch = batch
        return self._step(state, iter([batch]))


class JaxGradients:
    """Norms of the gradients of a step, when asked: computed a second time, before the step, from the same state."""

    def __init__(self, model: Any, _: Any) -> None:
        self._model, self._wanted, self._squares = model, False, np.zeros(len(model.trainable_variables))
        model.make_train_function()
        self._step, self._compiled = model.train_function, jax.jit(self._squares_of)
        model.train_function = self._measured

    def ask(self, wanted: bool) -> None:
        """Say whether the next step measures."""
        self._wanted = wanted

    def norms(self) -> dict[str, float]:
        """Return the norm of the last measured gradient by the path of its variable."""
        sync_state(self._model)
        # mixed_float16 scales the loss, and with it every gradient.
        scale = float(np.asarray(getattr(self._model.optimizer, "dynamic_scale", 1.0)))
        paths = [v.path for v in self._model.trainable_variables]
        return dict(zip(paths, (np.sqrt(self._squares) / scale).tolist(), strict=True))

    def _measured(self, state: Any, iterator: Iterator[Any]) -> Any:
        """Stand for the step."""
        batch = next(iterator)
        if self._wanted:
            self._squares = np.asarray(self._compiled(state, batch), "float64")
        return self._step(state, iter([batch]))

    def _squares_of(self, state: Any, batch: Any) -> Any:
        weights, others, optimizer, metrics = state
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(batch)
        loss = jax.grad(self._model.compute_loss_and_updates, has_aux=True)
        found, _ = loss(weights, others, metrics, x, y, sample_weight, training=True, optimizer_variables=optimizer)
        return [keras.ops.sum(keras.ops.square(keras.ops.cast(gradient, "float32"))) for gradient in found]


class JaxWeights(Weights):
    """Samples of all kernels."""

    def __init__(self, model: Any) -> None:
        super().__init__(model)
        self._model = model

    def sample(self) -> dict[str, Any]:
        """Return a sample of each kernel, always the same weights, by the path of the variable."""
        sync_state(self._model)
        pairs = zip(self._kernels, self._chosen, strict=True)
        return {v.path: np.asarray(v).reshape(-1)[np.asarray(chosen)].astype("float64") for v, chosen in pairs}


class JaxUnits(Units):
    """The units of a functional network whose activation can die or saturate."""

    def __init__(self, model: Any, _: Any) -> None:
        super().__init__(model, _Whole())
        self._model, self._look = model, self._idle

    def _outputs(self, inputs: Any) -> dict[str, Any]:
        sync_state(self._model)
        return self._network.predict_on_batch(inputs)


class _Whole:
    """Stands for a strategy: a batch is one array, on however many devices it lies."""

    def experimental_local_results(self, value: Any) -> tuple[Any]:
        return (np.asarray(value),)


TOOLS = Tools(JaxGradients, JaxWeights, JaxUnits, JaxFeed)
