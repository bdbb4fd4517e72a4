"""What a report says: a run, its curves, its mistakes and its artifacts, gathered into one JSON-safe value."""

from __future__ import annotations

import datetime
import gzip
import os
from collections.abc import Mapping, Sequence
from typing import Any

from export._latency import measure as measure_latency
from export._manifest import BESIDE, SAMPLES
from export._pipeline import Artifact, list_artifacts, load_artifact
from export._report import write_report
from export._samples import read_samples
from training._run import Run
from training._tasks import NAMES, TASKS

FASTER = 0.95  # a share that two measurements of the same artifact seldom reach


def report_run(run: Run, *, measure: bool = True) -> dict[str, Any]:
    """Write the report of a finished run and return its content; see `export.report`."""
    result = run.result()
    artifacts = list_artifacts(run)
    latencies = _latencies(artifacts) if measure else {}
    content = {
        "title": run.recipe.name,
        "run": str(run.path),
        "created": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "summary": _summary(run, result),
        "recipe": run.recipe.to_json(),
        "curves": run.metrics(),
        "labels": result["labels"],
        "confusion": result["test"]["confusion"],
        "compressions": _compressions(artifacts, latencies),
        "artifacts": [_row(run, a, latencies.get(a.name, {})) for a in artifacts],
    }
    write_report(content, run.path)
    return content


def _summary(run: Run, result: dict[str, Any]) -> dict[str, Any]:
    """Return the figures at the top of the page."""
    env, splits, text = run.environment(), result["splits"], run.text()
    task, test = TASKS[result.get("task", "classify")], result["test"]
    return {
        "model": run.recipe.model.name,
        "parameters": result["parameters"],
        "input": result["input_shape"],
        "task": result.get("task", "classify"),
        "classes": len(result["labels"]),
        "vocabulary": text and len(text.vocabulary),
        "dataset": run.recipe.data.name,
        "train_images": splits.get("train"),
        "validation_images": splits.get("validation"),
        "test_images": splits.get("test"),
        "epochs": run.recipe.epochs,
        "seconds": result["seconds"],
        "precision": result["precision"],
        "strategy": result["strategy"],
        "seed": run.recipe.seed,
        "figure": task.main,
        "test_accuracy": test[task.main],
        "test_loss": test["loss"],
        "test_figures": {NAMES.get(key, key): test[key] for key in task.shown if key != task.main},
        "average_precision": test.get("average_precision"),
        "hardware": f"{env['cores']} CPU cores, {env['processor']}",
        "versions": env["versions"] | {"python": env["python"]},
    }


def _latencies(artifacts: Sequence[Artifact]) -> dict[str, dict[str, float]]:
    """Measure those artifacts that take one example at a time, in turns."""
    runtimes = {a.name: load_artifact(a.path, os.cpu_count()) for a in artifacts}
    small = {name: runtime for name, runtime in runtimes.items() if runtime.batch in (None, 1)}
    if not small:
        return {}
    return measure_latency(small, read_samples(artifacts[0].folder / SAMPLES)["inputs"])


def _row(run: Run, artifact: Artifact, latency: dict[str, float]) -> dict[str, Any]:
    """Return the row of an artifact in the table."""
    manifest, parity = artifact.manifest, artifact.parity
    return {
        "format": artifact.format,
        "compression": (manifest["compression"] or {}).get("slug"),
        "path": os.path.relpath(artifact.path, run.path),
        "bytes": manifest["bytes"],
        "gzip_bytes": gzipped(artifact),
        "latency_ms": latency.get("p50"),
        "latency_p95_ms": latency.get("p95"),
        "threads": os.cpu_count(),
        "batch": manifest["batch"] or 1,
        "accuracy": parity["accuracy"],
        "source_accuracy": parity["source_accuracy"],
        "figure": parity.get("figure", "accuracy"),
        "agreement": parity["agreement"],
        "max_difference": parity["max"],
        "mean_difference": parity["mean"],
        "relative": parity["relative"],
        "images": parity["n"],
        "tolerance": parity["tolerance"],
        "passed": parity["passed"],
    }


def _compressions(artifacts: Sequence[Artifact], latencies: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return each chain once: what the network was as trained and after each step, and what its artifacts gained."""
    known = ("step", "accuracy", "parameters", "multiply_adds", "zeros", "gzip_bytes", "seconds")
    found: dict[str, dict[str, Any]] = {}
    for artifact in (a for a in artifacts if a.manifest["compression"]):
        made = artifact.manifest["compression"]
        steps = [{"step": "as trained", **made["before"]}, *made["steps"]]
        rows = [{key: step.get(key) for key in known} for step in steps]
        chain = found.setdefault(made["slug"], {"chain": made["chain"], "steps": rows, "gains": []})
        plain = next((a for a in artifacts if a.name == artifact.format), None)
        chain["gains"].append(_gain(artifact, plain, latencies))
    return list(found.values())


def _gain(artifact: Artifact, plain: Artifact | None, latencies: Mapping[str, Any]) -> dict[str, Any]:
    """Return size and latency of a compressed artifact as shares of the plain one's, and say in words what they mean.

    Zeros alone are taken to bring no speed, whatever the format, until a measurement shows it.
    """
    times = [latencies.get(a.name, {}).get("p50") for a in (artifact, plain) if a]
    latency = times[0] / times[1] if len(times) == 2 and all(times) else None
    size = gzipped(artifact) / gzipped(plain) if plain else None
    made = artifact.manifest["compression"]
    fewer = made["steps"][-1]["multiply_adds"] < FASTER * made["before"]["multiply_adds"]
    smaller = "smaller compressed" if size is None or size < FASTER else "not smaller compressed"
    if latency is None and fewer:
        speed = "speed not measured"
    else:
        speed = "faster" if latency is not None and latency < FASTER else "not faster"
    return {"format": artifact.format, "gzip_share": size, "latency_share": latency, "verdict": f"{smaller}, {speed}"}


def gzipped(artifact: Artifact) -> int:
    """Return the bytes of an artifact when it is sent compressed."""
    files = (artifact.folder / name for name in artifact.manifest["files"] if name not in BESIDE)
    return sum(len(gzip.compress(file.read_bytes(), 6)) for file in files)
