"""Which artifact to ship: the limits that a user sets, what keeps to them, and what the others fail on."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from export.benchmark.measure import machine, measure
from export.core.format import formats
from export.pipeline import Artifact
from export.reporting.content import Places, rows_of
from export.reporting.report import JSON
from export.reporting.sources import Subject, open_subjects
from export.reporting.tradeoffs import fastest, latency_of
from zoo.common.errors import BadOption, RunError, did_you_mean

PREFERENCES = {"speed": "fastest", "size": "smallest", "accuracy": "most accurate"}


@dataclasses.dataclass(frozen=True)
class Limits:
    """What an artifact must keep to; None is no limit.

    Args:
        max_drop: points of the figure (accuracy, or what the task has) that it may lose against the best trained model
            of the runs; where no figure is known, the percentage of examples that it may answer otherwise.
        max_mb: megabytes (10^6 bytes) that it may have.
        max_ms: milliseconds that half of all calls may take.
        max_memory: megabytes of memory that it may take, beside what the runtime takes when imported.
        threads: for the latency; as many as there are processors by default.
        runtime: formats of one runtime only: a format, or what the names of several begin with ("tflite").
        gzip: count bytes compressed.
        prefer: of what fits, the one with the best "speed", "size" or "accuracy".
    """

    max_drop: float | None = None
    max_mb: float | None = None
    max_ms: float | None = None
    max_memory: float | None = None
    threads: int | None = None
    runtime: str | None = None
    gzip: bool = False
    prefer: str = "speed"

    def __post_init__(self) -> None:
        for name in ("max_drop", "max_mb", "max_ms", "max_memory"):
            value = getattr(self, name)
            if value is not None and not (value >= 0 and math.isfinite(value)):
                raise BadOption(f"{name} must be a number from 0 on. Received: {name}={value}")
        if self.threads is not None and self.threads < 1:
            raise BadOption(f"threads must be at least 1. Received: threads={self.threads}")
        if self.prefer not in PREFERENCES:
            raise BadOption(f"prefer is one of {', '.join(PREFERENCES)}. Received: prefer={self.prefer!r}")
        if self.runtime is not None and not any(_is_of(name, self.runtime) for name in formats.names()):
            near = did_you_mean(self.runtime, formats.names())
            raise BadOption(f"runtime is a format or its runtime. Received: runtime={self.runtime!r}. {near}")

    def __str__(self) -> str:
        """Return them as the command takes them."""
        told = {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if getattr(self, f.name) != f.default}
        return " ".join(f"--{name.replace('_', '-')}{_given(value)}" for name, value in told.items())


def _given(value: Any) -> str:
    return "" if value is True else f" {value:g}" if isinstance(value, float) else f" {value}"


@dataclasses.dataclass(frozen=True)
class Pick:
    """The artifact to ship.

    Args:
        name: what it is called in the report.
        path: where it lies.
        why: in one line.
        row: what the report says of it.
        others: the name of each other artifact, and in words what it fails on; nothing if it fits too.
    """

    name: str
    path: Path
    why: str
    row: dict[str, Any]
    others: dict[str, list[str]]


@dataclasses.dataclass(frozen=True)
class Miss:
    """A limit that is not kept: its name, what was found (None if that is not known), and that in words."""

    name: str
    value: float | None
    limit: float
    text: str

    @property
    def excess(self) -> float:
        """How far beyond the limit, as a share of it."""
        return math.inf if self.value is None else self.value / self.limit - 1 if self.limit else math.inf


def pick_artifact(places: Places, limits: Limits) -> Pick:
    """Choose among the artifacts of runs or folders; see `export.pick`."""
    subjects = open_subjects(places)
    found = {s.label(a): a for s in subjects for a in s.artifacts}
    wanted = {name: artifact for name, artifact in found.items() if _is_of(artifact.format, limits.runtime)}
    if not wanted:
        kind = f" of runtime={limits.runtime!r}" if found else ""
        raise RunError(f"Expected an artifact to pick{kind}. Received: none in {subjects[0].path}. First: zoo export")
    rows = [row for row in rows_of(subjects, _measured(subjects, wanted, limits.threads)) if row["name"] in wanted]
    misses = {row["name"]: misses_of(row, limits) for row in rows}
    fitting = [row for row in rows if not misses[row["name"]]]
    if not fitting:
        raise BadOption(_nothing(rows, misses, limits))
    best = _best(fitting, limits)
    others = {name: [miss.text for miss in found] for name, found in misses.items() if name != best["name"]}
    return Pick(best["name"], wanted[best["name"]].path, _why(best, fitting, limits), best, others)


def _is_of(fmt: str, runtime: str | None) -> bool:
    return runtime is None or fmt == runtime or fmt.startswith(f"{runtime}_")


def _measured(subjects: Sequence[Subject], wanted: Mapping[str, Artifact], threads: int | None) -> Mapping[str, Any]:
    """Return what the report says if it was measured here, of these very artifacts in one go; else measure."""
    known = known_measurements(subjects[0].path, wanted)
    if known and all(latency_of({"measured": found}, threads) for found in known.values()):
        return known
    return measure(wanted, [threads] if threads else ())


def known_measurements(folder: Path, wanted: Mapping[str, Artifact]) -> dict[str, Any]:
    """Return the measurements of artifacts in a folder's report; nothing if one is missing, or on another machine.

    An artifact is known by the digest of its manifest, which holds those of its files.
    """
    try:
        content = json.loads((folder / JSON).read_text(encoding="utf-8"))
        found = {row["digest"]: row["measured"] for row in content["artifacts"]}
        here = content["machine"] == machine()
    except (OSError, ValueError, TypeError, KeyError):
        return {}
    known = {name: found.get(artifact.manifest["digest"]) for name, artifact in wanted.items()}
    return known if here and all(known.values()) else {}


def _drop(row: Mapping[str, Any], _: Limits) -> float | None:
    return None if row["drop"] is None else round(100 * row["drop"], 9)


def _megabytes(row: Mapping[str, Any], limits: Limits) -> float | None:
    return row["gzip_bytes" if limits.gzip else "bytes"] / 1e6


def _milliseconds(row: Mapping[str, Any], limits: Limits) -> float | None:
    found = latency_of(dict(row), limits.threads)
    return found and found["p50"]


def _memory(row: Mapping[str, Any], _: Limits) -> float | None:
    return row["measured"] and row["measured"]["memory"]["over_import"] / 1e6


# What each limit is held against, in which unit, and what that is called where it is not known.
FIGURES: dict[str, tuple[Callable[[Mapping[str, Any], Limits], float | None], str, str]] = {
    "max_drop": (_drop, "points lost", "accuracy"),
    "max_mb": (_megabytes, "MB", "size"),
    "max_ms": (_milliseconds, "ms", "latency"),
    "max_memory": (_memory, "MB of memory", "memory"),
}


def misses_of(row: Mapping[str, Any], limits: Limits) -> list[Miss]:
    """Return the limits that a row does not keep to."""
    found = []
    for name, (figure, unit, what) in FIGURES.items():
        limit, value = getattr(limits, name), figure(row, limits)
        if limit is not None and (value is None or value > limit):
            text = f"{what} not known" if value is None else f"{value:.3g} {unit} > {limit:g}"
            found.append(Miss(name, value, limit, text))
    return found


def _best(fitting: Sequence[dict[str, Any]], limits: Limits) -> dict[str, Any]:
    """Return the best of what fits; by speed the smallest of those that nothing beats beyond the spread of rounds."""
    size = "gzip_bytes" if limits.gzip else "bytes"
    accuracy = {row["name"]: -(row["drop"] if row["drop"] is not None else 1) for row in fitting}

    def slow(row: Mapping[str, Any]) -> float:
        known = _milliseconds(row, limits)
        return math.inf if known is None else known

    if limits.prefer == "speed":
        level = fastest(fitting, limits.threads) or fitting
        return min(level, key=lambda row: (row[size], -accuracy[row["name"]], slow(row)))
    if limits.prefer == "size":
        return min(fitting, key=lambda row: (row[size], -accuracy[row["name"]], slow(row)))
    return min(fitting, key=lambda row: (-accuracy[row["name"]], slow(row), row[size]))


def _why(best: Mapping[str, Any], fitting: Sequence[Mapping[str, Any]], limits: Limits) -> str:
    """Say what it takes, and what it was preferred for."""
    told = []
    for name, (figure, unit, _) in FIGURES.items():
        value, limit = figure(best, limits), getattr(limits, name)
        if value is not None:
            told.append(f"{value:.3g} {unit}" + ("" if limit is None else f" (at most {limit:g})"))
    place = f"the {PREFERENCES[limits.prefer]} of {len(fitting)} that fit" if len(fitting) > 1 else "nothing else fits"
    quicker = min(fitting, key=lambda row: _milliseconds(row, limits) or math.inf)
    if limits.prefer == "speed" and len(fitting) > 1 and quicker["name"] != best["name"]:
        place += f"; {quicker['name']} is no faster beyond the spread, and larger"
    return f"{', '.join(told)}; {place}"


def _nothing(rows: Sequence[Mapping[str, Any]], misses: Mapping[str, list[Miss]], limits: Limits) -> str:
    """Name the nearest miss and what to relax, in one line."""
    name = min((row["name"] for row in rows), key=lambda n: (sum(m.excess for m in misses[n]), len(misses[n])))
    relaxed = [f"--{m.name.replace('_', '-')} {_up(m.value)}" for m in misses[name] if m.value is not None]
    advice = f" Relax: {' '.join(relaxed)}." if relaxed else " Measure it, or choose another."
    missed = ", ".join(miss.text for miss in misses[name])
    return f"No artifact of {len(rows)} fits. Received: {limits}. Nearest: {name} ({missed}).{advice}"


def _up(value: float) -> str:
    """Return a number rounded up to three digits, so that the value keeps to it."""
    if not value:
        return "0"
    step = 10.0 ** (math.floor(math.log10(abs(value))) - 2)
    return f"{math.ceil(value / step - 1e-9) * step:.4g}"
