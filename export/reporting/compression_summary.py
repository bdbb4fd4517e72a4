"""What compressions cost and gained: step by step, and by artifact against the plain one of the same format."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from export.benchmark.latency import MATTERS, ratio
from export.pipeline import Artifact
from export.reporting.sources import Subject
from export.reporting.tradeoffs import faster

KNOWN = ("step", "accuracy", "parameters", "multiply_adds", "zeros", "gzip_bytes", "seconds")


def compressions_of(subject: Subject, rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return each chain once: what the network was as trained and after each step, and what its artifacts gained.

    Args:
        subject: whose artifacts.
        rows: of the report, by which they were measured.
    """
    by_name = {row["name"]: row for row in rows}
    found: dict[str, dict[str, Any]] = {}
    for artifact in (a for a in subject.artifacts if a.manifest["compression"]):
        made = artifact.manifest["compression"]
        steps = [{"step": "as trained", **made["before"]}, *made["steps"]]
        facts = {"chain": made["chain"], "run": subject.name or None}
        told = [{key: step.get(key) for key in KNOWN} for step in steps]
        chain = found.setdefault(made["slug"], {**facts, "steps": told, "gains": []})
        plain = f"{subject.name}: " * bool(subject.name) + artifact.name.removesuffix(f"-{made['slug']}")
        chain["gains"].append(_gain(artifact, by_name[subject.label(artifact)], by_name.get(plain)))
    return list(found.values())


def _gain(artifact: Artifact, row: Mapping[str, Any], plain: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return size and latency of a compressed artifact as shares of the plain one's, and say in words what they mean.

    Zeros alone are taken to bring no speed, whatever the format, until a measurement with each number of threads shows
    it beyond the spread of its rounds.
    """
    size = row["gzip_bytes"] / plain["gzip_bytes"] if plain else None
    shares = _shares(row, plain) if plain else {}
    made = artifact.manifest["compression"]
    fewer = made["steps"][-1]["multiply_adds"] < (1 - MATTERS) * made["before"]["multiply_adds"]
    smaller = "smaller compressed" if size is None or size < 1 - MATTERS else "not smaller compressed"
    signs = {faster(dict(row), dict(plain), int(count)) for count in shares} if plain else set()
    if not shares and fewer:
        speed = "speed not measured"
    else:
        speed = {frozenset({1}): "faster", frozenset({-1}): "slower"}.get(frozenset(signs), "not faster")
    verdict = f"{smaller}, {speed}"
    return {"name": row["name"], "format": row["format"], "gzip_share": size, "latency": shares, "verdict": verdict}


def _shares(row: Mapping[str, Any], plain: Mapping[str, Any]) -> dict[str, list[float | None]]:
    """Return the lower bound, the median and the upper bound of the share of latency, by number of threads."""
    one, two = ((r.get("measured") or {}).get("latency") or {} for r in (row, plain))
    return {count: list(ratio(one[count]["rounds"], two[count]["rounds"])) for count in one if count in two}
