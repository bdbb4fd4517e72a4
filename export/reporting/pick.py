"""Selection of the best artifact under limits of accuracy, size, latency and memory."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypedDict

from export.benchmark.measure import describe_machine, measure
from export.core.format import formats
from export.reporting.artifact_sets import ArtifactSet, open_artifact_sets
from export.reporting.comparison import fastest_row, latency_of
from export.reporting.content import artifact_rows
from export.reporting.report import JSON
from export.verification.artifact import Artifact
from training.runs.run import Run
from zoo.common.errors import BadOption, RunError, did_you_mean
from zoo.reading.json_files import read_json


class Latency(TypedDict):
    """Milliseconds of a call."""

    p50: float
    p95: float
    rounds: list[float]


class Memory(TypedDict):
    """Bytes of the process that measured."""

    peak: int
    over_import: int


class Measured(TypedDict):
    """Measurements of an artifact; see `export.benchmark.measure`."""

    latency: dict[str, Latency]
    memory: Memory


class Row(TypedDict):
    """A row of report.json: what is used again."""

    digest: str
    measured: Measured | None


class Measurements(TypedDict):
    """The measurements in report.json."""

    machine: dict[str, Any]
    artifacts: list[Row]


PREFERENCES = {"speed": "fastest", "size": "smallest", "accuracy": "most accurate"}


@dataclasses.dataclass(frozen=True)
class Limits:
    """The limits of an artifact; None is no limit.

    Args:
        max_drop: maximum loss in points of the metric (accuracy, or the main metric of the task) against the best
            trained model of the runs; without labels, the percentage of different predictions.
        max_mb: maximum size in megabytes (10^6 bytes).
        max_ms: maximum median latency in milliseconds.
        max_memory: maximum memory in megabytes, in addition to the imported runtime.
        threads: number of threads of the latency; the number of processors by default.
        runtime: a format, or the common prefix of the formats of a runtime ("tflite").
        gzip: compare sizes after gzip.
        prefer: among the artifacts that fit, the one with the best "speed", "size" or "accuracy".
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
                raise BadOption(f"{name} must be a number of at least 0. Received: {name}={value}")
        if self.threads is not None and self.threads < 1:
            raise BadOption(f"threads must be at least 1. Received: threads={self.threads}")
        if self.prefer not in PREFERENCES:
            raise BadOption(f"prefer must be one of {', '.join(PREFERENCES)}. Received: prefer={self.prefer!r}")
        if self.runtime is not None and not any(_is_of(name, self.runtime) for name in formats.names()):
            near = did_you_mean(self.runtime, formats.names())
            raise BadOption(f"runtime must be a format or a runtime. Received: runtime={self.runtime!r}. {near}")

    def __str__(self) -> str:
        """Return the limits as command-line options."""
        parts = {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if getattr(self, f.name) != f.default}
        return " ".join(f"--{name.replace('_', '-')}{_option_text(value)}" for name, value in parts.items())


def _option_text(value: Any) -> str:
    return "" if value is True else f" {value:g}" if isinstance(value, float) else f" {value}"


@dataclasses.dataclass(frozen=True)
class Pick:
    """The selected artifact.

    Args:
        name: its name in the report.
        path: its path.
        reason: why it was selected, in one line.
        row: its row in the report.
        others: for each other artifact the limits that it fails; empty if it fits.
    """

    name: str
    path: Path
    reason: str
    row: dict[str, Any]
    others: dict[str, list[str]]

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON-safe values."""
        return dataclasses.asdict(self) | {"path": str(self.path)}


@dataclasses.dataclass(frozen=True)
class Miss:
    """A limit that an artifact exceeds: its name, the value (None if unknown), the limit, and a text."""

    name: str
    value: float | None
    limit: float
    text: str

    @property
    def excess(self) -> float:
        """The excess over the limit, relative to it."""
        return math.inf if self.value is None else self.value / self.limit - 1 if self.limit else math.inf


def pick_artifact(sources: Sequence[Run | Path], limits: Limits) -> Pick:
    """Select an artifact of runs or folders; see `export.pick`."""
    sets = open_artifact_sets(sources)
    found = {s.label(a): a for s in sets for a in s.artifacts}
    wanted = {name: artifact for name, artifact in found.items() if _is_of(artifact.format, limits.runtime)}
    if not wanted:
        kind = f" of runtime={limits.runtime!r}" if found else ""
        raise RunError(f"Expected an artifact{kind}. Received: none in {sets[0].path}. Run: zoo export")
    rows = [row for row in artifact_rows(sets, _measurements(sets, wanted, limits.threads)) if row["name"] in wanted]
    misses = {row["name"]: misses_of(row, limits) for row in rows}
    fitting = [row for row in rows if not misses[row["name"]]]
    if not fitting:
        raise BadOption(_no_fit_message(rows, misses, limits))
    best = _best(fitting, limits)
    others = {name: [miss.text for miss in found] for name, found in misses.items() if name != best["name"]}
    return Pick(best["name"], wanted[best["name"]].path, _why(best, fitting, limits), best, others)


def _is_of(fmt: str, runtime: str | None) -> bool:
    return runtime is None or fmt == runtime or fmt.startswith(f"{runtime}_")


def _measurements(
    sets: Sequence[ArtifactSet], wanted: Mapping[str, Artifact], threads: int | None
) -> Mapping[str, Any]:
    """Return the measurements of the report if they are of this machine and these artifacts; else measure."""
    known = known_measurements(sets[0].path, wanted)
    if known and all(latency_of({"measured": found}, threads) for found in known.values()):
        return known
    return measure(wanted, [threads] if threads else ())


def known_measurements(folder: Path, wanted: Mapping[str, Artifact]) -> dict[str, Any]:
    """Return the measurements of artifacts in a report; empty if one is missing, or of another machine.

    The digest of a manifest identifies an artifact, because it covers the digests of all files.
    """
    try:
        content = read_json(folder / JSON, Measurements)
    except RunError:
        return {}
    found = {row["digest"]: row["measured"] for row in content["artifacts"]}
    here = content["machine"] == describe_machine()
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


# The value for each limit, its unit, and its name in messages.
CRITERIA: dict[str, tuple[Callable[[Mapping[str, Any], Limits], float | None], str, str]] = {
    "max_drop": (_drop, "points lost", "accuracy"),
    "max_mb": (_megabytes, "MB", "size"),
    "max_ms": (_milliseconds, "ms", "latency"),
    "max_memory": (_memory, "MB of memory", "memory"),
}


def misses_of(row: Mapping[str, Any], limits: Limits) -> list[Miss]:
    """Return the limits that a row exceeds."""
    found = []
    for name, (value_of, unit, label) in CRITERIA.items():
        limit, value = getattr(limits, name), value_of(row, limits)
        if limit is not None and (value is None or value > limit):
            text = f"{label} unknown" if value is None else f"{value:.3g} {unit} > {limit:g}"
            found.append(Miss(name, value, limit, text))
    return found


def _best(fitting: Sequence[dict[str, Any]], limits: Limits) -> dict[str, Any]:
    """Return the best row that fits; by speed, the smallest of those that are not significantly slower."""
    size = "gzip_bytes" if limits.gzip else "bytes"
    accuracy = {row["name"]: -(row["drop"] if row["drop"] is not None else 1) for row in fitting}

    def latency(row: Mapping[str, Any]) -> float:
        known = _milliseconds(row, limits)
        return math.inf if known is None else known

    quickest = fastest_row(fitting, limits.threads, size) if limits.prefer == "speed" else None
    if quickest:
        return quickest
    if limits.prefer != "accuracy":
        return min(fitting, key=lambda row: (row[size], -accuracy[row["name"]], latency(row)))
    return min(fitting, key=lambda row: (-accuracy[row["name"]], latency(row), row[size]))


def _why(best: Mapping[str, Any], fitting: Sequence[Mapping[str, Any]], limits: Limits) -> str:
    """Return the metrics of the selected artifact and the preference that selected it."""
    parts = []
    for name, (value_of, unit, _) in CRITERIA.items():
        value, limit = value_of(best, limits), getattr(limits, name)
        if value is not None:
            parts.append(f"{value:.3g} {unit}" + ("" if limit is None else f" (at most {limit:g})"))
    rank = f"the {PREFERENCES[limits.prefer]} of {len(fitting)} that fit" if len(fitting) > 1 else "no other fits"
    quicker = min(fitting, key=lambda row: _milliseconds(row, limits) or math.inf)
    if limits.prefer == "speed" and len(fitting) > 1 and quicker["name"] != best["name"]:
        rank += f"; {quicker['name']} is larger and not significantly faster"
    return f"{', '.join(parts)}; {rank}"


def _no_fit_message(rows: Sequence[Mapping[str, Any]], misses: Mapping[str, list[Miss]], limits: Limits) -> str:
    """Return a line with the nearest artifact and the limits to relax."""
    name = min((row["name"] for row in rows), key=lambda n: (sum(m.excess for m in misses[n]), len(misses[n])))
    relaxed = [f"--{m.name.replace('_', '-')} {_rounded_up(m.value)}" for m in misses[name] if m.value is not None]
    advice = f" Relax: {' '.join(relaxed)}." if relaxed else " Measure it, or change the limits."
    missed = ", ".join(miss.text for miss in misses[name])
    return f"No artifact of {len(rows)} fits. Received: {limits}. Nearest: {name} ({missed}).{advice}"


def _rounded_up(value: float) -> str:
    """Return a number rounded up to three digits, so that the value is within it."""
    if not value:
        return "0"
    step = 10.0 ** (math.floor(math.log10(abs(value))) - 2)
    return f"{math.ceil(value / step - 1e-9) * step:.4g}"
