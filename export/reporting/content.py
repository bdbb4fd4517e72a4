"""What a report says: runs, their curves and mistakes, and their artifacts, gathered into one JSON-safe value."""

from __future__ import annotations

import datetime
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from export.benchmark.measure import machine, measure
from export.pipeline import Artifact
from export.reporting.compression_summary import compressions_of
from export.reporting.report import write_report
from export.reporting.sources import Subject, gzipped, open_subjects
from export.reporting.tradeoffs import batch_of, dominator, latency_of, wilson_interval
from training.learning.tasks import NAMES, TASKS
from training.runs.run import Run
from zoo.common.errors import RunError

Places = Sequence[Run | Path]
# What the page shows of what stands in an artifact.
INSPECTED = (
    "kind", "opset", "weights", "int8_weights", "int8_operators", "float_islands", "foreign", "sparse", "sparsity",
)  # fmt: skip


def report_runs(places: Places, *, measured: bool = True, out: Path | None = None) -> dict[str, Any]:
    """Write the report of finished runs, or folders of artifacts, and return its content; see `export.report`."""
    subjects = open_subjects(places)
    content = gather(subjects, measure_subjects(subjects) if measured else {})
    write_report(content, place_of(subjects, out))
    return content


def place_of(subjects: Sequence[Subject], out: Path | None = None) -> Path:
    """Return the folder of a report: the first subject's own, unless another is given, which is made."""
    if out is None:
        return subjects[0].path
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"Expected a folder for the report. Received: out={str(out)!r}: {error.strerror}") from error
    return out


def measure_subjects(subjects: Sequence[Subject]) -> dict[str, dict[str, Any]]:
    """Measure all artifacts in the same turns; by label."""
    return measure({subject.label(a): a for subject in subjects for a in subject.artifacts})


def gather(subjects: Sequence[Subject], measured: Mapping[str, Any]) -> dict[str, Any]:
    """Return the content of a report.

    Args:
        subjects: what it is about.
        measured: what `export.benchmark.measure.measure` returns, by label; nothing for what was not measured.
    """
    rows = rows_of(subjects, measured)
    compared = [{"name": s.name, "path": str(s.path), **_summary(s)} for s in subjects] if len(subjects) > 1 else []
    return {
        "title": " and ".join(s.name for s in subjects) if compared else _title(subjects[0]),
        "run": str(subjects[0].path),
        "created": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "machine": machine() if measured else None,
        "runs": compared,
        **({} if compared else _one(subjects[0])),
        "compressions": [found for subject in subjects for found in compressions_of(subject, rows)],
        "artifacts": rows,
    }


def _title(subject: Subject) -> str:
    return subject.run.recipe.name if subject.run else subject.model or subject.path.name


def _one(subject: Subject) -> dict[str, Any]:
    """Return what is told of a single run beside its artifacts."""
    if subject.run is None:
        return {"summary": _summary(subject)}
    result = subject.run.result()
    return {
        "summary": _summary(subject),
        "recipe": subject.run.recipe.to_json(),
        "curves": subject.run.metrics(),
        "labels": result["labels"],
        "confusion": result["test"]["confusion"],
    }


def _summary(subject: Subject) -> dict[str, Any]:
    """Return the figures at the top of the page."""
    run = subject.run
    if run is None:
        return {"model": subject.model, "figure": None, "trained": False}
    result, text = run.result(), run.text()
    env, splits = run.environment(), result["splits"]
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


def rows_of(subjects: Sequence[Subject], measured: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return a row for each artifact, with what it loses against the best trained model of the same question."""
    rows = []
    for subject in subjects:
        reference = _trained(subject)
        rows += [_row(subject, a, measured.get(subject.label(a)), reference) for a in subject.artifacts]
    for row in rows:
        known = [r["reference"] for r in rows if r["question"] == row["question"] and r["reference"] is not None]
        row |= {"reference": max(known, default=None), **_loss(row, max(known, default=None))}
    for row in rows:
        row["dominated_by"] = dominator(row, rows)
    return rows


def _row(subject: Subject, artifact: Artifact, measured: Any, reference: float | None) -> dict[str, Any]:
    """Return the row of an artifact in the table."""
    manifest, parity = artifact.manifest, artifact.parity
    figure, accuracy = parity.get("figure", "accuracy"), parity["accuracy"]
    sure = figure == "accuracy" and accuracy is not None and parity["n"]
    row = {
        "name": subject.label(artifact),
        "run": subject.name or None,
        "format": artifact.format,
        "compression": (manifest["compression"] or {}).get("slug"),
        "path": os.path.relpath(artifact.path, subject.path),
        "digest": manifest["digest"],
        "bytes": manifest["bytes"],
        "gzip_bytes": gzipped(artifact),
        "batch": manifest["batch"] or 1,
        "accuracy": accuracy,
        "interval": list(wilson_interval(accuracy, parity["n"])) if sure else None,
        "source_accuracy": parity["source_accuracy"],
        "reference": reference,
        "figure": figure,
        "question": _question(subject, figure, parity["n"]),
        "agreement": parity["agreement"],
        "max_difference": parity["max"],
        "mean_difference": parity["mean"],
        "relative": parity["relative"],
        "images": parity["n"],
        "tolerance": parity["tolerance"],
        "passed": parity["passed"],
        "inspection": _inspected(manifest.get("inspection") or {}),
        "measured": measured,
    }
    latency = latency_of(row) or {}
    threads = max(map(int, measured["latency"])) if measured else None
    return (
        row
        | {"latency_ms": latency.get("p50"), "latency_p95_ms": latency.get("p95"), "threads": threads}
        | {"batch": batch_of(row)}
    )


def _inspected(found: Mapping[str, Any]) -> dict[str, Any] | None:
    return {key: found[key] for key in INSPECTED if found.get(key) is not None} or None


def _question(subject: Subject, figure: str, count: int) -> str:
    """Return what an accuracy answers; only answers to the same question are compared."""
    if subject.run is None:
        return f"{figure} on {count} examples of {subject.path.name}"
    data = subject.run.recipe.data
    return f"{figure} on {count} test examples of {data.name}{f' in {data.path}' if data.path else ''}"


def _trained(subject: Subject) -> float | None:
    """Return the figure of the network as trained, on the examples that artifacts are compared on where that is known.

    What a compressed artifact was compared with is the compressed network.
    """
    plain = [a.parity["source_accuracy"] for a in subject.artifacts if not a.manifest["compression"]]
    before = [a.manifest["compression"]["before"]["accuracy"] for a in subject.artifacts if a.manifest["compression"]]
    return next((value for value in (*plain, *before) if value is not None), None)


def _loss(row: Mapping[str, Any], reference: float | None) -> dict[str, Any]:
    """Return how much of the figure is lost; where that is not known, no more than the share of other answers."""
    if row["accuracy"] is not None and reference is not None:
        return {"drop": reference - row["accuracy"], "drop_by": "figure"}
    if row["agreement"] is not None:
        return {"drop": 1 - row["agreement"], "drop_by": "agreement"}
    return {"drop": None, "drop_by": None}
