"""The processes that artifacts are measured in: forked for `export.benchmark.measure`, ordered by lines of JSON.

Called as `python -m export.benchmark.worker SOCKET`. What is measured of the first artifact that one opens is a cold start:
nothing of the runtime has been imported before. The files are in the system's cache, for their digests were just
checked.
"""

from __future__ import annotations

import dataclasses
import gc
import importlib
import json
import os
import pkgutil
import resource
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from export.benchmark.latency import burst
from export.convert_worker import _import_modules
from export.core.format import Runtime, formats
from export.core.samples import count_of, head, read_samples
from zoo.common.lazy import np

AT_ONCE = 32  # examples in a batch, where the batch is free
RATE_SECONDS = 0.2
# What loads faster is loaded anew each round, for where it comes to lie in memory may make it faster or slower.
RENEWED = 0.05


@dataclasses.dataclass
class Opened:
    """An artifact in this process.

    Args:
        load: `load(threads=…)` loads it.
        threads: threads of its runtime.
        inputs: examples as it takes them.
        runtime: it, while it is loaded.
        seconds: how long loading took.
    """

    load: Callable[..., Runtime]
    threads: int
    inputs: Any
    runtime: Runtime | None = None
    seconds: float = 0.0

    def ready(self) -> Runtime:
        """Return it loaded."""
        if self.runtime is None or self.seconds < RENEWED:
            start = time.perf_counter()
            self.runtime = self.load(threads=self.threads)
            self.seconds = time.perf_counter() - start
        return self.runtime

    def one(self) -> Any:
        """Return the inputs of a call."""
        return take(self.inputs, (self.runtime and self.runtime.batch) or 1)


class Probe:
    """Does what it is ordered to, by method; each returns JSON-safe values."""

    def __init__(self) -> None:
        self._opened: dict[str, Opened] = {}

    def begin(self, modules: dict[str, str]) -> dict[str, Any]:
        """Import what registered formats in the parent."""
        _import_modules(modules)
        return {}

    def open(self, name: str, artifact: dict[str, str], threads: int, keep: bool) -> dict[str, Any]:
        """Load an artifact and run it once; returns seconds of each part and bytes of memory.

        Memory is what the process holds at its peak (resident set), and what of that came after the import.
        """
        load = formats[artifact["format"]].way(artifact["task"]).load
        library = getattr(load, "library", "")
        start = time.perf_counter()
        if library:
            importlib.import_module(library)
        imported = time.perf_counter() - start
        inputs = examples(Path(artifact["samples"]))
        before = _reset_peak()
        opened = self._opened[name] = Opened(_loader(load, artifact["path"]), threads, inputs)
        runtime, one = opened.ready(), opened.one()
        start = time.perf_counter()
        runtime.step(one)
        seconds = {"import": imported, "load": opened.seconds, "first": time.perf_counter() - start}
        memory = {"peak": _peak(), "over_import": max(0, _peak() - before)}
        self._release(opened, keep)
        return {"seconds": seconds, "memory": memory, "batch": runtime.batch, "library": library or load.__module__}

    def burst(self, name: str, keep: bool) -> list[float]:
        """Return the seconds of some calls; unless it is to be kept, the artifact leaves memory again."""
        opened = self._opened[name]
        runtime, one = opened.ready(), opened.one()
        times = burst(lambda: runtime.step(one))
        self._release(opened, keep)
        return times

    def rate(self, name: str, keep: bool) -> dict[str, Any]:
        """Return how many examples a second it answers: in batches where its batch is free, else by several callers."""
        opened = self._opened[name]
        runtime = opened.ready()
        batched = runtime.batch is None and not isinstance(opened.inputs, dict)
        found = _batches(runtime, opened.inputs) if batched else _callers(opened)
        self._release(opened, keep)
        return found

    def _release(self, opened: Opened, keep: bool) -> None:
        if not keep:
            opened.runtime = None
            gc.collect()


def take(inputs: Any, count: int) -> Any:
    """Return so many inputs, the same ones again where there are fewer."""
    if count_of(inputs) >= count:
        return head(inputs, count)
    if isinstance(inputs, dict):
        return {name: take(values, count) for name, values in inputs.items()}
    return np.resize(inputs, (count, *inputs.shape[1:]))


def examples(path: Path) -> Any:
    """Return as many of the inputs among the samples as a call takes; copies, for all of them may be many."""
    few = head(read_samples(path)["inputs"], AT_ONCE)
    return {name: np.array(values) for name, values in few.items()} if isinstance(few, dict) else np.array(few)


def _loader(load: Callable[..., Runtime], path: str) -> Callable[..., Runtime]:
    return lambda threads: load(Path(path), threads=threads)


def _batches(runtime: Runtime, inputs: Any) -> dict[str, Any]:
    """Return the rate of whole batches."""
    many = take(inputs, AT_ONCE)
    runtime.step(many)
    start, calls = time.perf_counter(), 0
    while calls < 2 or time.perf_counter() - start < RATE_SECONDS:
        runtime.step(many)
        calls += 1
    return {"per_second": calls * AT_ONCE / (time.perf_counter() - start), "batch": AT_ONCE, "callers": 1}


def _callers(opened: Opened) -> dict[str, Any]:
    """Return the rate of as many callers as there are threads, each with a runtime of one thread."""
    one, size = opened.one(), (opened.runtime and opened.runtime.batch) or 1
    loaded = [opened.load(threads=1) for _ in range(opened.threads)]
    for runtime in loaded:
        runtime.step(one)
    counts, end = [0] * len(loaded), time.perf_counter() + RATE_SECONDS

    def call(number: int) -> None:
        while not counts[number] or time.perf_counter() < end:
            loaded[number].step(one)
            counts[number] += 1

    threads = [threading.Thread(target=call, args=(number,)) for number in range(len(loaded))]
    start = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return {
        "per_second": sum(counts) * size / (time.perf_counter() - start),
        "batch": size,
        "callers": len(loaded),
    }


def _status(key: str) -> int | None:
    """Return a figure of memory of this process in bytes, None where the system has no such file."""
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith(f"{key}:")), None)


def _peak() -> int:
    """Return the most memory that was resident, in bytes."""
    # What getrusage says on Linux begins with the peak of the process that started this one.
    known = _status("VmHWM")
    return known if known is not None else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _reset_peak() -> int:
    """Let the peak begin anew, and return the resident memory in bytes."""
    gc.collect()
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    except OSError:
        return _peak()
    return _status("VmRSS") or _peak()


def obey(line: socket.socket) -> None:
    """Obey orders until there are no more."""
    probe = Probe()
    with line.makefile("r", encoding="utf-8") as orders, line.makefile("w", encoding="utf-8") as answers:
        for text in orders:
            order = json.loads(text)
            try:
                answer = {"answer": getattr(probe, order.pop("do"))(**order)}
            except Exception as error:
                # Runtimes raise whatever they raise; the parent names it.
                answer = {"error": f"{type(error).__name__}: {' '.join(str(error).split())[:400]}"}
            print(json.dumps(answer), file=answers, flush=True)


def fork(line: int, log: int, control: socket.socket) -> int:
    """Return the number of a new process that obeys orders from a socket and writes to a file what it prints."""
    number = os.fork()
    if number:
        os.close(line)
        os.close(log)
        return number
    code = 1
    try:
        control.close()
        os.dup2(log, 1)
        os.dup2(log, 2)
        obey(socket.socket(fileno=line))
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        # Nothing that the runtimes would do at their end is waited for.
        os._exit(code)


def main(control: socket.socket) -> None:
    """Fork a process for each "f", told its socket and its file; say of a process that is named how it ended."""
    _import_own()
    while True:
        order, handles, _, _ = socket.recv_fds(control, 4, 2)
        if not order:
            return
        if handles:
            answer = fork(*handles, control)
        else:
            answer = os.waitstatus_to_exitcode(os.waitpid(int.from_bytes(order, "big"), 0)[1])
        control.sendall(answer.to_bytes(4, "big", signed=True))


def _import_own() -> None:
    """Import our own formats, none of which imports a runtime; what others registered is imported after the fork."""
    package = importlib.import_module("export.formats")
    for module in pkgutil.iter_modules(package.__path__):
        importlib.import_module(f"{package.__name__}.{module.name}")


if __name__ == "__main__":
    main(socket.socket(fileno=int(sys.argv[1])))
