"""How far answers are from their source's, by task: the likeliest class, decisions on labels, or values."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from export.core.format import Tolerance
from training.learning.metrics import label_metrics, value_metrics
from zoo.common.lazy import np

if TYPE_CHECKING:
    import numpy as _np

# A logit so near to 0, as a share of the largest, is rounding and decides nothing.
UNDECIDED = 1e-6
# What rounding may cost a figure that sorts or squares, where none may be lost.
ROUNDING = 1e-4


@dataclasses.dataclass(frozen=True)
class Measure:
    """What equal means for a task.

    Args:
        figure: what "accuracy" and "source_accuracy" are there, 1 at best.
        shares: returns the figures of answers, the source's answers and the truth.
        size: returns what the largest difference is a share of, from the source's answers.
        slack: how much of the figure may be lost beside what the format's tolerance allows.
        times: how often what that allows may be lost: an average precision depends on the order of all examples, which
            8 bits round where an answer does not change.
        judged: returns which rows have a truth to compare with.
    """

    figure: str
    shares: Callable[[Any, Any, Any], dict[str, Any]]
    size: Callable[[Any], float]
    slack: float = 0.0
    times: float = 1.0
    judged: Callable[[Any], Any] = lambda labels: labels >= 0

    def allowed(self, tolerance: Tolerance) -> Tolerance:
        """Return the tolerance of a format as it holds for the task."""
        return dataclasses.replace(tolerance, drop=self.times * tolerance.drop + self.slack)


def _largest(source: _np.ndarray) -> float:
    return float(np.abs(source).max()) + 1e-12


def _spread(source: _np.ndarray) -> float:
    """Return the range of values; float32 keeps no more than a millionth of what they have in common."""
    return float(np.ptp(source)) + 1e-6 * _largest(source)


def _every_row(labels: _np.ndarray) -> _np.ndarray:
    return np.ones(len(labels), bool)


def _top(logits: Any, source: Any, labels: Any) -> dict[str, Any]:
    """Return how often the likeliest of logits (n, classes) agrees with the source's and with labels (n,)."""
    top, source_top = logits.argmax(-1), source.argmax(-1)
    return {
        "agreement": float((top == source_top).mean()),
        "accuracy": float((top == labels).mean()),
        "source_accuracy": float((source_top == labels).mean()),
    }


def _decisions(logits: Any, source: Any, labels: Any) -> dict[str, Any]:
    """Return the share of equal decisions of logits (n, labels), and the mean average precisions."""
    same = ((logits > 0) == (source > 0)) | (np.abs(source) <= UNDECIDED * _largest(source))
    precision, source_precision = (label_metrics(labels, a)["mean_average_precision"] for a in (logits, source))
    return {"agreement": float(same.mean()), "accuracy": precision, "source_accuracy": source_precision}


def _values(values: Any, source: Any, labels: Any) -> dict[str, Any]:
    """Return how much of the variance of labels (n, targets) is explained, and the mean absolute errors."""
    found, known = value_metrics(labels, values), value_metrics(labels, source)
    shares = {"accuracy": found["r2"], "source_accuracy": known["r2"]}
    return {"agreement": None, **shares, "mae": found["mae"], "source_mae": known["mae"]}


CLASSES = Measure("accuracy", _top, _largest)
MEASURES = {
    "multilabel": Measure("mean_average_precision", _decisions, _largest, slack=ROUNDING, times=2.0, judged=_every_row),
    "regress": Measure("r2", _values, _spread, slack=ROUNDING, judged=_every_row),
}


def measure_of(task: str) -> Measure:
    """Return what equal means for a task."""
    return MEASURES.get(task, CLASSES)
