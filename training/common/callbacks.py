"""The Keras callback of an epoch, and the clock of a training."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from training.common.finite import check_finite
from zoo.common.lazy import keras


def step_callback(epoch: int, skip: int, begin: Callable[[], None], end: Callable[[int, Any], None]) -> Any:
    """Return a Keras callback for one epoch.

    Args:
        epoch: the epoch, from 0.
        skip: steps of this epoch that are done.
        begin: called after Keras has reset the metrics, to restore those of a resumed epoch.
        end: called after each step with the number of steps done in this epoch and the running means.
    """

    class Steps(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            begin()

        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            check_finite(float(logs["loss"]), self.model, epoch, skip + batch + 1)
            end(skip + batch + 1, logs)

    return Steps()


class Clock:
    """Measures the training time over all sessions.

    Args:
        seconds: time of earlier sessions.
    """

    def __init__(self, seconds: float) -> None:
        self._start = time.monotonic() - seconds

    @property
    def seconds(self) -> float:
        """Return the training time, seconds."""
        return time.monotonic() - self._start
