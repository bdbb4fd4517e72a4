"""SIGTERM where Python cannot hear it: a wait for data that does not end, or a step that takes too long.

Python calls its handlers of signals between two of its own instructions, so that one that comes while TensorFlow works
or waits is heard afterwards only. Who preempts a machine does not wait so long.
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

# Seconds that training is given to hear the signal by itself, and until the process ends in any case.
HEARING, PATIENCE = 1.0, 8.0
NOTHING = "nothing is lost"


class Rescue:
    """A thread that ends the process on SIGTERM if the training does not; with `with`, in the main thread.

    Args:
        busy: a lock that the training holds, but for when it waits for data and its state can be saved from elsewhere;
            None if there is none.
        writing: tells whether a checkpoint is being written, which is let finish.
        save: saves the state while the training waits; returns a line for people.
        give_up: returns the line where that could not be done.
    """

    def __init__(
        self, busy: Any, *, writing: Callable[[], bool], save: Callable[[], str], give_up: Callable[[], str]
    ) -> None:
        self._busy, self._writing, self._save, self._give_up = busy, writing, save, give_up
        self._over = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Rescue:
        mine, theirs = socket.socketpair()
        theirs.setblocking(False)
        try:
            # The number of each signal is written there at once, whatever Python is at.
            self._before = signal.set_wakeup_fd(theirs.fileno(), warn_on_full_buffer=False)
        except ValueError:
            # Not the main thread: signals go elsewhere.
            mine.close()
            theirs.close()
            return self
        self._ends = (mine, theirs)
        self._thread = threading.Thread(target=self._listen, name="rescue", daemon=True)
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
        """Wait for SIGTERM; the other end is closed when all is over."""
        while number := self._ends[0].recv(1):
            if number[0] == signal.SIGTERM:
                self._obey()
                return

    def _free(self) -> bool:
        return self._busy is not None and self._busy.acquire(blocking=False)

    def _obey(self) -> None:
        """Leave it to the training for a while, then save for it, or give up."""
        begin = time.monotonic()
        while time.monotonic() - begin < PATIENCE or self._writing():
            if self._over.wait(0.05):
                return
            if time.monotonic() - begin > HEARING and self._free():
                # Its next batch, should it come now, waits for this lock.
                _leave(self._save)
        _leave(self._give_up)


def _leave(tell: Callable[[], str]) -> None:
    """End the process as SIGTERM would, with a line."""
    code = 128 + signal.SIGTERM
    try:
        print(f"zoo: {tell()}", file=sys.stderr, flush=True)  # noqa: T201
    except Exception as error:
        # Whatever it is, the process is to end.
        print(f"zoo: {' '.join(str(error).split())}", file=sys.stderr, flush=True)  # noqa: T201
        code = 2
    finally:
        os._exit(code)


def rescue(session: Any) -> Rescue:
    """Return who obeys SIGTERM for a training, a `training.loop.Session`, where its main thread cannot."""

    def save() -> str:
        session.save(step=session.reached)
        return where_stopped(session)

    def give_up() -> str:
        steps = session.reached - session.progress.step
        return where_stopped(session, f"the {steps} steps since then are to be taken again" if steps else NOTHING)

    # Several processes save together, or not at all.
    busy = session.watch.busy if session.device.workers == 1 else None
    return Rescue(busy, writing=lambda: session.keeper.writing, save=save, give_up=give_up)


def where_stopped(session: Any, lost: str = NOTHING) -> str:
    """Return a line that says where a training was stopped, what is lost, and how to go on."""
    place = f"epoch {session.progress.epoch}, step {session.progress.step}"
    return f"Stopped after {place}; {lost}. Go on with: zoo train --resume {session.run.path}"
