"""What a report says: a run, its curves, its mistakes and its artifacts, gathered into one JSON-safe value."""

from __future__ import annotations

import datetime
import gzip
import os
from collections.abc import Sequence
from typing import Any

from export._latency import measure as measure_latency
from export._manifest import SAMPLES
from export._pipeline import Artifact, list_artifacts, load_artifact
from export._report import write_report
from export._samples import read_samples
from training._run import Run


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
        "compressions": _compressions(artifacts),
        "artifacts": [_row(run, a, latencies.get(a.name, {})) for a in artifacts],
    }
    write_report(content, run.path)
    return content


def _summary(run: Run, result: dict[str, Any]) -> dict[str, Any]:
    """Return the figures at the top of the page."""
    env, splits, text = run.environment(), result["splits"], run.text()
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
        "test_accuracy": result["test"]["accuracy"],
        "test_loss": result["test"]["loss"],
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
        "agreement": parity["agreement"],
        "max_difference": parity["max"],
        "mean_difference": parity["mean"],
        "relative": parity["relative"],
        "images": parity["n"],
        "tolerance": parity["tolerance"],
        "passed": parity["passed"],
    }


def _compressions(artifacts: Sequence[Artifact]) -> list[dict[str, Any]]:
    """Return each chain once, with what the network was as trained and after each step."""
    found = {}
    for compression in (a.manifest["compression"] for a in artifacts if a.manifest["compression"]):
        steps = [{"step": "as trained", **compression["before"]}, *compression["steps"]]
        known = ("step", "accuracy", "parameters", "multiply_adds", "zeros", "gzip_bytes", "seconds")
        rows = [{key: step.get(key) for key in known} for step in steps]
        found[compression["slug"]] = {"chain": compression["chain"], "steps": rows}
    return list(found.values())


def gzipped(artifact: Artifact) -> int:
    """Return the bytes of an artifact when it is sent compressed."""
    files = (artifact.folder / name for name in artifact.manifest["files"] if name != SAMPLES)
    return sum(len(gzip.compress(file.read_bytes(), 6)) for file in files)
