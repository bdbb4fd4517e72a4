"""The worker processes of the benchmark: forked for `export.benchmark.measure`, they obey requests in lines of JSON.

Called as `python -m export.benchmark.worker SOCKET`, it is the fork server. The first artifact that a worker opens is a
cold start: no runtime was imported before. The files are in the page cache, because their digests were just verified.
"""

from __future__ import annotations

import dataclasses
import gc
import importlib
import json
import os
import pkgutil
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from export.benchmark.memory import peak_memory, reset_peak_memory
from export.benchmark.statistics import time_calls
from export.conversion.worker import import_modules
from export.core.format import formats
from export.core.runtime import Runtime
from export.core.samples import count_examples, read_samples, take_examples
from zoo.common.ending import die_with_parent, end_with_parent
from zoo.common.lazy import np

BATCH = 32  # examples of a call, if the batch is dynamic
THROUGHPUT_SECONDS = 0.2
# Artifacts that load faster are loaded again each round, because their address may change the latency.
RELOAD_SECONDS = 0.05


@dataclasses.dataclass
class OpenArtifact:
    """An artifact in this process.

    Args:
        load: `load(threads=…)` loads it.
        threads: threads of its runtime.
        inputs: example inputs.
        runtime: the loaded artifact; None while it is unloaded.
        load_seconds: duration of the last load.
    """

    load: Callable[..., Runtime]
    threads: int
    inputs: Any
    runtime: Runtime | None = None
    load_seconds: float = 0.0

    def loaded(self) -> Runtime:
        """Return the loaded artifact."""
        if self.runtime is None or self.load_seconds < RELOAD_SECONDS:
            start = time.perf_counter()
            self.runtime = self.load(threads=self.threads)
            self.load_seconds = time.perf_counter() - start
        return self.runtime

    def call_inputs(self) -> Any:
        """Return the inputs of one call."""
        return resize_inputs(self.inputs, (self.runtime and self.runtime.batch) or 1)


class Worker:
    """Handles requests, each by the method of its name; methods return JSON-safe values."""

    def __init__(self) -> None:
        self._artifacts: dict[str, OpenArtifact] = {}

    def start(self, modules: dict[str, str]) -> dict[str, Any]:
        """Import the modules that registered formats in the parent."""
        import_modules(modules)
        return {}

    def open(self, name: str, artifact: dict[str, str], threads: int, keep_loaded: bool) -> dict[str, Any]:
        """Load an artifact and call it once; returns the seconds of each part and bytes of memory.

        Memory is the peak resident memory of the process, and the part of it after the import.
        """
        load = formats[artifact["format"]].backend(artifact["task"]).load
        library = getattr(load, "library", "")
        start = time.perf_counter()
        if library:
            importlib.import_module(library)
        import_seconds = time.perf_counter() - start
        inputs = read_examples(Path(artifact["samples"]))
        before = reset_peak_memory()
        opened = self._artifacts[name] = OpenArtifact(_loader(load, artifact["path"]), threads, inputs)
        runtime, call_inputs = opened.loaded(), opened.call_inputs()
        start = time.perf_counter()
        runtime.step(call_inputs)
        seconds = {"import": import_seconds, "load": opened.load_seconds, "first": time.perf_counter() - start}
        memory = {"peak": peak_memory(), "over_import": max(0, peak_memory() - before)}
        _unload(opened, keep_loaded)
        return {"seconds": seconds, "memory": memory, "batch": runtime.batch, "library": library or load.__module__}

    def latency(self, name: str, keep_loaded: bool) -> list[float]:
        """Return the seconds of some calls."""
        opened = self._artifacts[name]
        runtime, call_inputs = opened.loaded(), opened.call_inputs()
        times = time_calls(lambda: runtime.step(call_inputs))
        _unload(opened, keep_loaded)
        return times

    def throughput(self, name: str, keep_loaded: bool) -> dict[str, Any]:
        """Return the examples per second: in batches if the batch is dynamic, else with several callers."""
        opened = self._artifacts[name]
        runtime = opened.loaded()
        batched = runtime.batch is None and not isinstance(opened.inputs, dict)
        result = _batched_throughput(runtime, opened.inputs) if batched else _concurrent_throughput(opened)
        _unload(opened, keep_loaded)
        return result


def _unload(opened: OpenArtifact, keep_loaded: bool) -> None:
    if not keep_loaded:
        opened.runtime = None
        gc.collect()


def resize_inputs(inputs: Any, count: int) -> Any:
    """Return a number of inputs; repeats them if there are fewer."""
    if count_examples(inputs) >= count:
        return take_examples(inputs, count)
    if isinstance(inputs, dict):
        return {name: resize_inputs(values, count) for name, values in inputs.items()}
    return np.resize(inputs, (count, *inputs.shape[1:]))


def read_examples(path: Path) -> Any:
    """Return copies of the sample inputs of one call, so that the other samples can be freed."""
    inputs = take_examples(read_samples(path)["inputs"], BATCH)
    return {name: np.array(values) for name, values in inputs.items()} if isinstance(inputs, dict) else np.array(inputs)


def _loader(load: Callable[..., Runtime], path: str) -> Callable[..., Runtime]:
    return lambda threads: load(Path(path), threads=threads)


def _batched_throughput(runtime: Runtime, inputs: Any) -> dict[str, Any]:
    """Return the throughput of whole batches."""
    batch = resize_inputs(inputs, BATCH)
    runtime.step(batch)
    start, calls = time.perf_counter(), 0
    while calls < 2 or time.perf_counter() - start < THROUGHPUT_SECONDS:
        runtime.step(batch)
        calls += 1
    return {"per_second": calls * BATCH / (time.perf_counter() - start), "batch": BATCH, "callers": 1}


def _concurrent_throughput(opened: OpenArtifact) -> dict[str, Any]:
    """Return the throughput of one caller per thread, each with a runtime of one thread if it can have its own."""
    loaded, inputs = opened.loaded(), opened.call_inputs()
    batch, own = loaded.batch or 1, opened.threads if loaded.shares_threads else 1
    runtimes = [opened.load(threads=own) for _ in range(opened.threads)]
    for runtime in runtimes:
        runtime.step(inputs)
    counts, end = [0] * len(runtimes), time.perf_counter() + THROUGHPUT_SECONDS

    def call(number: int) -> None:
        while not counts[number] or time.perf_counter() < end:
            runtimes[number].step(inputs)
            counts[number] += 1

    threads = [threading.Thread(target=call, args=(number,)) for number in range(len(runtimes))]
    start = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    per_second = sum(counts) * batch / (time.perf_counter() - start)
    return {"per_second": per_second, "batch": batch, "callers": len(runtimes)}


def serve(connection: socket.socket) -> None:
    """Handle requests until the connection closes."""
    worker = Worker()
    with connection.makefile("r", encoding="utf-8") as requests, connection.makefile("w", encoding="utf-8") as replies:
        for line in requests:
            request = json.loads(line)
            try:
                reply = {"result": getattr(worker, request.pop("method"))(**request)}
            except Exception as error:
                # Runtimes raise any class; the parent prints it.
                reply = {"error": f"{type(error).__name__}: {' '.join(str(error).split())[:400]}"}
            print(json.dumps(reply), file=replies, flush=True)


def fork(connection: int, log: int, control: socket.socket) -> int:
    """Return the process id of a new worker that serves a connection and writes its output to a file."""
    pid = os.fork()
    if pid:
        os.close(connection)
        os.close(log)
        return pid
    code = 1
    try:
        die_with_parent()
        control.close()
        os.dup2(log, 1)
        os.dup2(log, 2)
        serve(socket.socket(fileno=connection))
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        # Skips the shutdown code of the runtimes.
        os._exit(code)


def main(control: socket.socket) -> None:
    """Run the fork server: fork a worker for each "f" with its handles, and return the exit code of a given process."""
    _import_formats()
    while True:
        request, handles, _, _ = socket.recv_fds(control, 4, 2)
        if not request:
            return
        if handles:
            reply = fork(*handles, control)
        else:
            reply = os.waitstatus_to_exitcode(os.waitpid(int.from_bytes(request, "big"), 0)[1])
        control.sendall(reply.to_bytes(4, "big", signed=True))


def _import_formats() -> None:
    """Import the formats of this package, which import no runtime; others are imported after the fork."""
    package = importlib.import_module("export.formats")
    for module in pkgutil.iter_modules(package.__path__):
        importlib.import_module(f"{package.__name__}.{module.name}")


if __name__ == "__main__":
    end_with_parent()
    main(socket.socket(fileno=int(sys.argv[1])))
