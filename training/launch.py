"""Several processes of one training on this machine: started together, stopped together, and started again."""

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
from zoo.common.errors import BadOption, TrainingError

MOST = 64
CLUSTER = "cluster"  # TF_CONFIG's word for all workers
# Seconds that workers are given to end: to save when a signal came, and when one of them failed, after which the others
# have nobody to go on with.
SAVING, FAILED = 20.0, 4.0
# Exit code of what was refused in one line: it would be refused again.
REFUSED = 2
# What becomes a worker: a process that is asked to end when its parent does, even by kill -9. The wish outlives exec.
# Linux only; elsewhere workers whose launcher was killed end with their training.
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
    """A worker ended otherwise than well.

    Args:
        message: one line for people.
        code: its exit code.
    """

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


def launch(
    workers: int, command: Callable[[], Sequence[str]], *, retries: int = 0, go_on: Callable[[], str] = str
) -> None:
    """Let several processes train together until they are through.

    Args:
        workers: how many.
        command: returns what each runs, asked for before each start.
        retries: how often all are started again when one fails.
        go_on: returns what to do then, for messages.

    Raises:
        BadOption: a number of workers that cannot be.
        WorkerFailed: one failed, and there were no retries left; all others are stopped.
        Stopped: SIGTERM or SIGINT came, and was passed on.
    """
    if not 1 <= workers <= MOST or retries < 0:
        raise BadOption(f"workers must be from 1 to {MOST}, retries at least 0. Received: {workers=}, {retries=}")
    with _received() as received:
        for attempt in range(retries + 1):
            index, code = _attempt(workers, command(), received)
            if received:
                raise Stopped(f"Stopped, and so are all workers. {go_on()}".strip(), 128 + received[0])
            if code == 0:
                return
            how = f"worker {index} ended {_ending(code)}, and the others were stopped"
            if code == REFUSED or attempt == retries:
                raise WorkerFailed(f"{how[0].upper()}{how[1:]}. {go_on()}".strip(), code if code > 0 else 128 - code)
            _say(f"zoo: {how}; starting all again ({attempt + 1} of {retries})\n", sys.stderr)


def _ending(code: int) -> str:
    return f"by signal {-code} ({signal.Signals(-code).name})" if code < 0 else f"with exit code {code}"


@contextlib.contextmanager
def _received() -> Iterator[list[int]]:
    """Collect the signals that ask to stop."""
    found: list[int] = []
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.signal(number, lambda n, _: found.append(n)) for number in numbers}
    try:
        yield found
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _attempt(count: int, command: Sequence[str], received: Sequence[int]) -> tuple[int, int]:
    """Run all workers to their end; return the number and the code of the first that failed, (0, 0) if none did."""
    addresses = [f"127.0.0.1:{port}" for port in _free_ports(count)]
    found: list[_Worker] = []
    try:
        for i in range(count):
            found.append(_Worker(i, command, addresses))
        failed = _watch(found, received)
        _stop(found, received[0] if received else signal.SIGTERM, SAVING if received else FAILED)
        return failed
    finally:
        for worker in found:
            worker.kill()


def _watch(workers: Sequence[_Worker], received: Sequence[int]) -> tuple[int, int]:
    """Wait until all are through, one has failed, or a signal came."""
    while not received:
        codes = {worker.index: worker.process.poll() for worker in workers}
        # Who was killed comes first: others may have failed because of it.
        failed = sorted((code > 0, i, code) for i, code in codes.items() if code)
        if failed:
            return failed[0][1:]
        if None not in codes.values():
            break
        time.sleep(0.05)
    return 0, 0


def _stop(workers: Sequence[_Worker], number: int, grace: float) -> None:
    """Ask all to end, and wait for it."""
    for worker in workers:
        worker.ask(number)
    until = time.monotonic() + grace
    for worker in workers:
        with contextlib.suppress(subprocess.TimeoutExpired):
            worker.process.wait(max(0.0, until - time.monotonic()))


class _Worker:
    """One process, whose output is passed on line by line with its number."""

    def __init__(self, index: int, command: Sequence[str], addresses: Sequence[str]) -> None:
        self.index = index
        task = {CLUSTER: {"worker": list(addresses)}, "task": {"type": "worker", "index": index}}
        self.process = subprocess.Popen(
            [sys.executable, "-c", STUB, str(os.getpid()), *command],
            env={**os.environ, "TF_CONFIG": json.dumps(task)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            # A group of its own: Ctrl-C reaches the launcher alone, which passes it on once.
            start_new_session=True,
        )
        streams = ((self.process.stdout, sys.stdout), (self.process.stderr, sys.stderr))
        self._readers = [threading.Thread(target=self._pass_on, args=pair, daemon=True) for pair in streams]
        for reader in self._readers:
            reader.start()

    def _pass_on(self, source: IO[bytes], target: Any) -> None:
        for line in source:
            _say(f"[{self.index}] {line.decode(errors='replace').rstrip()}\n", target)

    def ask(self, number: int) -> None:
        """Send a signal, if it still runs."""
        if self.process.poll() is None:
            self.process.send_signal(number)

    def kill(self) -> None:
        """End it, with all that it started, and pass on the rest of what it said."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        for reader in self._readers:
            reader.join(5)
        for stream in (self.process.stdout, self.process.stderr):
            stream.close()


def _say(line: str, target: Any) -> None:
    """Write a line whole; nobody may be reading any more."""
    with contextlib.suppress(BrokenPipeError, ValueError):
        target.write(line)
        target.flush()


def _free_ports(count: int) -> list[int]:
    """Return ports of this machine that nobody listens on."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def launch_training(
    run: Run | Path, start: Sequence[str] = (), *, workers: int, retries: int = 0, quiet: bool = False
) -> None:
    """Let several processes run `zoo train`, and go on with the run when they are started again.

    Args:
        run: the run to go on with, or where a new one is made.
        start: what begins a new one: recipe and changes, as `zoo train` takes them.
        workers: how many.
        retries: how often all are started again when one fails.
        quiet: no progress.

    Raises:
        BadOption: a run that is not trained by several processes.
        WorkerFailed: see `launch`.
        Stopped: SIGTERM or SIGINT came.
    """
    path = run.path if isinstance(run, Run) else run
    if isinstance(run, Run) and run.recipe.strategy not in ("auto", "multiworker"):
        raise BadOption(
            f"Several processes train a run of strategy=multiworker. Received: {path}, of {run.recipe.strategy}. "
            f"Go on with: zoo train --resume {path}"
        )

    def there() -> bool:
        return (path / "recipe.json").is_file()

    def command() -> list[str]:
        what = ["--resume", str(path)] if there() else [*start, "--run", str(path)]
        return [sys.executable, "-m", "zoo", "train", *what, *(["--quiet"] if quiet else [])]

    def go_on() -> str:
        return f"Go on with: zoo launch --workers {workers} --resume {path}" if there() else ""

    launch(workers, command, retries=retries, go_on=go_on)
