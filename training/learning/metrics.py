"""Metrics of multi-label classification and of regression."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from zoo.common.lazy import np

if TYPE_CHECKING:
    import numpy as _np


def average_precisions(truth: _np.ndarray, logits: _np.ndarray) -> list[float | None]:
    """Return the average precision of each label, the area under its curve of precision and recall in steps.

    Args:
        truth: (n, labels), 1 where a label applies, 0 where it does not, -1 where it is unknown and not counted.
        logits: (n, labels).

    Returns:
        One number for each label, None for a label that no example has.
    """
    from sklearn.metrics import average_precision_score

    found: list[float | None] = []
    for right, scores in zip(truth.T, logits.T, strict=True):
        known = right >= 0
        has = bool((right[known] == 1).any())
        found.append(float(average_precision_score(right[known], scores[known])) if has else None)
    return found


def label_metrics(truth: _np.ndarray, logits: _np.ndarray) -> dict[str, Any]:
    """Return the metrics of multi-label classification, without unknown labels.

    Args:
        truth: (n, labels); see `average_precisions`.
        logits: (n, labels); a logit above 0 predicts its label.

    Returns:
        mean_average_precision: the mean over the labels that some example has, mAP in the papers on VOC.
        micro_f1: F1 of all decisions together, 2 TP / (2 TP + FP + FN).
        accuracy: fraction of correct decisions.
    """
    known, given, applies = truth >= 0, logits > 0, truth == 1
    precisions = [precision for precision in average_precisions(truth, logits) if precision is not None]
    right, wrong = (known & given & applies).sum(), (known & (given != applies)).sum()
    return {
        "mean_average_precision": float(np.mean(precisions)) if precisions else 0.0,
        "micro_f1": float(2 * right / (2 * right + wrong)) if right + wrong else 1.0,
        "accuracy": float((given == applies)[known].mean()) if known.any() else 0.0,
    }


def value_metrics(truth: _np.ndarray, values: _np.ndarray) -> dict[str, float]:
    """Return the metrics of regression.

    Args:
        truth: (n, targets), in the units of the data.
        values: (n, targets), the predictions.

    Returns:
        rmse: root mean squared error, mae: mean absolute error, both in the units of the data; r2: fraction of the
        explained variance of a target, the mean over targets; 0 for a constant target.
    """
    error = values.astype("float64") - truth
    spread = ((truth.astype("float64") - truth.mean(0, dtype="float64")) ** 2).mean(0)
    explained = 1 - (error**2).mean(0) / np.where(spread > 0, spread, np.inf)
    return {
        "rmse": float(np.sqrt((error**2).mean())),
        "mae": float(np.abs(error).mean()),
        "r2": float(np.where(spread > 0, explained, 0.0).mean()),
    }
