"""Metrics of the comparison with the source model, by task: top-1, decisions on labels, or values."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from export.core.tolerance import Tolerance
from training.learning.metrics import label_metrics, value_metrics
from zoo.common.lazy import np

if TYPE_CHECKING:
    import numpy as _np

# A logit of at most this fraction of the largest one is rounding and decides nothing.
UNDECIDED = 1e-6
# Loss of a metric by rounding, where the format allows none and the metric sorts or squares.
ROUNDING = 1e-4


@dataclasses.dataclass(frozen=True)
class Measure:
    """How a task's outputs are compared.

    Args:
        metric: what "accuracy" and "source_accuracy" are for the task; 1 is best.
        metrics: `metrics(outputs, source, labels)` returns agreement and accuracies.
        scale: `scale(source)` returns the value that errors are relative to.
        slack: loss of the metric that is allowed in addition to the format's tolerance.
        times: factor of the format's allowed drop: an average precision depends on the order of all examples, which 8
            bits change where no prediction changes.
        labeled: `labeled(labels)` returns which rows have a label.
    """

    metric: str
    metrics: Callable[[Any, Any, Any], dict[str, Any]]
    scale: Callable[[Any], float]
    slack: float = 0.0
    times: float = 1.0
    labeled: Callable[[Any], Any] = lambda labels: labels >= 0

    def adjust(self, tolerance: Tolerance) -> Tolerance:
        """Return the tolerance of a format for the task."""
        return dataclasses.replace(tolerance, drop=self.times * tolerance.drop + self.slack)


def _largest(source: _np.ndarray) -> float:
    return float(np.abs(source).max()) + 1e-12


def _range(source: _np.ndarray) -> float:
    """Return the range of values; float32 resolves no less than a millionth of the largest value."""
    return float(np.ptp(source)) + 1e-6 * _largest(source)


def _every_row(labels: _np.ndarray) -> _np.ndarray:
    return np.ones(len(labels), bool)


def _top1_metrics(logits: Any, source: Any, labels: Any) -> dict[str, Any]:
    """Return how often the top-1 of logits (n, classes) equals the source's and the labels (n,)."""
    top, source_top = logits.argmax(-1), source.argmax(-1)
    return {
        "agreement": float((top == source_top).mean()),
        "accuracy": float((top == labels).mean()),
        "source_accuracy": float((source_top == labels).mean()),
    }


def _label_metrics(logits: Any, source: Any, labels: Any) -> dict[str, Any]:
    """Return the fraction of equal decisions of logits (n, labels), and the mean average precisions."""
    same = ((logits > 0) == (source > 0)) | (np.abs(source) <= UNDECIDED * _largest(source))
    precision, source_precision = (label_metrics(labels, a)["mean_average_precision"] for a in (logits, source))
    return {"agreement": float(same.mean()), "accuracy": precision, "source_accuracy": source_precision}


def _value_metrics(values: Any, source: Any, labels: Any) -> dict[str, Any]:
    """Return R² and mean absolute error of values (n, targets)."""
    metrics, source_metrics = value_metrics(labels, values), value_metrics(labels, source)
    r2 = {"accuracy": metrics["r2"], "source_accuracy": source_metrics["r2"]}
    return {"agreement": None, **r2, "mae": metrics["mae"], "source_mae": source_metrics["mae"]}


CLASSIFICATION = Measure("accuracy", _top1_metrics, _largest)
MEASURES = {
    "multilabel": Measure(
        "mean_average_precision", _label_metrics, _largest, slack=ROUNDING, times=2.0, labeled=_every_row
    ),
    "regress": Measure("r2", _value_metrics, _range, slack=ROUNDING, labeled=_every_row),
}


def measure_of(task: str) -> Measure:
    """Return how a task's outputs are compared."""
    return MEASURES.get(task, CLASSIFICATION)
