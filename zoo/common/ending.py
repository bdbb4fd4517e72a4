"""How processes end: a command by a signal, without what is half-written, and a child process with its parent.

A converter holds most of a gigabyte. If the command that started it is killed, it must not go on. On Linux the kernel
ends it. Elsewhere a thread does, when the pipe that the parent holds is closed; that waits for a native call which
keeps Python's lock.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

# The option of prctl: the signal for this process when its parent ends.
PR_SET_PDEATHSIG = 1
# Signals that end a command: a stop of the system or of a supervisor, and a closed terminal.
ENDING = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name))
_cleanups: list[Callable[[], Any]] = []
_received: list[int] = []
_ends = threading.Event()
_registering = threading.Lock()


@contextlib.contextmanager
def cleaned_up(action: Callable[[], Any], make: Callable[[], Any] | None = None) -> Iterator[None]:
    """Call a function if a signal ends the command within the block; the last one first.

    Args:
        action: cleans up.
        make: makes what is cleaned up; it is called at the start of the block, but not once a signal has ended the
            command, when nobody would clean up.
    """
    with _registering:
        over = _ends.is_set()
        if not over:
            if make:
                make()
            _cleanups.append(action)
    if over:
        _wait_for_the_end()
    try:
        yield
    finally:
        _cleanups.remove(action)


@contextlib.contextmanager
def ending_cleanly() -> Iterator[None]:
    """Let SIGTERM and SIGHUP clean up, print a line, and exit with 128 plus the signal; a second one does so at once.

    A thread does it: an exception in the main thread could come in the middle of native code, which ends the process or
    hides it. A signal that is ignored, as by nohup, stays ignored, and handlers set within the block come first.
    """
    handled = [n for n in ENDING if signal.getsignal(n) == signal.SIG_DFL]
    if threading.current_thread() is not threading.main_thread() or not handled:
        # Only the main thread can handle signals.
        yield
        return
    mine, theirs = socket.socketpair()
    theirs.setblocking(False)
    # The number of each signal is written there at once, also during a native call.
    before = signal.set_wakeup_fd(theirs.fileno(), warn_on_full_buffer=False)
    for number in handled:
        signal.signal(number, _receive)
    # Standard error may be redirected when a signal comes, as it is around converters.
    stderr = os.dup(2)
    thread = threading.Thread(target=_listen, args=(mine, stderr), name="signals", daemon=True)
    thread.start()
    try:
        yield
    finally:
        if _ends.is_set():
            # What fails now fails because of the cleanup.
            _wait_for_the_end()
        for number in handled:
            signal.signal(number, signal.SIG_DFL)
        signal.set_wakeup_fd(before)
        theirs.close()
        thread.join()
        mine.close()
        os.close(stderr)


def _wait_for_the_end() -> None:
    """Wait until the thread that cleans up ends the process."""
    threading.Event().wait()


def _receive(number: int, _frame: Any) -> None:
    _received.append(number)
    if len(_received) > 1:
        os._exit(128 + number)


def _listen(channel: socket.socket, stderr: int) -> None:
    """Wait for a signal that ends the command; the other end is closed when the command ends."""
    while number := channel.recv(1):
        if signal.getsignal(number[0]) is _receive:
            _end(number[0], stderr)


def _end(number: int, stderr: int) -> None:
    """Clean up, write a line, and end this process, whatever fails."""
    # What is being made is registered first; nothing is made afterwards.
    with _registering:
        _ends.set()
    try:
        _clean_up(number, stderr)
    finally:
        os._exit(128 + number)


def _clean_up(number: int, stderr: int) -> None:
    """Call the functions of `cleaned_up`, the last one first, each whatever those before raise, and write a line."""
    with contextlib.ExitStack() as stack:
        stack.callback(_write_line, number, stderr)
        # The main thread goes on, and may leave blocks meanwhile.
        for action in tuple(_cleanups):
            stack.callback(action)


def _write_line(number: int, stderr: int) -> None:
    with contextlib.suppress(OSError, ValueError, RuntimeError):  # closed, or in the middle of a write
        sys.stdout.flush()
    with contextlib.suppress(OSError):
        os.write(stderr, f"zoo: Stopped by {signal.Signals(number).name}\n".encode())


@contextlib.contextmanager
def child_process(
    command: Sequence[str], environment: Mapping[str, str], **streams: Any
) -> Iterator[subprocess.Popen[bytes]]:
    """Yield a child process, which calls `end_with_parent` first; leaving the block by an exception kills it.

    Args:
        command: the program and its arguments.
        environment: its environment.
        streams: further arguments of subprocess.Popen; its standard input is the pipe that `end_with_parent` watches.
    """
    with subprocess.Popen(command, stdin=subprocess.PIPE, env=environment, **streams) as child:
        try:
            with cleaned_up(lambda: _kill(child)):
                yield child
        except BaseException:
            child.kill()
            raise


def _kill(child: subprocess.Popen[bytes]) -> None:
    """Kill a process and wait for its end, so that it writes nothing afterwards."""
    child.kill()
    child.wait()


def end_with_parent() -> None:
    """End this process when its parent ends, also if that is killed; call it first in a child process."""
    die_with_parent()
    if stat.S_ISFIFO(os.fstat(0).st_mode):
        threading.Thread(target=_watch, name="parent", daemon=True).start()


def die_with_parent() -> None:
    """Ask the kernel to kill this process when the thread that started it ends; only Linux can."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def _watch() -> None:
    """Wait until the pipe of the parent is closed, then end this process."""
    while os.read(0, 1):
        pass
    os.kill(os.getpid(), getattr(signal, "SIGKILL", signal.SIGTERM))
