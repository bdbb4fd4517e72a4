"""Gradual pruning in Keras: masks hold pruned weights at zero while training continues.

Zhu and Gupta 2017, arXiv:1710.01878: the sparsity rises as s(t) = S (1 - (1 - t / T)³), and each update selects the
zeros again by magnitude. A mask is part of the kernel's constraint, which Keras' optimizers apply after each update
inside the compiled step.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from export.compression.pruning import Pruning, magnitude_masks, prunable_kernels
from zoo.common.errors import ExportError
from zoo.common.lazy import keras, np

if TYPE_CHECKING:
    import keras as _keras

POWER = 3


def prune(
    model: _keras.Model,
    pruning: Pruning,
    train: Callable[[Any, int, list[Any]], Any],
    *,
    epochs: int,
    steps_per_epoch: int,
) -> _keras.Model:
    """Prune a model while it trains.

    Args:
        model: the model; it is changed.
        pruning: the final zeros and the schedule.
        train: trains the model in place, `train(model, epochs, callbacks)`.
        epochs: number of epochs.
        steps_per_epoch: optimizer updates in an epoch.

    Returns:
        The model with exact zeros; its kernels have no constraint.

    Raises:
        BadOption, UnsupportedExport: before training, if the model cannot be pruned so.
        ExportError: training ended before the target was reached.
    """
    masks = Masks(model, pruning, epochs * steps_per_epoch)
    with masks.attached():
        train(model, epochs, [masks.callback()])
        masks.check_finished()
    return model


def freeze_zeros(model: _keras.Model) -> contextlib.AbstractContextManager[None]:
    """Hold the current zeros of the kernels while the model trains, in a `with` statement."""
    masks = Masks(model, Pruning(0.0), 1)
    masks.mask_current_zeros()
    return masks.attached()


def zero_counts(model: _keras.Model, pruning: Pruning) -> dict[str, tuple[int, int]]:
    """Return the number of zeros and of weights of each prunable kernel, by its path."""
    arrays = {variable.path: np.asarray(variable) for variable in prunable_kernels(model, pruning)}
    return {path: (int((array == 0).sum()), int(array.size)) for path, array in arrays.items()}


class Masks:
    """The masks of a model's kernels; the zeros and the step determine them, so that checkpoints do not store them.

    Args:
        model: the model to prune, with its optimizer.
        pruning: the final zeros and the schedule.
        steps: optimizer updates of the whole training.
    """

    def __init__(self, model: _keras.Model, pruning: Pruning, steps: int) -> None:
        self.variables = prunable_kernels(model, pruning)
        self._pruning = pruning
        self.plan(steps)
        with model.distribute_strategy.scope():
            self.masks = [keras.Variable(np.ones(v.shape, "float32"), trainable=False) for v in self.variables]

    def plan(self, steps: int) -> None:
        """Spread the updates of the masks over a training of so many steps."""
        # The last mask update must be at the end of the ramp, or the target is missed.
        self.update_every = max(1, int(steps * self._pruning.ramp) // self._pruning.updates)
        self.end_step = self._end_step(steps)
        self._last_update = -1

    def _end_step(self, steps: int) -> int:
        if self._pruning.pattern:
            return 0
        return max(1, int(steps * self._pruning.ramp) // self.update_every) * self.update_every

    @contextlib.contextmanager
    def attached(self) -> Iterator[None]:
        """Add the masks to the kernels' constraints; enter before the training step is compiled."""
        before = [variable.constraint for variable in self.variables]
        for variable, mask, constraint in zip(self.variables, self.masks, before, strict=True):
            variable.constraint = _masking_constraint(mask, constraint)
        try:
            yield
            self._apply()
        finally:
            for variable, constraint in zip(self.variables, before, strict=True):
                variable.constraint = constraint

    def callback(self) -> Any:
        """Return a Keras callback that updates the masks."""
        update = self.update

        class UpdateMasks(keras.callbacks.Callback):
            def on_train_begin(self, logs: Any = None) -> None:
                update(int(self.model.optimizer.iterations.numpy()))

            def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
                update(int(self.model.optimizer.iterations.numpy()))

        return UpdateMasks()

    def update(self, step: int) -> None:
        """Update the masks if an update is scheduled at or before a step; a resumed training repeats the last one."""
        scheduled = min(step // self.update_every * self.update_every, self.end_step)
        if scheduled == self._last_update:
            return
        self._last_update = scheduled
        arrays = [np.asarray(variable, "float32") for variable in self.variables]
        masks = magnitude_masks(arrays, self._pruning, self.sparsity_at(scheduled))
        for mask, values in zip(self.masks, masks, strict=True):
            mask.assign(values)
        self._apply()

    def mask_current_zeros(self) -> None:
        """Set the masks to the current zeros of the kernels."""
        for mask, variable in zip(self.masks, self.variables, strict=True):
            mask.assign((np.asarray(variable) != 0).astype("float32"))

    def check_finished(self) -> None:
        """Raise ExportError unless the target was reached."""
        if self._last_update < self.end_step:
            raise ExportError(
                f"Training must take at least {self.end_step} steps to reach the sparsity. "
                f"Received: {max(self._last_update, 0)}"
            )

    def sparsity_at(self, step: int) -> float:
        """Return the scheduled sparsity at a step: Keras' polynomial decay, from 0 up."""
        if step >= self.end_step:
            return self._pruning.sparsity
        schedule = keras.optimizers.schedules.PolynomialDecay
        return float(schedule(0.0, self.end_step, self._pruning.sparsity, power=POWER)(step))

    def _apply(self) -> None:
        for variable, mask in zip(self.variables, self.masks, strict=True):
            variable.assign(np.asarray(variable) * np.asarray(mask))


def _masking_constraint(mask: Any, constraint: Callable[[Any], Any] | None) -> Callable[[Any], Any]:
    """Return a constraint that applies another one, if any, and then a mask."""

    def masked(kernel: Any) -> Any:
        kernel = kernel if constraint is None else constraint(kernel)
        return keras.ops.multiply(kernel, keras.ops.cast(mask, kernel.dtype))

    return masked
