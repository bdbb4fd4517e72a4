"""What artifacts take: latency with one and with all threads, cold start, memory and throughput, each in its runtime.

A runtime's threads belong to its process (TensorFlow's to all of it), so that there is one process for each runtime
and number of threads. They take turns: never do two of them work at once. All are forked from one that has imported
what they have in common and no runtime.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib import metadata
from typing import Any

from export.benchmark.latency import in_turns, sum_up
from export.convert_worker import child_environment, foreign_modules
from export.core.manifest import SAMPLES
from export.pipeline import Artifact
from training.runs.run import processor
from zoo.common.errors import ExportError

# Above so many bytes of artifacts in all, each is loaded for its turn and leaves memory after it.
HELD = 1 << 30
# A cold start that took longer is not repeated.
QUICK = 1.5
# Runtimes that are another one within.
WITHIN = {"keras": "tensorflow"}
# Packages that run artifacts.
RUNTIMES = ("ai-edge-litert", "keras", "numpy", "onnxruntime", "openvino", "tensorflow")


def cores() -> int:
    """Return how many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def machine() -> dict[str, Any]:
    """Return what measurements depend on beside the artifacts: the processor and the versions of the runtimes."""
    versions = {}
    for package in RUNTIMES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[package] = metadata.version(package)
    return {"processor": processor(), "cores": cores(), "versions": versions}


def measure(artifacts: Mapping[str, Artifact], threads: Iterable[int] = ()) -> dict[str, dict[str, Any]]:
    """Measure artifacts in their runtimes, in turns.

    Args:
        artifacts: by any names.
        threads: numbers of threads to measure the latency with; 1 and as many as there are processors by default. The
            rest is measured with the largest.

    Returns:
        By name: "latency", by the number of threads as a string what `export.benchmark.latency.sum_up` returns, of a call at the
        artifact's batch ("batch", 1 where it is free) in milliseconds; "cold", milliseconds to import the runtime, load
        and answer first, and their "total", in a fresh process; "memory", bytes at the "peak" of that process, and what
        of it came "over_import"; "throughput", "per_second" examples in batches of "batch" from "callers" at once.

    Raises:
        ExportError: a runtime failed or died.
    """
    if not artifacts:
        return {}
    counts = sorted(set(threads) or {1, cores()})
    keep = sum(a.manifest["bytes"] for a in artifacts.values()) <= HELD
    orders = {name: _order(name, artifact, keep) for name, artifact in artifacts.items()}
    with contextlib.ExitStack() as stack:
        nursery = stack.enter_context(Nursery())
        children, found = _start(orders, counts[-1], nursery, stack)
        timed = {(name, counts[-1]): child for name, child in children.items()}
        for count in counts[:-1]:
            opened = _open_all(_gathered(orders, found), count, nursery, stack)
            timed |= {(name, count): child for name, child in opened.items()}
        jobs = {key: _burst(child, key[0], keep) for key, child in timed.items()}
        for (name, count), bursts in in_turns(jobs).items():
            found[name]["latency"][str(count)] = sum_up(bursts)
        for name, child in children.items():
            found[name]["throughput"] = child.ask("rate", name=name, keep=keep)
    return {name: {key: row[key] for key in KEYS} for name, row in found.items()}


KEYS = ("latency", "batch", "cold", "memory", "throughput")


def _burst(child: Child, name: str, keep: bool) -> Callable[[], list[float]]:
    return lambda: child.ask("burst", name=name, keep=keep)


def _start(orders: Mapping[str, Any], threads: int, nursery: Nursery, stack: contextlib.ExitStack) -> tuple[dict, dict]:
    """Start each artifact cold, the quick ones twice; returns the process that has each, and what was measured."""
    kept: dict[str, Child] = {}
    children, found = {}, {}
    for name, order in orders.items():
        with contextlib.ExitStack() as own:
            child = own.enter_context(Child(nursery))
            cold = [child.ask("open", **order, threads=threads)]
            if sum(cold[0]["seconds"].values()) < QUICK:
                with Child(nursery) as again:
                    cold.append(again.ask("open", **order, threads=threads))
            library = cold[0]["library"]
            if library not in kept:
                kept[library] = child
                stack.push(own.pop_all())
        children[name] = kept[library]
        if kept[library] is not child:
            kept[library].ask("open", **order, threads=threads)
        found[name] = {**_cold(cold), "latency": {}, "batch": cold[0]["batch"] or 1, "library": library}
    return children, found


def _cold(opened: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the better of the starts: what came between only made one longer."""
    best = min(opened, key=lambda one: sum(one["seconds"].values()))
    parts = {part: 1e3 * seconds for part, seconds in best["seconds"].items()}
    return {"cold": {**parts, "total": sum(parts.values())}, "memory": best["memory"]}


def _gathered(orders: Mapping[str, Any], found: Mapping[str, Any]) -> dict[str, list[Any]]:
    """Return the orders by the runtime that one process has."""
    together: dict[str, list[Any]] = {}
    for name, order in orders.items():
        library = found[name]["library"]
        together.setdefault(WITHIN.get(library, library), []).append(order)
    return together


def _open_all(
    orders: Mapping[str, list[Any]], threads: int, nursery: Nursery, stack: contextlib.ExitStack
) -> dict[str, Child]:
    """Open every artifact with so many threads, those of a runtime in one process; the runtimes start side by side."""
    children = {library: stack.enter_context(Child(nursery)) for library in orders}
    for library, child in children.items():
        for order in orders[library]:
            child.send("open", **order, threads=threads)
    found = {}
    for library, child in children.items():
        for order in orders[library]:
            child.receive()
            found[order["name"]] = child
    return found


def _order(name: str, artifact: Artifact, keep: bool) -> dict[str, Any]:
    """Return what a process must know to open an artifact."""
    task = artifact.manifest["metadata"].get("task", "classify")
    places = {"path": str(artifact.path.resolve()), "samples": str((artifact.folder / SAMPLES).resolve())}
    return {"name": name, "artifact": {"format": artifact.format, "task": task, **places}, "keep": keep}


class Nursery:
    """A process that forks others to measure in; leaving the context ends it."""

    def __enter__(self) -> Nursery:
        self._log = tempfile.TemporaryFile()
        self._control, theirs = socket.socketpair()
        with theirs:
            command = [sys.executable, "-m", "export.benchmark.worker", str(theirs.fileno())]
            pipes = {"stdin": subprocess.DEVNULL, "stdout": self._log, "stderr": self._log}
            self._process = subprocess.Popen(command, env=child_environment(), pass_fds=[theirs.fileno()], **pipes)
        return self

    def __exit__(self, *_: object) -> None:
        self._control.close()
        self._process.kill()
        self._process.wait()
        self._log.close()

    def fork(self, line: socket.socket, log: int) -> int:
        """Return the number of a new process that takes orders from a socket and writes to a file."""
        return self._asked(lambda: socket.send_fds(self._control, [b"f"], [line.fileno(), log]))

    def wait(self, number: int) -> int:
        """Return how a process ended, negative for a signal."""
        return self._asked(lambda: self._control.sendall(number.to_bytes(4, "big")))

    def _asked(self, ask: Callable[[], Any]) -> int:
        """Ask, and return the answer, a number of four bytes; raises ExportError if there is none to be had."""
        found = b""
        with contextlib.suppress(OSError):
            ask()
            found = self._control.recv(4, socket.MSG_WAITALL)
        if len(found) < 4:
            raise ExportError(f"Nothing could be measured: {last_words(self._process.wait(), self._log)}")
        return int.from_bytes(found, "big", signed=True)


class Child:
    """A process that measures; see `export.benchmark.worker.Probe` for what can be asked of it. Leaving the context ends it.

    Args:
        nursery: what forks it.
    """

    def __init__(self, nursery: Nursery) -> None:
        self._nursery = nursery
        self.code: int | None = None

    def __enter__(self) -> Child:
        self._log = tempfile.TemporaryFile()
        line, theirs = socket.socketpair()
        with theirs, line:
            self.number = self._nursery.fork(theirs, self._log.fileno())
            self._line = line.makefile("rw", encoding="utf-8")
        self._names: list[str] = []
        self.send("begin", modules=foreign_modules())
        self.receive()
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(ExportError, ProcessLookupError):
            # Nobody is left to tell where the nursery has died.
            if self.code is None:
                os.kill(self.number, signal.SIGKILL)
                self.code = self._nursery.wait(self.number)
        with contextlib.suppress(OSError):
            # An order that nobody took is still to be written.
            self._line.close()
        self._log.close()

    def ask(self, do: str, **order: Any) -> Any:
        """Send an order and return the answer."""
        self.send(do, **order)
        return self.receive()

    def send(self, do: str, **order: Any) -> None:
        """Send an order; `receive` returns the answers in the same order."""
        self._names.append(order.get("name", "an artifact"))
        with contextlib.suppress(OSError):
            # A dead process has no answer, which `receive` tells with its last words.
            self._line.write(json.dumps({"do": do, **order}) + "\n")
            self._line.flush()

    def receive(self) -> Any:
        """Return an answer.

        Raises:
            ExportError: it failed, or the process died.
        """
        name, line = self._names.pop(0), self._read()
        answer = json.loads(line) if line else {"error": self._last_words()}
        if "error" in answer:
            raise ExportError(f"{name} could not be measured: {answer['error']}")
        return answer["answer"]

    def _read(self) -> str:
        try:
            return self._line.readline()
        except OSError:
            return ""

    def _last_words(self) -> str:
        if self.code is None:
            self.code = self._nursery.wait(self.number)
        return last_words(self.code, self._log)


def last_words(code: int, log: Any) -> str:
    """Say in one line how a process ended, negative codes being signals, and what it wrote last."""
    log.seek(0)
    lines = [line.strip() for line in log.read().decode(errors="replace").splitlines() if line.strip()]
    how = f"was killed by signal {-code}" if code < 0 else f"ended with code {code}"
    return f"the process {how}. Its last words: {(lines or ['none'])[-1][:300]}"
