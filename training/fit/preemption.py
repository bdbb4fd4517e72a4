"""Handle SIGTERM while Python cannot: during a long wait for data, or a long step.

Python calls signal handlers between two of its own instructions, so that it handles a signal only after TensorFlow's
running operation. A preempted machine is shut down before that.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

# Seconds until this module acts instead of the training, and until the process ends in any case.
GRACE, TIMEOUT = 1.0, 8.0
NO_LOSS = "no progress is lost"


class PreemptionHandler:
    """A thread that ends the process on SIGTERM if the training does not; use it with `with` in the main thread.

    Args:
        busy: a lock that the training holds except while it waits for data, when another thread can save its state;
            None if there is none.
        writing: returns whether a checkpoint is being written; the process ends after that.
        save: saves the state while the training waits; returns a message.
        describe_loss: returns the message if the state could not be saved.
    """

    def __init__(
        self, busy: Any, *, writing: Callable[[], bool], save: Callable[[], str], describe_loss: Callable[[], str]
    ) -> None:
        self._busy, self._writing, self._save, self._describe_loss = busy, writing, save, describe_loss
        self._over = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> PreemptionHandler:
        mine, theirs = socket.socketpair()
        theirs.setblocking(False)
        try:
            # The number of each signal is written there at once, also during a native call.
            self._before = signal.set_wakeup_fd(theirs.fileno(), warn_on_full_buffer=False)
        except ValueError:
            # Not the main thread: signals go elsewhere.
            mine.close()
            theirs.close()
            return self
        self._ends = (mine, theirs)
        self._thread = threading.Thread(target=self._listen, name="preemption", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._over.set()
        if self._thread:
            signal.set_wakeup_fd(self._before)
            mine, theirs = self._ends
            theirs.close()
            self._thread.join()
            mine.close()

    def _listen(self) -> None:
        """Wait for SIGTERM; the other end is closed at exit."""
        while number := self._ends[0].recv(1):
            if number[0] == signal.SIGTERM:
                self._stop()
                return

    def _acquire(self) -> bool:
        return self._busy is not None and self._busy.acquire(blocking=False)

    def _stop(self) -> None:
        """Wait for the training to stop, then save its state and exit, or exit without."""
        begin = time.monotonic()
        while time.monotonic() - begin < TIMEOUT or self._writing():
            if self._over.wait(0.05):
                return
            if time.monotonic() - begin > GRACE and self._acquire():
                # The next batch of the training waits for this lock.
                _exit(self._save)
        _exit(self._describe_loss)


def _exit(describe: Callable[[], str]) -> None:
    """Exit the process as SIGTERM would, with a message."""
    code = 128 + signal.SIGTERM
    try:
        print(f"zoo: {describe()}", file=sys.stderr, flush=True)  # noqa: T201
    except Exception as error:
        # The process must end after any error.
        print(f"zoo: {' '.join(str(error).split())}", file=sys.stderr, flush=True)  # noqa: T201
        code = 2
    finally:
        os._exit(code)


def handle_preemption(session: Any) -> PreemptionHandler:
    """Return the handler of SIGTERM of a `training.fit.session.Session`."""

    def save() -> str:
        session.save(step=session.steps_done)
        return describe_stop(session)

    def describe_loss() -> str:
        steps = session.steps_done - session.progress.step
        return describe_stop(session, f"the {steps} steps since then will be repeated" if steps else NO_LOSS)

    # Several processes can only save together.
    busy = session.monitor.busy if session.device.workers == 1 else None
    return PreemptionHandler(busy, writing=lambda: session.checkpoints.writing, save=save, describe_loss=describe_loss)


def describe_stop(session: Any, lost: str = NO_LOSS) -> str:
    """Return a line on where a training stopped, the lost progress, and how to resume it."""
    place = f"epoch {session.progress.epoch}, step {session.progress.step}"
    return f"Stopped after {place}; {lost}. Resume with: zoo train --resume {session.run.path}"
