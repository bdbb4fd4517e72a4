"""Stop training on a signal, after the running step."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from typing import Any

from zoo.common.ending import ENDING
from zoo.common.errors import ZooError
from zoo.common.lazy import np


class Stopped(ZooError):
    """A signal stopped the training after its state was saved.

    Args:
        message: one line for the user.
        code: exit code of the command, 128 plus the signal.
    """

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


class Interrupted(Exception):
    """A signal came during work that can be abandoned."""


class StopRequest:
    """Receives the signal to stop."""

    def __init__(self) -> None:
        self.signal = 0
        self._at_once = False

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Handle SIGTERM, SIGHUP and SIGINT as a request to stop after the step; a second one stops at once, as usual.

        A signal that is ignored, as by nohup, stays ignored.
        """
        numbers = [n for n in (*ENDING, signal.SIGINT) if signal.getsignal(n) != signal.SIG_IGN]
        try:
            before = {number: signal.signal(number, self._receive) for number in numbers}
        except ValueError:
            # Only the main thread can handle signals.
            yield
            return
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    @contextlib.contextmanager
    def interruptible(self, model: Any) -> Iterator[None]:
        """Raise Interrupted if a signal comes or has come; the metrics of a model are then restored."""
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
        for s in ENDING:
            signal.signal(s, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        if self._at_once:
            self._at_once = False
            raise Interrupted
