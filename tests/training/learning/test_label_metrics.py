"""Metrics of several labels per example: by hand, without unknown labels, and running ones near the exact."""

from __future__ import annotations

import numpy as np
import pytest

from training import LossConfig
from training.learning.metrics import average_precisions, label_metrics
from training.learning.tasks import TASKS


def precision_by_hand(truth, scores):
    """Return the average precision: the mean precision at the rank of each positive example."""
    order = np.argsort(-scores)
    found = truth[order]
    return np.mean([found[: i + 1].mean() for i in np.flatnonzero(found)])


def test_metrics_match_their_definitions():
    """Average precision, F1 and accuracy of random predictions match their definitions."""
    draw = np.random.default_rng(0)
    truth, logits = draw.integers(0, 2, (50, 4)), draw.normal(size=(50, 4))
    precisions = [precision_by_hand(t, s) for t, s in zip(truth.T, logits.T, strict=True)]
    assert average_precisions(truth, logits) == pytest.approx(precisions)
    found, given = label_metrics(truth, logits), logits > 0
    assert found["mean_average_precision"] == pytest.approx(np.mean(precisions))
    precision, recall = (given & (truth == 1)).sum() / given.sum(), (given & (truth == 1)).sum() / truth.sum()
    assert found["micro_f1"] == pytest.approx(2 * precision * recall / (precision + recall))
    assert found["accuracy"] == pytest.approx((given == truth).mean())


def test_unknown_labels_are_ignored():
    """A label of -1 is left out of every metric; a label without positive examples has no precision."""
    truth = np.array([[1, 0, 0], [0, 1, 0], [1, -1, 0], [0, 0, 0]])
    logits = np.array([[2.0, -1, -1], [-1, 1, -1], [3, 9, -1], [-2, -3, -1]])
    assert average_precisions(truth, logits) == [1.0, 1.0, None]
    assert label_metrics(truth, logits) == {"mean_average_precision": 1.0, "micro_f1": 1.0, "accuracy": 1.0}
    other = logits.copy()
    other[2, 1] = -9
    assert label_metrics(truth, other) == label_metrics(truth, logits)
    loss = TASKS["multilabel"].loss(LossConfig())
    assert float(np.mean(loss(truth.astype("float32"), logits.astype("float32")))) == pytest.approx(
        float(np.mean(loss(truth.astype("float32"), other.astype("float32"))))
    )
    for metric in TASKS["multilabel"].metrics(None):
        values = []
        for predictions in (logits, other):
            metric.reset_state()
            metric.update_state(truth.astype("float32"), predictions.astype("float32"))
            values.append(float(metric.result()))
        assert values[0] == pytest.approx(values[1])


def test_running_precision_is_near_the_exact_one():
    """The metric of an epoch, from 200 thresholds, is within a few points of the final evaluation."""
    draw = np.random.default_rng(1)
    truth = draw.integers(0, 2, (400, 5)).astype("float32")
    logits = (draw.normal(size=(400, 5)) + truth).astype("float32")
    accuracy, precision = TASKS["multilabel"].metrics(None)
    for metric in (accuracy, precision):
        metric.update_state(truth, logits)
    exact = label_metrics(truth, logits)
    assert float(precision.result()) == pytest.approx(exact["mean_average_precision"], abs=0.01)
    assert float(accuracy.result()) == pytest.approx(exact["accuracy"])
