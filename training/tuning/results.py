"""Results of a study and of a learning-rate range test."""

from __future__ import annotations

import dataclasses
from typing import Any


@dataclasses.dataclass(frozen=True)
class Trial:
    """One trial of a study.

    Args:
        number: its number, from 0.
        state: "complete", "pruned", "fail" or "running".
        metric: the name of the compared validation metric.
        value: its value at the end, or at the last epoch of a trial that did not complete; None before the first epoch.
        epochs: number of trained epochs.
        values: the values of the searched keys.
        run: the run directory.
        failure: the error message of a failed trial, else "".
    """

    number: int
    state: str
    metric: str
    value: float | None
    epochs: int
    values: dict[str, Any]
    run: str
    failure: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return the trial as JSON-safe values; the key of the value is the name of the metric."""
        return {
            "trial": self.number,
            "state": self.state,
            self.metric: self.value,
            "epochs": self.epochs,
            "values": self.values,
            "run": self.run,
            **({"failed": self.failure} if self.failure else {}),
        }


@dataclasses.dataclass(frozen=True)
class TuneResult:
    """The result of a study.

    Args:
        study: the study directory.
        metric: the name of the compared validation metric.
        trials: all trials.
        best: the best completed trial.
        importance: fraction of the variance of the metric that each key explains (fANOVA); empty with too few trials.
    """

    study: str
    metric: str
    trials: tuple[Trial, ...]
    best: Trial
    importance: dict[str, float]

    def to_json(self) -> dict[str, Any]:
        """Return the result as JSON-safe values."""
        return {
            "study": self.study,
            "metric": self.metric,
            "trials": [trial.to_json() for trial in self.trials],
            "best": self.best.to_json(),
            "importance": self.importance,
        }


@dataclasses.dataclass(frozen=True)
class LearningRateResult:
    """The result of a learning-rate range test.

    Args:
        learning_rate: the suggestion, where the smoothed loss decreases fastest; None if it never decreases.
        rates: the learning rate of each step.
        losses: the loss of each batch.
        smoothed: the running mean of the losses.
    """

    learning_rate: float | None
    rates: tuple[float, ...]
    losses: tuple[float, ...]
    smoothed: tuple[float, ...]

    @property
    def advice(self) -> str:
        """The suggestion as text."""
        if self.learning_rate is None:
            return "the loss never decreases; start at a lower rate with --low, or check the data"
        rate = f"{self.learning_rate:.2g}"
        return f"the loss decreases fastest at a learning rate of {rate}: --set optimizer.learning_rate={rate}"

    def to_json(self) -> dict[str, Any]:
        """Return the result as JSON-safe values."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in vars(self).items()}
