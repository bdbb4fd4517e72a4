"""Checks that the loss and the weights are finite."""

from __future__ import annotations

import math
from typing import Any

from training.common.jax_state import sync_state
from zoo.common.errors import TrainingError
from zoo.common.lazy import np

ADVICE = "Lower optimizer.learning_rate, set optimizer.clip_norm=1, or inspect the data"


def check_finite(loss: float, model: Any, epoch: int, step: int) -> None:
    """Raise TrainingError if a loss is not finite.

    Args:
        loss: the mean since the start of the epoch, or over the validation split.
        model: the message names its first weight that is not finite.
        epoch: epochs completed.
        step: steps completed after them.
    """
    if math.isfinite(loss):
        return
    broken = nonfinite_weight(model)
    where = f"first weight that is not finite: {broken}" if broken else "all weights are still finite"
    raise TrainingError(f"The loss became {loss} in epoch {epoch + 1}, step {step} ({where}). {ADVICE}")


def check_weights(model: Any, epoch: int, step: int) -> None:
    """Raise TrainingError if a weight is not finite, before it is saved in a checkpoint."""
    broken = nonfinite_weight(model)
    if broken:
        raise TrainingError(f"A weight, {broken}, is no longer finite in epoch {epoch + 1}, step {step}. {ADVICE}")


def nonfinite_weight(model: Any) -> str | None:
    """Return the path of the first weight that is not finite, None if all are."""
    sync_state(model)
    for variable in model.weights:
        if not np.isfinite(np.asarray(variable)).all():
            return variable.path
    return None
