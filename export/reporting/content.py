"""The content of a report: runs, training curves, confusion matrix and artifacts, as JSON-safe values."""

from __future__ import annotations

import dataclasses
import datetime
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from export.benchmark.measure import describe_machine, measure
from export.reporting.artifact_sets import ArtifactSet, gzip_bytes, open_artifact_sets
from export.reporting.comparison import batch_of, dominating_row, latency_of, wilson_interval
from export.reporting.compression_summary import summarize_compressions
from export.reporting.report import HTML, JSON, write_report
from export.verification.artifact import Artifact
from training.learning.tasks import NAMES, TASKS
from training.recipe.recipe import with_paths
from training.runs.run import Run
from zoo.common.errors import RunError
from zoo.common.portable_paths import shown_path

# The fields of an inspection that the page shows.
INSPECTED = (
    "kind", "opset", "weights", "int8_weights", "int8_operators", "float_fallback", "unsupported", "total_sparsity",
    "sparsity",
)  # fmt: skip
# The fields of a comparison about its decision, which artifacts of older versions lack.
DECISION = ("snr", "weighted_agreement", "drop_interval", "decided_by", "enough")


@dataclasses.dataclass(frozen=True)
class Report:
    """A written report.

    Args:
        html: path of report.html.
        json: path of report.json.
        title: title of the page.
        run: the run directory, or the first of several.
        created: time in ISO 8601, UTC.
        machine: processor, cores and versions of the runtimes; None without measurements.
        runs: summaries of several runs; empty for one.
        artifacts: one row for each artifact.
        compressions: compression pipelines, with the metrics of their steps.
        summary: summary of a single run; None for several.
        recipe: the recipe of a single run.
        curves: metrics of each epoch of a single run.
        labels: class names of a single run.
        confusion: confusion matrix of a single run (rows: truth, columns: prediction).
    """

    html: Path
    json: Path
    title: str
    run: str
    created: str
    machine: dict[str, Any] | None
    runs: list[dict[str, Any]]
    artifacts: list[dict[str, Any]]
    compressions: list[dict[str, Any]]
    summary: dict[str, Any] | None = None
    recipe: dict[str, Any] | None = None
    curves: list[dict[str, Any]] | None = None
    labels: list[str] | None = None
    confusion: list[list[int]] | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the content of report.json, without the parts that the report does not have."""
        content = {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name not in ("html", "json")}
        optional = ("summary", "recipe", "curves", "labels", "confusion")
        return {key: value for key, value in content.items() if value is not None or key not in optional}


def report_runs(sources: Sequence[Run | Path], *, measured: bool = True, out: Path | None = None) -> Report:
    """Write the report of finished runs, or folders of artifacts; see `export.report`."""
    sets = open_artifact_sets(sources)
    content = gather_content(sets, measure_artifacts(sets) if measured else {})
    folder = report_folder(sets, out)
    write_report(content, folder)
    return Report(folder / HTML, folder / JSON, **content)


def report_folder(sets: Sequence[ArtifactSet], out: Path | None = None) -> Path:
    """Return the folder of a report: `out`, which is created, or the first set's folder."""
    if out is None:
        return sets[0].path
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"Expected a folder for the report. Received: out={str(out)!r}: {error.strerror}") from error
    return out


def measure_artifacts(sets: Sequence[ArtifactSet]) -> dict[str, dict[str, Any]]:
    """Measure all artifacts in the same rounds; returns the measurements by label."""
    return measure({one.label(a): a for one in sets for a in one.artifacts})


def gather_content(sets: Sequence[ArtifactSet], measured: Mapping[str, Any]) -> dict[str, Any]:
    """Return the content of a report.

    Args:
        sets: the artifacts.
        measured: results of `export.benchmark.measure.measure`, by label; empty without measurements.
    """
    rows = artifact_rows(sets, measured)
    runs = (
        [
            {"name": one.name, "path": shown_path(one.path), "artifacts": len(one.artifacts), **_summary(one)}
            for one in sets
        ]
        if len(sets) > 1
        else []
    )
    return {
        "title": " and ".join(one.name for one in sets) if runs else _title(sets[0]),
        "run": shown_path(sets[0].path),
        "created": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "machine": describe_machine() if measured else None,
        "runs": runs,
        **({} if runs else _single_run(sets[0])),
        "compressions": [summary for one in sets for summary in summarize_compressions(one, rows)],
        "artifacts": rows,
    }


def _title(artifacts: ArtifactSet) -> str:
    return artifacts.run.recipe.name if artifacts.run else artifacts.model or artifacts.path.name


def _single_run(artifacts: ArtifactSet) -> dict[str, Any]:
    """Return the sections of a report on a single run."""
    if artifacts.run is None:
        return {"summary": _summary(artifacts)}
    result = artifacts.run.result()
    return {
        "summary": _summary(artifacts),
        "recipe": with_paths(artifacts.run.recipe, shown_path)[0].to_json(),
        "curves": artifacts.run.metrics(),
        "labels": result["labels"],
        "confusion": result["test"]["confusion"],
    }


def _summary(artifacts: ArtifactSet) -> dict[str, Any]:
    """Return the metrics at the top of the page."""
    run = artifacts.run
    if run is None:
        return {"model": artifacts.model, "metric": None, "trained": False}
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
        "data": (run.statistics() or {}).get("summary"),
        "epochs": run.recipe.epochs,
        "seconds": result["seconds"],
        "precision": result["precision"],
        "strategy": result["strategy"],
        "seed": run.recipe.seed,
        "metric": task.main,
        "test_accuracy": test[task.main],
        "test_loss": test["loss"],
        "test_metrics": {NAMES.get(key, key): test[key] for key in task.shown if key != task.main},
        "average_precision": test.get("average_precision"),
        "targets": {name: _target(found) for name, found in test["targets"].items()} if "targets" in test else None,
        "hardware": f"{env['cores']} CPU cores, {env['processor']}",
        "versions": env["versions"] | {"python": env["python"]},
    }


def _target(found: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the page shows of one of several targets."""
    shown = [key for key in TASKS[found["task"]].shown if key in found]
    metrics = {NAMES.get(key, key): found[key] for key in shown}
    return {"task": found["task"], "metrics": metrics, "loss": found["loss"], "examples": found["examples"]}


def artifact_rows(sets: Sequence[ArtifactSet], measured: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return a row for each artifact, with its loss against the best trained model of the same evaluation."""
    rows = []
    for one in sets:
        reference = _trained_metric(one)
        rows += [_row(one, a, measured.get(one.label(a)), reference) for a in one.artifacts]
    for row in rows:
        known = [r["reference"] for r in rows if r["evaluation"] == row["evaluation"] and r["reference"] is not None]
        row |= {"reference": max(known, default=None), **_drop(row, max(known, default=None))}
    for row in rows:
        row["dominated_by"] = dominating_row(row, rows)
    return rows


def _row(artifacts: ArtifactSet, artifact: Artifact, measured: Any, reference: float | None) -> dict[str, Any]:
    """Return the row of an artifact."""
    manifest, parity = artifact.manifest, artifact.parity
    metric, accuracy = parity["metric"], parity["accuracy"]
    has_interval = metric == "accuracy" and accuracy is not None and parity["n"]
    row = {
        "name": artifacts.label(artifact),
        "run": artifacts.name or None,
        "format": artifact.format,
        "compression": (manifest["compression"] or {}).get("slug"),
        "path": os.path.relpath(artifact.path, artifacts.path),
        "digest": manifest["digest"],
        "weights": _weights(manifest["source"]),
        "bytes": manifest["bytes"],
        "gzip_bytes": gzip_bytes(artifact),
        "batch": manifest["batch"] or 1,
        "accuracy": accuracy,
        "interval": list(wilson_interval(accuracy, parity["n"])) if has_interval else None,
        "source_accuracy": parity["source_accuracy"],
        "reference": reference,
        "metric": metric,
        "evaluation": _evaluation(artifacts, metric, parity["n"]),
        "agreement": parity["agreement"],
        "max_difference": parity["max"],
        "mean_difference": parity["mean"],
        "relative": parity["relative"],
        "images": parity["n"],
        "tolerance": parity["tolerance"],
        **{key: parity.get(key) for key in DECISION},
        "passed": parity["passed"],
        "inspection": {key: value for key, value in manifest["inspection"].items() if key in INSPECTED},
        "measured": measured,
    }
    latency = latency_of(row) or {}
    threads = max(map(int, measured["latency"])) if measured else None
    times = {"latency_ms": latency.get("p50"), "latency_p95_ms": latency.get("p95"), "threads": threads}
    return row | times | {"batch": batch_of(row)}


def _weights(source: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return origin and license of the published weights that an artifact is made from; None for none."""
    if not source.get("weights_origin") and not source.get("weights_license"):
        return None
    accepted = source.get("noncommercial_accepted", False)
    return {"origin": source.get("weights_origin"), "license": source["weights_license"], "accepted": accepted}


def _evaluation(artifacts: ArtifactSet, metric: str, count: int) -> str:
    """Return metric and data of an evaluation; only rows with the same evaluation are compared."""
    if artifacts.run is None:
        return f"{metric} on {count} examples of {artifacts.path.name}"
    data = artifacts.run.recipe.data
    return f"{metric} on {count} test examples of {data.name}{f' in {shown_path(data.path)}' if data.path else ''}"


def _trained_metric(artifacts: ArtifactSet) -> float | None:
    """Return the metric of the trained model, on the examples of the verification where that is known.

    Compressed artifacts are verified against the compressed model, so that their record has the trained model's metric.
    """
    plain = [a.parity["source_accuracy"] for a in artifacts.artifacts if not a.manifest["compression"]]
    records = [a.manifest["compression"] for a in artifacts.artifacts if a.manifest["compression"]]
    before = [record["before"]["accuracy"] for record in records]
    return next((value for value in (*plain, *before) if value is not None), None)


def _drop(row: Mapping[str, Any], reference: float | None) -> dict[str, Any]:
    """Return the loss of the metric; without a metric the fraction of different predictions."""
    if row["accuracy"] is not None and reference is not None:
        return {"drop": reference - row["accuracy"], "drop_by": "metric"}
    if row["agreement"] is not None:
        return {"drop": 1 - row["agreement"], "drop_by": "agreement"}
    return {"drop": None, "drop_by": None}
