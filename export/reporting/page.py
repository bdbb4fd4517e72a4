"""What the page of a report shows, from a content of which anything may be missing."""

from __future__ import annotations

import collections
import datetime
import json
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from export.reporting import plots
from export.reporting.curves import confusion, curves
from export.reporting.formatting import artifact_name, milliseconds, size
from export.reporting.tradeoffs import fastest, wilson_interval

ENVIRONMENT = ("hardware", "precision", "strategy", "seed", "versions")
# What figures are called where they are no accuracy.
FIGURES = {"mean_average_precision": "mean average precision", "r2": "R²", "agreement": "agreement"}


def view(content: dict[str, Any]) -> dict[str, Any]:
    """Return all that the template asks for."""
    summary = _gaps(content.get("summary"))
    artifacts = list(map(_artifact, content.get("artifacts") or []))
    run, runs = content.get("run"), list(map(_run, content.get("runs") or []))
    return {
        "title": content.get("title") or "Report",
        "run": run,
        "runs": runs,
        "run_argument": shlex.quote(run) if run else "RUN",
        "recipe_argument": shlex.quote(Path(run).parent.name or "RECIPE") if run else "RECIPE",
        "created": _moment(content.get("created")),
        "summary": summary,
        "figure": _figure(summary["figure"]),
        "compared": _compared(summary, artifacts),
        "interval": _interval(summary),
        "curves": curves(content.get("curves") or []),
        "confusion": confusion(content),
        "artifacts": artifacts,
        "best": _best(content.get("artifacts") or [], artifacts),
        "shipped": [artifact for artifact in artifacts if artifact["passed"]],
        "conditions": _conditions(artifacts, _gaps(content.get("machine"))),
        "tradeoffs": _tradeoffs(artifacts),
        "compressions": [_compression(found) for found in content.get("compressions") or []],
        "recipe": list(_dotted(content.get("recipe") or {})),
        "environment": list(_dotted({key: summary[key] for key in ENVIRONMENT if summary[key] is not None})),
    }


def _artifact(row: dict[str, Any]) -> dict[str, Any]:
    """Return a row with what is worked out of it, and None for all that is missing."""
    artifact = _gaps(row)
    artifact["tolerance"] = _gaps(artifact["tolerance"])
    artifact["name"] = artifact_name(row)
    artifact["difference"] = _minus(artifact["accuracy"], artifact["reference"], artifact["source_accuracy"])
    artifact["parity_difference"] = _minus(artifact["accuracy"], artifact["source_accuracy"])
    measured = artifact["measured"] = _gaps(artifact["measured"])
    measured["latency"] = {int(count): _gaps(found) for count, found in (measured["latency"] or {}).items()}
    for key in ("cold", "memory"):
        measured[key] = _gaps(measured[key])
    artifact["inspection"] = _inspection(artifact["inspection"])
    return artifact


def _inspection(found: dict[str, Any] | None) -> dict[str, Any] | None:
    """Return what stands in an artifact, in words where it is a list of many."""
    if not found:
        return None
    told = _gaps(found)
    told["weights"] = ", ".join(f"{dtype} {count:,}" for dtype, count in (told["weights"] or {}).items())
    shares = [share for share in (told["sparsity"] or {}).values() if share is not None]
    told["sparsity"] = (min(shares), max(shares)) if shares else None
    return told


def _run(summary: dict[str, Any]) -> dict[str, Any]:
    """Return one of several runs."""
    run = _gaps(summary)
    run["interval"] = _interval(run)
    run["figure_name"] = _figure(run["figure"])
    return run


def _compression(found: dict[str, Any]) -> dict[str, Any]:
    made = _gaps(found)
    made["steps"] = list(map(_gaps, made["steps"] or []))
    made["gains"] = list(map(_gaps, made["gains"] or []))
    return made


def _figure(name: str | None) -> str:
    return FIGURES.get(name or "", "accuracy")


def _compared(summary: dict[str, Any], artifacts: list[dict[str, Any]]) -> dict[str, Any]:
    """Return what artifacts are held against each other by: its key and its name, and whether that is one question."""
    key = "accuracy" if not artifacts or any(a["accuracy"] is not None for a in artifacts) else "agreement"
    names = {a["figure"] for a in artifacts} - {None} or {summary["figure"]}
    name = "agreement" if key == "agreement" else _figure(names.pop()) if len(names) == 1 else "figure"
    questions = sorted({a["question"] for a in artifacts} - {None})
    return {"key": key, "name": name, "questions": questions}


def _gaps(values: dict | None) -> dict:
    """Copy a dict so that what is missing reads None."""
    return collections.defaultdict(lambda: None, values or {})


def _minus(a: float | None, *others: float | None) -> float | None:
    """Subtract the first that is known, where there is something to subtract."""
    b = next((other for other in others if other is not None), None)
    return None if a is None or b is None else a - b


def _moment(created: str | None) -> str | None:
    """Write a time in ISO 8601 for people, in UTC; anything else as it came."""
    try:
        moment = datetime.datetime.fromisoformat(created or "").astimezone(datetime.timezone.utc)
    except ValueError:
        return created
    return f"{moment:%Y-%m-%d %H:%M} UTC"


def _interval(summary: dict[str, Any]) -> tuple[float, float] | None:
    """Give the interval of the test accuracy, if that is a share of a known number of examples."""
    accuracy, count = summary["test_accuracy"], summary["test_images"]
    known = accuracy is not None and count and summary["figure"] not in FIGURES
    return wilson_interval(accuracy, count) if known else None


def _best(rows: list[dict[str, Any]], artifacts: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return what is best in a respect: a word, the value as text, the artifact, and how many others are as good.

    Of those that nothing is faster than beyond the spread of the rounds, the most accurate counts as the fastest.
    """
    passed = [(row, shown) for row, shown in zip(rows, artifacts, strict=True) if shown["passed"]]
    sized = [shown for _, shown in passed if shown["bytes"] is not None]
    found = []
    if sized:
        small = min(sized, key=lambda a: a["bytes"])
        found.append({"word": "Smallest", "value": size(small["bytes"]), "artifact": small, "others": 0})
    level = fastest([row for row, _ in passed]) or [row for row in (_quickest(passed),) if row]
    if level:
        quick = [shown for row, shown in passed if any(row is one for one in level)]
        best = min(quick, key=lambda a: (-(a["accuracy"] or 0), a["latency_ms"]))
        value = milliseconds(best["latency_ms"])
        found.append({"word": "Fastest", "value": value, "artifact": best, "others": len(quick) - 1})
    return found


def _quickest(passed: list[tuple[dict[str, Any], dict[str, Any]]]) -> dict[str, Any] | None:
    """Return the row with the shortest latency where nothing is known of rounds."""
    known = [(shown["latency_ms"], number) for number, (_, shown) in enumerate(passed) if shown["latency_ms"]]
    return passed[min(known)[1]][0] if known else None


def _conditions(artifacts: list[dict[str, Any]], machine: dict[str, Any]) -> dict[str, Any]:
    """Say under which conditions the artifacts were measured, each value once."""
    found = {key: sorted({a[key] for a in artifacts if a[key] is not None}) for key in ("images", "batch", "threads")}
    told = {key: " or ".join(f"{value:,}" for value in values) for key, values in found.items()}
    counts = sorted({count for a in artifacts for count in a["measured"]["latency"]})
    return {**told, "counts": counts, "machine": machine["processor"], "cores": machine["cores"]}


def _tradeoffs(artifacts: list[dict[str, Any]]) -> list[dict[str, str]]:
    """Draw accuracy against size and against latency, from the artifacts that have both."""
    key = _compared(_gaps(None), artifacts)["key"]
    sources = {a["reference"] if a["reference"] is not None else a["source_accuracy"] for a in artifacts} - {None}
    source = sources.pop() if len(sources) == 1 and key == "accuracy" else None
    drawn = []
    for name, cost, tick in (("size", "bytes", size), ("latency", "latency_ms", milliseconds)):
        shown = [
            a for a in artifacts if a[key] is not None and a[cost] and (cost == "bytes" or a["batch"] in (None, 1))
        ]
        dots = [plots.Point(a["name"], a[cost], a[key], a["passed"] is not False, a["run"] or "") for a in shown]
        if dots:
            best = [dot.label for dot in dots if dot.passed and not plots.dominated(dot, dots)]
            alt = f"Accuracy against {name}, {len(dots)} artifacts; not dominated: {', '.join(best) or 'none'}."
            svg = plots.tradeoff(name, dots, alt=alt, tick=tick, source=source)
            drawn.append({"name": name, "svg": svg})
    return drawn


def _dotted(values: dict, prefix: str = "") -> Iterator[tuple[str, str]]:
    """Flatten nested dicts into the dotted names that `--set` takes, values as JSON."""
    for key, value in values.items():
        if isinstance(value, dict) and value:
            yield from _dotted(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
