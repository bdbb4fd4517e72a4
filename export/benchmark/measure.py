"""Measure artifacts in their runtimes: latency by number of threads, cold start, memory and throughput.

The threads of a runtime belong to its process, so that there is one process for each runtime and number of threads.
The processes take turns; never do two of them compute at once. All are forked from one that has imported their common
modules and no runtime.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib import metadata
from typing import Any

from export.benchmark.processes import ForkServer, WorkerProcess
from export.benchmark.statistics import run_rounds, summarize
from export.core.manifest import SAMPLES
from export.verification.artifact import Artifact
from training.runs.environment import processor

# If the artifacts have more bytes together, each is unloaded after its turn.
MAX_LOADED_BYTES = 1 << 30
# Cold starts that take longer are not repeated.
REPEAT_SECONDS = 1.5
# Runtimes that run inside another one.
SHARED_RUNTIME = {"keras": "tensorflow"}
# Packages that run artifacts.
RUNTIME_PACKAGES = ("ai-edge-litert", "keras", "numpy", "onnxruntime", "openvino", "tensorflow")
KEYS = ("latency", "batch", "cold", "memory", "throughput")


def count_cores() -> int:
    """Return how many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def describe_machine() -> dict[str, Any]:
    """Return the processor, the number of cores and the versions of the runtimes."""
    versions = {}
    for package in RUNTIME_PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[package] = metadata.version(package)
    return {"processor": processor(), "cores": count_cores(), "versions": versions}


def measure(artifacts: Mapping[str, Artifact], threads: Iterable[int] = ()) -> dict[str, dict[str, Any]]:
    """Measure artifacts in their runtimes, in turns.

    Args:
        artifacts: the artifacts by any names.
        threads: numbers of threads for the latency; 1 and the number of processors by default. Cold start, memory and
            throughput use the largest.

    Returns:
        By name: "latency", for each number of threads as a string the result of
        `export.benchmark.statistics.summarize`, in milliseconds of a call with "batch" examples (1 if dynamic); "cold",
        milliseconds to "import" the runtime, "load" and run the "first" call, and their "total", in a fresh process;
        "memory", bytes at the "peak" of that process, and the part "over_import"; "throughput", examples "per_second"
        in batches of "batch" from "callers" at once.

    Raises:
        ExportError: a runtime failed or died.
    """
    if not artifacts:
        return {}
    counts = sorted(set(threads) or {1, count_cores()})
    keep_loaded = sum(a.manifest["bytes"] for a in artifacts.values()) <= MAX_LOADED_BYTES
    requests = {name: _open_request(name, artifact, keep_loaded) for name, artifact in artifacts.items()}
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(ForkServer())
        workers, results = _cold_starts(requests, counts[-1], server, stack)
        by_threads = {(name, counts[-1]): worker for name, worker in workers.items()}
        for count in counts[:-1]:
            opened = _open_all(_by_runtime(requests, results), count, server, stack)
            by_threads |= {(name, count): worker for name, worker in opened.items()}
        jobs = {key: _latency_job(worker, key[0], keep_loaded) for key, worker in by_threads.items()}
        for (name, count), rounds in run_rounds(jobs).items():
            results[name]["latency"][str(count)] = summarize(rounds)
        for name, worker in workers.items():
            results[name]["throughput"] = worker.call("throughput", name=name, keep_loaded=keep_loaded)
    return {name: {key: result[key] for key in KEYS} for name, result in results.items()}


def _latency_job(worker: WorkerProcess, name: str, keep_loaded: bool) -> Callable[[], list[float]]:
    return lambda: worker.call("latency", name=name, keep_loaded=keep_loaded)


def _cold_starts(
    requests: Mapping[str, Any], threads: int, server: ForkServer, stack: contextlib.ExitStack
) -> tuple[dict[str, WorkerProcess], dict[str, dict[str, Any]]]:
    """Open each artifact in a fresh process, fast ones twice; returns the process that keeps each, and the results."""
    kept: dict[str, WorkerProcess] = {}
    workers, results = {}, {}
    for name, request in requests.items():
        with contextlib.ExitStack() as own:
            worker = own.enter_context(WorkerProcess(server))
            starts = [worker.call("open", **request, threads=threads)]
            if sum(starts[0]["seconds"].values()) < REPEAT_SECONDS:
                with WorkerProcess(server) as second:
                    starts.append(second.call("open", **request, threads=threads))
            library = starts[0]["library"]
            if library not in kept:
                kept[library] = worker
                stack.push(own.pop_all())
        workers[name] = kept[library]
        if kept[library] is not worker:
            kept[library].call("open", **request, threads=threads)
        results[name] = {**_fastest_start(starts), "latency": {}, "batch": starts[0]["batch"] or 1, "library": library}
    return workers, results


def _fastest_start(starts: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the faster cold start: noise only adds time."""
    best = min(starts, key=lambda start: sum(start["seconds"].values()))
    parts = {part: 1e3 * seconds for part, seconds in best["seconds"].items()}
    return {"cold": {**parts, "total": sum(parts.values())}, "memory": best["memory"]}


def _by_runtime(requests: Mapping[str, Any], results: Mapping[str, Any]) -> dict[str, list[Any]]:
    """Return the requests by the runtime of their process."""
    grouped: dict[str, list[Any]] = {}
    for name, request in requests.items():
        library = results[name]["library"]
        grouped.setdefault(SHARED_RUNTIME.get(library, library), []).append(request)
    return grouped


def _open_all(
    requests: Mapping[str, list[Any]], threads: int, server: ForkServer, stack: contextlib.ExitStack
) -> dict[str, WorkerProcess]:
    """Open every artifact with a number of threads, one process per runtime; the processes start concurrently."""
    workers = {library: stack.enter_context(WorkerProcess(server)) for library in requests}
    for library, worker in workers.items():
        for request in requests[library]:
            worker.send("open", **request, threads=threads)
    by_name = {}
    for library, worker in workers.items():
        for request in requests[library]:
            worker.receive()
            by_name[request["name"]] = worker
    return by_name


def _open_request(name: str, artifact: Artifact, keep_loaded: bool) -> dict[str, Any]:
    """Return the arguments of `Worker.open` for an artifact."""
    task = artifact.manifest["metadata"].get("task", "classify")
    paths = {"path": str(artifact.path.resolve()), "samples": str((artifact.folder / SAMPLES).resolve())}
    return {"name": name, "artifact": {"format": artifact.format, "task": task, **paths}, "keep_loaded": keep_loaded}
