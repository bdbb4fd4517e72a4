"""Launch several processes of one training on this machine: start, stop and restart them together."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any

from training.common.stopping import Stopped
from training.runs.run import Run
from zoo.common.ending import ENDING
from zoo.common.errors import BadOption, TrainingError

MAX_WORKERS = 64
CLUSTER = "cluster"  # the key of TF_CONFIG for all workers
# Seconds for workers to end: to save after a signal, and after one of them failed.
SAVE_TIMEOUT, FAILURE_TIMEOUT = 20.0, 4.0
# Exit code of a user error: a retry would fail again.
USER_ERROR = 2
# Code of a worker process: the kernel sends it SIGTERM when its parent ends, even by kill -9, also after exec. Linux
# only; elsewhere the workers of a killed launcher run to the end of their training.
STUB = """
import ctypes, os, signal, sys
parent, *command = sys.argv[1:]
if sys.platform == "linux":
    ctypes.CDLL(None, use_errno=True).prctl(1, signal.SIGTERM, 0, 0, 0)
if os.getppid() != int(parent):
    sys.exit(143)
os.execvp(command[0], command)
"""


class WorkerFailed(TrainingError):
    """A worker failed.

    Args:
        message: the message, one line.
        code: its exit code.
    """

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


def launch(
    workers: int, command: Callable[[], Sequence[str]], *, retries: int = 0, advice: Callable[[], str] = str
) -> None:
    """Run several processes that train together until all end.

    Args:
        workers: number of processes.
        command: returns the command of each process; called before each start.
        retries: number of restarts of all processes after one fails.
        advice: returns what to do after a failure, for messages.

    Raises:
        BadOption: `workers` or `retries` is out of range.
        WorkerFailed: a process failed after the last retry; the others are stopped.
        Stopped: SIGTERM or SIGINT was received, and passed on.
    """
    if not 1 <= workers <= MAX_WORKERS or retries < 0:
        raise BadOption(
            f"workers must be from 1 to {MAX_WORKERS}, retries at least 0. Received: {workers=}, "
            f"{retries=}. Change them."
        )
    with _collect_signals() as received:
        for attempt in range(retries + 1):
            index, code = _attempt(workers, command(), received)
            if received:
                raise Stopped(f"Stopped all workers. {advice()}".strip(), 128 + received[0])
            if code == 0:
                return
            failure = f"worker {index} ended {_ending(code)}, and the others were stopped"
            if code == USER_ERROR or attempt == retries:
                raise WorkerFailed(
                    f"{failure[0].upper()}{failure[1:]}. {advice()}".strip(), code if code > 0 else 128 - code
                )
            _write(f"zoo: {failure}; restarting all ({attempt + 1} of {retries})\n", sys.stderr)


def _ending(code: int) -> str:
    return f"by signal {-code} ({signal.Signals(-code).name})" if code < 0 else f"with exit code {code}"


@contextlib.contextmanager
def _collect_signals() -> Iterator[list[int]]:
    """Collect the signals that request a stop."""
    found: list[int] = []
    numbers = [n for n in (signal.SIGINT, *ENDING) if signal.getsignal(n) != signal.SIG_IGN]
    before = {number: signal.signal(number, lambda n, _: found.append(n)) for number in numbers}
    try:
        yield found
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _attempt(count: int, command: Sequence[str], received: Sequence[int]) -> tuple[int, int]:
    """Run all workers; return the number and the exit code of the first that failed, (0, 0) if none did."""
    addresses = [f"127.0.0.1:{port}" for port in _free_ports(count)]
    started: list[_Worker] = []
    try:
        for i in range(count):
            started.append(_Worker(i, command, addresses))
        failed = _wait(started, received)
        _stop(started, received[0] if received else signal.SIGTERM, SAVE_TIMEOUT if received else FAILURE_TIMEOUT)
        return failed
    finally:
        for worker in started:
            worker.kill()


def _wait(workers: Sequence[_Worker], received: Sequence[int]) -> tuple[int, int]:
    """Wait until all end, one fails, or a signal is received."""
    while not received:
        codes = {worker.index: worker.process.poll() for worker in workers}
        # A killed worker comes first: others may have failed because of it.
        failed = sorted((code > 0, i, code) for i, code in codes.items() if code)
        if failed:
            return failed[0][1:]
        if None not in codes.values():
            break
        time.sleep(0.05)
    return 0, 0


def _stop(workers: Sequence[_Worker], number: int, grace: float) -> None:
    """Send a signal to all workers, and wait for them."""
    for worker in workers:
        worker.send(number)
    until = time.monotonic() + grace
    for worker in workers:
        with contextlib.suppress(subprocess.TimeoutExpired):
            worker.process.wait(max(0.0, until - time.monotonic()))


class _Worker:
    """A worker process; its output is printed line by line with its number."""

    def __init__(self, index: int, command: Sequence[str], addresses: Sequence[str]) -> None:
        self.index = index
        task = {CLUSTER: {"worker": list(addresses)}, "task": {"type": "worker", "index": index}}
        self.process = subprocess.Popen(
            [sys.executable, "-c", STUB, str(os.getpid()), *command],
            env={**os.environ, "TF_CONFIG": json.dumps(task)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            # In a new session, Ctrl-C reaches only the launcher, which passes it on once.
            start_new_session=True,
        )
        streams = ((self.process.stdout, sys.stdout), (self.process.stderr, sys.stderr))
        self._readers = [threading.Thread(target=self._print, args=pair, daemon=True) for pair in streams]
        for reader in self._readers:
            reader.start()

    def _print(self, source: IO[bytes], target: Any) -> None:
        for line in source:
            _write(f"[{self.index}] {line.decode(errors='replace').rstrip()}\n", target)

    def send(self, number: int) -> None:
        """Send a signal if the process is running."""
        if self.process.poll() is None:
            self.process.send_signal(number)

    def kill(self) -> None:
        """Kill the process and its children, and print the rest of its output."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        for reader in self._readers:
            reader.join(5)
        for stream in (self.process.stdout, self.process.stderr):
            stream.close()


def _write(line: str, target: Any) -> None:
    """Write a whole line; ignore a closed stream."""
    with contextlib.suppress(BrokenPipeError, ValueError):
        target.write(line)
        target.flush()


def _free_ports(count: int) -> list[int]:
    """Return free ports of this machine."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def launch_training(
    run: Run | Path, start: Sequence[str] = (), *, workers: int, retries: int = 0, quiet: bool = False
) -> None:
    """Run `zoo train` in several processes; a restart resumes the run.

    Args:
        run: the run to resume, or the directory of a new one.
        start: arguments of `zoo train` for a new run: recipe and overrides.
        workers: number of processes.
        retries: number of restarts of all processes after one fails.
        quiet: do not show progress.

    Raises:
        BadOption: the strategy of the run does not use several processes.
        WorkerFailed: see `launch`.
        Stopped: SIGTERM or SIGINT was received.
    """
    path = run.path if isinstance(run, Run) else run
    if isinstance(run, Run) and run.recipe.strategy not in ("auto", "multiworker"):
        raise BadOption(
            f"Expected a run with strategy=multiworker. Received: run={str(path)!r}, strategy={run.recipe.strategy}. "
            f"Resume it with: zoo train --resume {path}"
        )

    def exists() -> bool:
        return (path / "recipe.json").is_file()

    def command() -> list[str]:
        what = ["--resume", str(path)] if exists() else [*start, "--run", str(path)]
        return [sys.executable, "-m", "zoo", "train", *what, *(["--quiet"] if quiet else [])]

    def advice() -> str:
        return f"Resume with: zoo launch --workers {workers} --resume {path}" if exists() else ""

    launch(workers, command, retries=retries, advice=advice)
