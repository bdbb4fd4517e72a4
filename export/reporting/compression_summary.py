"""Compressions in a report: the metrics of each step, and each artifact against the uncompressed one of its format."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from export.benchmark.statistics import MIN_DIFFERENCE, latency_ratio
from export.reporting.artifact_sets import ArtifactSet
from export.reporting.comparison import compare_rows
from export.verification.artifact import Artifact

STEP_KEYS = ("step", "accuracy", "parameters", "multiply_adds", "zeros", "gzip_bytes", "seconds")


def summarize_compressions(artifacts: ArtifactSet, rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return each compression pipeline once, with the metrics of its steps and the gains of its artifacts.

    Args:
        artifacts: the artifacts.
        rows: their rows in the report, with measurements.
    """
    by_name = {row["name"]: row for row in rows}
    summaries: dict[str, dict[str, Any]] = {}
    for artifact in (a for a in artifacts.artifacts if a.manifest["compression"]):
        record = artifact.manifest["compression"]
        steps = [{"step": "trained", **record["before"]}, *record["steps"]]
        summary = {
            "pipeline": record["pipeline"],
            "run": artifacts.name or None,
            "steps": [{key: step.get(key) for key in STEP_KEYS} for step in steps],
            "gains": [],
        }
        plain = f"{artifacts.name}: " * bool(artifacts.name) + artifact.name.removesuffix(f"-{record['slug']}")
        gain = _gain(artifact, by_name[artifacts.label(artifact)], by_name.get(plain))
        summaries.setdefault(record["slug"], summary)["gains"].append(gain)
    return list(summaries.values())


def _gain(artifact: Artifact, row: Mapping[str, Any], plain: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return size and latency of a compressed artifact relative to the uncompressed one, with a verdict in words.

    The verdict is "faster" only if the latency is significantly lower for every number of threads: zeros alone bring no
    speed in most runtimes.
    """
    size = row["gzip_bytes"] / plain["gzip_bytes"] if plain else None
    ratios = _latency_ratios(row, plain) if plain else {}
    record = artifact.manifest["compression"]
    fewer = record["steps"][-1]["multiply_adds"] < (1 - MIN_DIFFERENCE) * record["before"]["multiply_adds"]
    smaller = "smaller after gzip" if size is None or size < 1 - MIN_DIFFERENCE else "not smaller after gzip"
    signs = {compare_rows(dict(row), dict(plain), int(count)) for count in ratios} if plain else set()
    if not ratios and fewer:
        speed = "speed not measured"
    else:
        speed = {frozenset({-1}): "faster", frozenset({1}): "slower"}.get(frozenset(signs), "not faster")
    verdict = f"{smaller}, {speed}"
    names = {"name": row["name"], "format": row["format"]}
    return {**names, "gzip_ratio": size, "latency_ratio": ratios, "verdict": verdict}


def _latency_ratios(row: Mapping[str, Any], plain: Mapping[str, Any]) -> dict[str, list[float | None]]:
    """Return lower bound, median and upper bound of the latency ratio, by number of threads."""
    one, two = ((r.get("measured") or {}).get("latency") or {} for r in (row, plain))
    return {count: list(latency_ratio(one[count]["rounds"], two[count]["rounds"])) for count in one if count in two}
