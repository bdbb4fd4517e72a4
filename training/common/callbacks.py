"""What happens beside the steps: watching the loss, and stopping when asked."""

from __future__ import annotations

import contextlib
import math
import signal
import time
from collections.abc import Callable, Iterator
from typing import Any

from training.common.jax_state import settle
from zoo.common.errors import TrainingError, ZooError
from zoo.common.lazy import keras, np

ADVICE = "Lower optimizer.learning_rate, set optimizer.clip_norm=1, or look at the data"


class Stopped(ZooError):
    """Training was asked to stop, and its state is saved.

    Args:
        message: one line for people.
        code: exit code of the command, 128 plus the signal.
    """

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


class Interrupted(Exception):
    """A signal came while what was going on could be left off at once."""


class StopRequest:
    """Remembers the signal that asked to stop."""

    def __init__(self) -> None:
        self.signal = 0
        self._at_once = False

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Take SIGTERM and SIGINT as a wish to stop after the step; a second one stops at once, as usual."""
        try:
            before = {s: signal.signal(s, self._receive) for s in (signal.SIGTERM, signal.SIGINT)}
        except ValueError:
            # Not the main thread: signals go elsewhere.
            yield
            return
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    @contextlib.contextmanager
    def interruptible(self, model: Any) -> Iterator[None]:
        """Raise Interrupted once a signal comes, or if one has come; the metrics of a model are then as before."""
        before = [np.asarray(v) for v in model.metrics_variables]
        self._at_once = True
        try:
            if self.signal:
                raise Interrupted
            yield
        except Interrupted:
            for variable, value in zip(model.metrics_variables, before, strict=True):
                variable.assign(value)
            raise
        finally:
            self._at_once = False

    def _receive(self, number: int, frame: Any) -> None:
        self.signal = number
        for s, handler in ((signal.SIGTERM, signal.SIG_DFL), (signal.SIGINT, signal.default_int_handler)):
            signal.signal(s, handler)
        if self._at_once:
            self._at_once = False
            raise Interrupted


def step_callback(epoch: int, skip: int, begin: Callable[[], None], end: Callable[[int, Any], None]) -> Any:
    """Return a Keras callback for one epoch.

    Args:
        epoch: the epoch, from 0.
        skip: steps of it that were taken before.
        begin: called after Keras has reset the metrics, to restore those of a resumed epoch.
        end: called after each step with the steps taken in this epoch and the running means so far.
    """

    class Steps(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            begin()

        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            check_finite(float(logs["loss"]), self.model, epoch, skip + batch + 1)
            end(skip + batch + 1, logs)

    return Steps()


def check_finite(loss: float, model: Any, epoch: int, step: int) -> None:
    """Raise TrainingError if a loss is not finite.

    Args:
        loss: a mean since the epoch (from 0) began, or over the validation split.
        model: named in the message by its first broken weight.
        epoch: epochs completed.
        step: steps completed after them.
    """
    if math.isfinite(loss):
        return
    broken = broken_weight(model)
    where = f"first weight that is not finite: {broken}" if broken else "all weights are still finite"
    raise TrainingError(f"The loss became {loss} in epoch {epoch + 1}, step {step} ({where}). {ADVICE}")


def check_weights(model: Any, epoch: int, step: int) -> None:
    """Raise TrainingError if a weight is not finite: what a checkpoint holds must be worth going back to."""
    broken = broken_weight(model)
    if broken:
        raise TrainingError(f"A weight, {broken}, is no longer finite in epoch {epoch + 1}, step {step}. {ADVICE}")


def broken_weight(model: Any) -> str | None:
    """Return the path of the first weight that is not finite, None if all are."""
    settle(model)
    for variable in model.weights:
        if not np.isfinite(np.asarray(variable)).all():
            return variable.path
    return None


class Clock:
    """Counts the time spent, over all sessions, and the speed of an epoch."""

    def __init__(self, seconds: float) -> None:
        self._start = time.monotonic() - seconds

    @property
    def seconds(self) -> float:
        """Time spent training."""
        return time.monotonic() - self._start
