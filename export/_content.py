"""What a report says: a run, its curves, its mistakes and its artifacts, gathered into one JSON-safe value."""

from __future__ import annotations

import datetime
import gzip
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from export._latency import measure as measure_latency
from export._manifest import SAMPLES
from export._pipeline import Artifact, list_artifacts, load_artifact
from export._report import write_report
from export._verify import read_samples
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
        "artifacts": [_row(run, a, latencies.get(a.format, {})) for a in artifacts],
    }
    write_report(content, run.path)
    return content


def _summary(run: Run, result: dict[str, Any]) -> dict[str, Any]:
    """Return the figures at the top of the page."""
    env, splits = run.environment(), result["splits"]
    return {
        "model": run.recipe.model.name,
        "parameters": result["parameters"],
        "input": result["input_shape"],
        "classes": len(result["labels"]),
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
    runtimes = {a.format: load_artifact(a.path, os.cpu_count()) for a in artifacts}
    small = {name: runtime for name, runtime in runtimes.items() if runtime.batch in (None, 1)}
    if not small:
        return {}
    return measure_latency(small, read_samples(artifacts[0].path.parent / SAMPLES)["inputs"])


def _row(run: Run, artifact: Artifact, latency: dict[str, float]) -> dict[str, Any]:
    """Return the row of an artifact in the table."""
    manifest, parity = artifact.manifest, artifact.parity
    return {
        "format": artifact.format,
        "compression": manifest["compression"],
        "path": os.path.relpath(artifact.path, run.path),
        "bytes": manifest["bytes"],
        "gzip_bytes": gzipped(artifact.path),
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


def gzipped(path: Path) -> int:
    """Return the bytes of an artifact when it is sent compressed."""
    files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
    return sum(len(gzip.compress(file.read_bytes(), 6)) for file in files)
