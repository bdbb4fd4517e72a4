"""The context of the report page, from a content in which any value may be missing."""

from __future__ import annotations

import collections
import datetime
import json
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from export.reporting.comparison import fastest_row, fastest_rows, wilson_interval
from export.reporting.formatting import artifact_name, milliseconds, size
from export.reporting.plots.tradeoff import Point, draw_tradeoff, is_dominated
from export.reporting.training_plots import confusion_section, training_curves

ENVIRONMENT = ("hardware", "precision", "strategy", "seed", "versions")
# Names of the metrics other than accuracy.
METRIC_NAMES = {
    "score": "score, the mean over targets",
    "mean_average_precision": "mean average precision",
    "r2": "R²",
    "agreement": "agreement",
}


def page_context(content: dict[str, Any]) -> dict[str, Any]:
    """Return the variables of the template."""
    summary = _with_defaults(content.get("summary"))
    artifacts = list(map(_artifact, content.get("artifacts") or []))
    run, runs = content.get("run"), list(map(_run, content.get("runs") or []))
    return {
        "title": content.get("title") or "Report",
        "run": run,
        "runs": runs,
        "run_argument": shlex.quote(run) if run else "RUN",
        "recipe_argument": shlex.quote(Path(run).parent.name or "RECIPE") if run else "RECIPE",
        "created": _time_text(content.get("created")),
        "summary": summary,
        "metric": _metric_name(summary["metric"]),
        "compared": _compared(summary, artifacts),
        "interval": _interval(summary),
        "curves": training_curves(content.get("curves") or []),
        "confusion": confusion_section(content),
        "artifacts": artifacts,
        "weights": list(dict.fromkeys(_weights_text(a["weights"]) for a in artifacts if a["weights"])),
        "best": _best(content.get("artifacts") or [], artifacts),
        "passed": [artifact for artifact in artifacts if artifact["passed"]],
        "conditions": _conditions(artifacts, _with_defaults(content.get("machine"))),
        "tradeoffs": _tradeoffs(artifacts),
        "compressions": [_compression(found) for found in content.get("compressions") or []],
        **_data(summary["data"] or {}),
        "recipe": list(_dotted(content.get("recipe") or {})),
        "environment": list(_dotted({key: summary[key] for key in ENVIRONMENT if summary[key] is not None})),
    }


def _data(summary: dict[str, Any]) -> dict[str, Any]:
    """Return the table of examples by class and split, or of examples by split where classes were not counted."""
    counts, examples = summary.get("classes") or {}, summary.get("examples") or {}
    rows = [(label, [found[label] for found in counts.values()]) for label in next(iter(counts.values()), {})]
    return {
        "data_splits": list(counts) or list(examples),
        "data_rows": rows or ([("examples", list(examples.values()))] if examples else []),
        "data_notes": summary.get("notes") or [],
    }


def _artifact(row: dict[str, Any]) -> dict[str, Any]:
    """Return a row with derived values, and None for missing ones."""
    artifact = _with_defaults(row)
    artifact["tolerance"] = _with_defaults(artifact["tolerance"])
    artifact["name"] = artifact_name(row)
    artifact["difference"] = _minus(artifact["accuracy"], artifact["reference"], artifact["source_accuracy"])
    limited = artifact["decided_by"] in (None, "exact", "agreement")
    artifact["tolerance"]["agreement"] = artifact["tolerance"]["agreement"] if limited else None
    artifact["compared_agreement"] = artifact[
        "weighted_agreement" if artifact["decided_by"] == "agreement" else "agreement"
    ]
    artifact["parity_difference"] = _minus(artifact["accuracy"], artifact["source_accuracy"])
    measured = artifact["measured"] = _with_defaults(artifact["measured"])
    measured["latency"] = {int(count): _with_defaults(found) for count, found in (measured["latency"] or {}).items()}
    for key in ("cold", "memory"):
        measured[key] = _with_defaults(measured[key])
    artifact["inspection"] = _inspection(artifact["inspection"])
    return artifact


def _weights_text(found: dict[str, Any]) -> str:
    """Return origin and license of published weights, and whether the user had to accept it."""
    terms = f"license {found['license']}" if found["license"] else "license unknown"
    return f"{found['origin'] or 'a file'}, {terms}{', not for commercial use, accepted' if found['accepted'] else ''}"


def _inspection(found: dict[str, Any] | None) -> dict[str, Any] | None:
    """Return the inspection of an artifact, with long lists as text."""
    if not found:
        return None
    text = _with_defaults(found)
    text["weights"] = ", ".join(f"{dtype} {count:,}" for dtype, count in (text["weights"] or {}).items())
    sparsities = [value for value in (text["sparsity"] or {}).values() if value is not None]
    text["sparsity"] = (min(sparsities), max(sparsities)) if sparsities else None
    return text


def _run(summary: dict[str, Any]) -> dict[str, Any]:
    """Return the summary of one of several runs."""
    run = _with_defaults(summary)
    run["interval"] = _interval(run)
    run["metric_name"] = _metric_name(run["metric"])
    return run


def _compression(found: dict[str, Any]) -> dict[str, Any]:
    made = _with_defaults(found)
    made["steps"] = list(map(_with_defaults, made["steps"] or []))
    made["gains"] = list(map(_with_defaults, made["gains"] or []))
    return made


def _metric_name(name: str | None) -> str:
    return METRIC_NAMES.get(name or "", "accuracy")


def _compared(summary: dict[str, Any], artifacts: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the metric that compares artifacts: its key, its name, and the evaluations of the rows."""
    key = "accuracy" if not artifacts or any(a["accuracy"] is not None for a in artifacts) else "agreement"
    names = {a["metric"] for a in artifacts} - {None} or {summary["metric"]}
    name = "agreement" if key == "agreement" else _metric_name(names.pop()) if len(names) == 1 else "metric"
    evaluations = sorted({a["evaluation"] for a in artifacts} - {None})
    return {"key": key, "name": name, "evaluations": evaluations}


def _with_defaults(values: dict | None) -> dict:
    """Return a copy of a dict in which missing keys are None."""
    return collections.defaultdict(lambda: None, values or {})


def _minus(a: float | None, *others: float | None) -> float | None:
    """Subtract the first known value; None without one."""
    b = next((other for other in others if other is not None), None)
    return None if a is None or b is None else a - b


def _time_text(created: str | None) -> str | None:
    """Format a time in ISO 8601 as UTC; other texts are returned unchanged."""
    try:
        moment = datetime.datetime.fromisoformat(created or "").astimezone(datetime.timezone.utc)
    except ValueError:
        return created
    return f"{moment:%Y-%m-%d %H:%M} UTC"


def _interval(summary: dict[str, Any]) -> tuple[float, float] | None:
    """Return the interval of the test accuracy, if the metric is an accuracy of a known number of examples."""
    accuracy, count = summary["test_accuracy"], summary["test_images"]
    known = accuracy is not None and count and summary["metric"] not in METRIC_NAMES
    return wilson_interval(accuracy, count) if known else None


def _best(rows: list[dict[str, Any]], artifacts: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the smallest and the fastest artifact: a word, the value as text, and the number of equally good ones.

    The fastest is the one that `export.pick` selects without limits.
    """
    passed = [(row, shown) for row, shown in zip(rows, artifacts, strict=True) if shown["passed"]]
    sized = [shown for _, shown in passed if shown["bytes"] is not None]
    found = []
    if sized:
        small = min(sized, key=lambda a: a["bytes"])
        found.append({"word": "Smallest", "value": size(small["bytes"]), "artifact": small, "others": 0})
    measured = [row for row, _ in passed]
    quickest = fastest_row(measured) or _quickest(passed)
    if quickest is not None:
        best = next(shown for row, shown in passed if row is quickest)
        others = max(len(fastest_rows(measured)) - 1, 0)
        found.append({"word": "Fastest", "value": milliseconds(best["latency_ms"]), "artifact": best, "others": others})
    return found


def _quickest(passed: list[tuple[dict[str, Any], dict[str, Any]]]) -> dict[str, Any] | None:
    """Return the row with the lowest latency, for rows without rounds."""
    known = [(shown["latency_ms"], number) for number, (_, shown) in enumerate(passed) if shown["latency_ms"]]
    return passed[min(known)[1]][0] if known else None


def _conditions(artifacts: list[dict[str, Any]], machine: dict[str, Any]) -> dict[str, Any]:
    """Return the conditions of the measurements, each value once."""
    found = {key: sorted({a[key] for a in artifacts if a[key] is not None}) for key in ("images", "batch", "threads")}
    text = {key: " or ".join(f"{value:,}" for value in values) for key, values in found.items()}
    counts = sorted({count for a in artifacts for count in a["measured"]["latency"]})
    return {**text, "counts": counts, "machine": machine["processor"], "cores": machine["cores"]}


def _tradeoffs(artifacts: list[dict[str, Any]]) -> list[dict[str, str]]:
    """Draw accuracy against size and against latency, for the artifacts that have both."""
    key = _compared(_with_defaults(None), artifacts)["key"]
    sources = {a["reference"] if a["reference"] is not None else a["source_accuracy"] for a in artifacts} - {None}
    source = sources.pop() if len(sources) == 1 and key == "accuracy" else None
    drawn = []
    for name, cost, tick in (("size", "bytes", size), ("latency", "latency_ms", milliseconds)):
        shown = [
            a for a in artifacts if a[key] is not None and a[cost] and (cost == "bytes" or a["batch"] in (None, 1))
        ]
        dots = [Point(a["name"], a[cost], a[key], a["passed"] is not False, a["run"] or "") for a in shown]
        if dots:
            best = [dot.label for dot in dots if dot.passed and not is_dominated(dot, dots)]
            alt = f"Accuracy against {name}, {len(dots)} artifacts; not dominated: {', '.join(best) or 'none'}."
            svg = draw_tradeoff(name, dots, alt=alt, tick=tick, source=source)
            drawn.append({"name": name, "svg": svg})
    return drawn


def _dotted(values: dict, prefix: str = "") -> Iterator[tuple[str, str]]:
    """Flatten nested dicts into the dotted names that `--set` takes, values as JSON."""
    for key, value in values.items():
        if isinstance(value, dict) and value:
            yield from _dotted(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
