"""Metrics of the comparison with the source model, by task: top-1, decisions on labels, or values."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from export.core.tolerance import Tolerance
from export.verification.accuracy_drop import Drop, jackknife_drop, paired_drop
from training.learning.metrics import label_metrics, value_metrics
from zoo.common.lazy import np

if TYPE_CHECKING:
    import numpy as _np

# A logit of at most this fraction of the largest one is rounding and decides nothing.
UNDECIDED = 1e-6
# What rounding may add to a probability.
ROUNDED = 0.02
# Loss of a metric by rounding, where the format allows none and the metric sorts or squares.
ROUNDING = 1e-4
# A signal-to-noise ratio in dB that float32 cannot resolve; equal outputs have this one.
MAX_SNR = 200.0


def _every_row(labels: _np.ndarray) -> _np.ndarray:
    return np.ones(len(labels), bool)


@dataclasses.dataclass(frozen=True)
class Measure:
    """How a task's outputs are compared.

    Args:
        metric: what "accuracy" and "source_accuracy" are for the task; 1 is best.
        metrics: `metrics(outputs, labels)` returns the fields of a `Parity` that a model has alone, "accuracy" first.
        same: `same(outputs, source)` returns which predictions are equal, and the margin of each one's decision in the
            source; None for values.
        drop: `drop(outputs, source, labels)` returns the loss of the metric with its interval; None where labels
            say nothing.
        scale: `scale(source)` returns the value that errors are relative to, for all outputs or for each (outputs,).
        snr: `snr(outputs, source)` returns the signal-to-noise ratio in dB.
        slack: loss of the metric that is allowed in addition to the format's tolerance.
        times: factor of the format's allowed drop: an average precision depends on the order of all examples, which 8
            bits change where no prediction changes.
        labeled: `labeled(labels)` returns which rows have a label.
        more: `more(outputs, source)` returns other fields of a `Parity`, if there are any.
        vanishing: the largest output that is nothing but rounding: kernels flush what leads to it to zero.
    """

    metric: str
    metrics: Callable[[Any, Any], dict[str, float]]
    same: Callable[[Any, Any], tuple[Any, Any]] | None
    drop: Callable[[Any, Any, Any], Drop] | None
    scale: Callable[[Any], Any]
    snr: Callable[[Any, Any], float]
    slack: float = 0.0
    times: float = 1.0
    labeled: Callable[[Any], Any] = _every_row
    more: Callable[[Any, Any], dict[str, float]] | None = None
    vanishing: float = 1e-12

    def adjust(self, tolerance: Tolerance) -> Tolerance:
        """Return the tolerance of a format for the task."""
        return dataclasses.replace(tolerance, drop=self.times * tolerance.drop + self.slack)

    def compare(self, outputs: Any, source: Any, labels: Any, labeled: Any = None) -> dict[str, Any]:
        """Return the fields of a `Parity` that outputs have, other than errors; without labels accuracies are None.

        Args:
            outputs: of the artifact.
            source: of the source model.
            labels: of the examples, None without any.
            labeled: which examples have a label, bool (n,); None for all.
        """
        # Outputs that are not finite give a ratio that is not, and fail.
        with np.errstate(all="ignore"):
            unlabeled = {"snr": self.snr(outputs, source), **self._agreement(outputs, source)}
            unlabeled |= self.more(outputs, source) if self.more else {}
        if labeled is None or labels is None:
            return unlabeled | self._accuracy(outputs, source, labels)
        known = (outputs[labeled], source[labeled], labels[labeled]) if labeled.any() else (outputs, source, None)
        return unlabeled | self._accuracy(*known)

    def _agreement(self, outputs: Any, source: Any) -> dict[str, Any]:
        if self.same is None:
            return {"agreement": None, "weighted_agreement": None}
        same, margins = self.same(outputs, source)
        weighted = np.average(same, weights=margins) if margins.any() else same.mean()
        return {"agreement": float(same.mean()), "weighted_agreement": float(weighted)}

    def _accuracy(self, outputs: Any, source: Any, labels: Any) -> dict[str, Any]:
        if labels is None or self.drop is None:
            return {"accuracy": None, "source_accuracy": None, **drop_fields(None)}
        own = {f"source_{name}": value for name, value in self.metrics(source, labels).items()}
        return self.metrics(outputs, labels) | own | drop_fields(self.drop(outputs, source, labels))


def drop_fields(drop: Drop | None) -> dict[str, Any]:
    """Return the fields of a `Parity` for a loss."""
    if drop is None:
        return {"drop": None, "drop_interval": None, "drop_p": None}
    return {"drop": drop.value, "drop_interval": [drop.low, drop.high], "drop_p": drop.p}


def _largest(source: _np.ndarray) -> float:
    """Return the largest logit; `export.verification.comparable` refuses a source where it vanishes."""
    return float(np.abs(source).max()) or 1.0


def _ranges(source: _np.ndarray) -> _np.ndarray:
    """Return the range of the values (n, targets) of each target; of one that is constant, its value.

    float32 resolves no less than a millionth of the largest value.
    """
    largest, ranges = np.abs(source).max(0).astype("float64"), np.ptp(source, axis=0).astype("float64")
    varying = np.where(ranges > 1e-6 * largest, ranges + 1e-6 * largest, largest)
    return np.where(varying > 0, varying, varying.max() or 1.0)


def _decibels(signal: float, noise: float) -> float:
    if noise == 0.0:
        return MAX_SNR
    return float(min(MAX_SNR, 10 * np.log10(signal / noise))) if signal > 0 else -MAX_SNR


def _logits_snr(logits: _np.ndarray, source: _np.ndarray) -> float:
    """Return the ratio for logits (n, classes); a constant that all classes have in common changes no prediction."""

    def centered(values: _np.ndarray) -> _np.ndarray:
        return values - values.mean(-1, keepdims=True, dtype="float64") if values.shape[-1] > 1 else values

    return _decibels((centered(source) ** 2).mean(), (centered(logits - source) ** 2).mean())


def _decisions_snr(logits: _np.ndarray, source: _np.ndarray) -> float:
    """Return the ratio for logits (n, labels); the signal is the spread of each label's logits in the source."""
    spread = source - source.mean(0, keepdims=True, dtype="float64")
    return _decibels((spread**2).mean(), ((logits - source).astype("float64") ** 2).mean())


def _tensor_snr(values: _np.ndarray, source: _np.ndarray) -> float:
    """Return the ratio for values of any shape; the signal is their spread, or they themselves if they are constant."""
    spread = source - source.mean(dtype="float64")
    signal = spread if np.abs(spread).max() > 1e-6 * np.abs(source).max() else source.astype("float64")
    return _decibels((signal**2).mean(), ((values - source).astype("float64") ** 2).mean())


def _values_snr(values: _np.ndarray, source: _np.ndarray) -> float:
    """Return the ratio for values (n, targets); the signal is the source's spread, relative to each target's."""
    spread = source.std(0, dtype="float64")
    spread = np.where(spread > 1e-6 * np.abs(source).max(0), spread, _ranges(source))
    return _decibels(1.0, (((values - source) / spread) ** 2).mean())


def _same_top1(logits: _np.ndarray, source: _np.ndarray) -> tuple[_np.ndarray, _np.ndarray]:
    """Return where the top-1 of logits (n, classes) is the source's, and the margin to its second class."""
    if source.shape[-1] == 1:
        return np.ones(len(source), bool), np.ones(len(source))
    return logits.argmax(-1) == source.argmax(-1), np.ptp(np.partition(source, -2, -1)[..., -2:], -1).astype("float64")


def _same_decisions(logits: _np.ndarray, source: _np.ndarray) -> tuple[_np.ndarray, _np.ndarray]:
    """Return where the decisions of logits (n, labels) are equal, and the source's distance from changing its own."""
    margins = np.abs(source).astype("float64")
    return ((logits > 0) == (source > 0)) | (margins <= UNDECIDED * _largest(source)), margins


def _vectors_snr(vectors: _np.ndarray, source: _np.ndarray) -> float:
    """Return the ratio for vectors (n, width)."""
    return _decibels((source.astype("float64") ** 2).mean(), ((vectors - source).astype("float64") ** 2).mean())


def _units(vectors: _np.ndarray) -> _np.ndarray:
    """Return vectors (n, width) of length 1."""
    vectors = vectors.astype("float64")
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12)


def _same_neighbor(vectors: _np.ndarray, source: _np.ndarray) -> tuple[_np.ndarray, _np.ndarray]:
    """Return where the nearest other example by cosine is the source's, and its lead over the second."""
    if len(source) < 3:
        return np.ones(len(source), bool), np.ones(len(source))
    own, true = (_similarities(_units(values)) for values in (vectors, source))
    nearest = own.argmax(-1)
    first, second = -np.partition(-true, (0, 1), -1)[:, :2].T
    lost = first - np.take_along_axis(true, nearest[:, None], -1)[:, 0]
    return np.isfinite(vectors).all(-1) & (lost <= UNDECIDED), first - second


def _similarities(units: _np.ndarray) -> _np.ndarray:
    """Return the cosines of all pairs (n, n); -2 of an example with itself."""
    cosines = units @ units.T
    np.fill_diagonal(cosines, -2.0)
    return cosines


def _cosine(vectors: _np.ndarray, source: _np.ndarray) -> dict[str, float]:
    return {"cosine": float((_units(vectors) * _units(source)).sum(-1).min())}


def _accuracy(logits: _np.ndarray, labels: _np.ndarray) -> dict[str, float]:
    return {"accuracy": float((logits.argmax(-1) == labels).mean())}


def _mean_average_precision(logits: _np.ndarray, labels: _np.ndarray) -> dict[str, float]:
    return {"accuracy": label_metrics(labels, logits)["mean_average_precision"]}


def _r2(values: _np.ndarray, labels: _np.ndarray) -> dict[str, float]:
    """Return R² and mean absolute error of values (n, targets)."""
    metrics = value_metrics(labels, values)
    return {"accuracy": metrics["r2"], "mae": metrics["mae"]}


def _border(source: _np.ndarray) -> float:
    """Return the output above which a label applies: of a probability, or of a logit."""
    return 0.5 if source.min() >= -ROUNDED and source.max() <= 1.0 + ROUNDED else 0.0


def _same_sides(outputs: _np.ndarray, source: _np.ndarray) -> tuple[_np.ndarray, _np.ndarray]:
    """Return where outputs (n, labels) are on the source's side of the border, and its distance from there."""
    border = _border(source)
    margins = np.abs(source - border).astype("float64")
    return ((outputs > border) == (source > border)) | (margins <= UNDECIDED * _largest(source)), margins


def _binary_accuracy(outputs: _np.ndarray, labels: _np.ndarray) -> dict[str, float]:
    return {"accuracy": float(((outputs > _border(outputs)) == (labels > 0.5)).mean())}


def _binary_drop(outputs: _np.ndarray, source: _np.ndarray, labels: _np.ndarray) -> Drop:
    if labels.shape[-1] > 1:  # the labels of an example are not independent
        return _jackknife(_binary_accuracy)(outputs, source, labels)
    right, before = (((each > _border(each)) == (labels > 0.5))[:, 0] for each in (outputs, source))
    return paired_drop(right, before)


def _paired(logits: _np.ndarray, source: _np.ndarray, labels: _np.ndarray) -> Drop:
    return paired_drop(logits.argmax(-1) == labels, source.argmax(-1) == labels)


def _jackknife(metrics: Callable[[Any, Any], dict[str, float]]) -> Callable[[Any, Any, Any], Drop]:
    """Return `Measure.drop` for a metric that is no fraction of independent examples."""

    def drop(outputs: _np.ndarray, source: _np.ndarray, labels: _np.ndarray) -> Drop:
        def loss(some: _np.ndarray) -> float:
            return metrics(source[some], labels[some])["accuracy"] - metrics(outputs[some], labels[some])["accuracy"]

        return jackknife_drop(loss, len(labels))

    return drop


def _is_labeled(labels: _np.ndarray) -> _np.ndarray:
    return labels >= 0


CLASSIFICATION = Measure("accuracy", _accuracy, _same_top1, _paired, _largest, _logits_snr, labeled=_is_labeled)
# Values may have any unit.
NUMERIC = Measure("r2", _r2, None, _jackknife(_r2), _ranges, _values_snr, slack=ROUNDING, vanishing=1e-30)
MEASURES = {
    # The positions of a text are not independent.
    "tag": dataclasses.replace(CLASSIFICATION, drop=_jackknife(_accuracy)),
    "multilabel": Measure(
        "mean_average_precision",
        _mean_average_precision,
        _same_decisions,
        _jackknife(_mean_average_precision),
        _largest,
        _decisions_snr,
        slack=ROUNDING,
        times=2.0,
    ),
    # Outputs of unknown meaning, of any shape.
    "any": Measure("accuracy", _accuracy, None, None, _largest, _tensor_snr, slack=ROUNDING),
    "binary": Measure("accuracy", _binary_accuracy, _same_sides, _binary_drop, _largest, _tensor_snr),
    "embed": Measure("neighbors", _accuracy, _same_neighbor, None, _largest, _vectors_snr, more=_cosine),
    "regress": NUMERIC,
    # The same of a user's model.
    "numeric": NUMERIC,
}


def measure_of(task: str) -> Measure:
    """Return how a task's outputs are compared."""
    return MEASURES.get(task, CLASSIFICATION)
