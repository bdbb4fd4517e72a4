"""Findings of a diagnosis, and the evidence that checks read."""

from __future__ import annotations

import dataclasses
import math
import statistics
from typing import Any

# Fraction of the cross-entropy of guessing.
GUESSING = 0.6


@dataclasses.dataclass(frozen=True)
class Finding:
    """A problem of a run.

    Args:
        fault: its identifier, such as "vanishing".
        what: the problem with its numbers, in one sentence.
        advice: what to try.
        metrics: the numbers, JSON-safe.
    """

    fault: str
    what: str
    advice: str
    metrics: dict[str, Any]

    def to_json(self) -> dict[str, Any]:
        """Return the finding as JSON-safe values."""
        return {"fault": self.fault, "what": self.what, "advice": self.advice, "metrics": self.metrics}


@dataclasses.dataclass(frozen=True)
class Diagnosis:
    """The problems of a run.

    Args:
        run: the run directory.
        finished: whether the run is finished.
        epochs: number of completed epochs.
        measurements: number of measured steps.
        findings: the problems, most severe first.
    """

    run: str
    finished: bool
    epochs: int
    measurements: int
    findings: tuple[Finding, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the diagnosis as JSON-safe values."""
        return {**vars(self), "findings": [finding.to_json() for finding in self.findings]}


@dataclasses.dataclass(frozen=True)
class Evidence:
    """The stored data of a run.

    Args:
        rows: metrics of each epoch.
        steps: measured steps, without failures.
        failures: reasons of failures, in order.
        confusion: confusion matrix of the evaluated split, if there is one.
        labels: names of the classes, if known.
    """

    rows: list[dict[str, Any]]
    steps: list[dict[str, Any]]
    failures: list[dict[str, Any]]
    confusion: list[list[int]] | None
    labels: list[str]

    @property
    def guess(self) -> float:
        """Cross-entropy of guessing, 0 without classes."""
        counts = [step["classes"] for step in self.steps if step.get("classes")]
        return math.log(counts[-1]) if counts else 0.0

    def at_peak(self) -> list[dict[str, Any]]:
        """Return the measured steps with a learning rate of at least half the highest."""
        rates = [step["learning_rate"] for step in self.steps]
        return [step for step in self.steps if step["learning_rate"] >= 0.5 * max(rates) > 0] if rates else []

    def is_near_guessing(self) -> bool:
        """Return whether both losses are near that of guessing, or of the first epoch without classes."""
        if not self.rows:
            return False
        last = self.rows[-1]
        if self.guess:
            reference = self.guess
        elif len(self.rows) > 1:
            reference = self.rows[0]["loss"]
        else:
            return False
        return min(last["loss"], last.get("val_loss", last["loss"])) > GUESSING * reference

    def last_medians(self, key: str) -> dict[str, float]:
        """Return the medians of a measurement by layer over the last three measured steps."""
        return medians([step[key] for step in self.steps[-3:]])


def medians(rows: list[dict[str, float | None]]) -> dict[str, float]:
    """Return the median of each layer over all rows that contain it."""
    layers = dict.fromkeys(layer for row in rows for layer in row)
    known = {layer: [row[layer] for row in rows if row.get(layer) is not None] for layer in layers}
    return {layer: statistics.median(values) for layer, values in known.items() if values}


def shorten_list(names: list[str]) -> str:
    """Return the first of many names as text."""
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
