"""Compute the metrics of a model on the batches of a split, by task; see `EvaluationResult` for their meaning."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import zoo
from training.data.dataset import Dataset
from training.learning.metrics import average_precisions, label_metrics, value_metrics
from training.learning.token_losses import cross_entropy, word_targets
from zoo.common.lazy import keras, np, tf


def evaluate_classes(model: Any, batches: Iterable[Any], _: Dataset | None = None) -> dict[str, Any]:
    """Return the metrics of classes; in a sequence, of all tokens that are not padding."""
    logits, truth, examples = [], [], 0
    for x, y in batches:
        y = np.asarray(y)
        mask = y.any(-1)
        logits.append(np.asarray(model(x, training=False))[mask])
        truth.append(y[mask])
        examples += len(y)
    logits, truth = np.concatenate(logits), np.concatenate(truth)
    loss = keras.losses.categorical_crossentropy(truth, logits, from_logits=True)
    actual, predicted = truth.argmax(-1), logits.argmax(-1)
    confusion = np.zeros((truth.shape[1],) * 2, "int64")
    np.add.at(confusion, (actual, predicted), 1)
    return {
        "accuracy": float((actual == predicted).mean()),
        "loss": float(np.mean(np.asarray(loss))),
        "examples": examples,
        "confusion": confusion.tolist(),
    }


def evaluate_multilabel(model: Any, batches: Iterable[Any], dataset: Dataset | None = None) -> dict[str, Any]:
    """Return the metrics of several labels; see `training.learning.metrics.label_metrics`."""
    logits, truth = _outputs(model, batches)
    known = truth >= 0
    losses = np.maximum(logits, 0) - logits * truth + np.log1p(np.exp(-np.abs(logits)))
    names = dataset.labels if dataset else map(str, range(truth.shape[1]))
    return {
        **label_metrics(truth, logits),
        "loss": float(losses[known].mean()) if known.any() else 0.0,
        "examples": len(truth),
        "confusion": None,
        "average_precision": dict(zip(names, average_precisions(truth, logits), strict=True)),
    }


def evaluate_regression(model: Any, batches: Iterable[Any], dataset: Dataset | None = None) -> dict[str, Any]:
    """Return the metrics of numbers; the loss is the mean squared error in standard deviations of training targets."""
    values, truth = _outputs(model, batches)
    std = np.asarray(dataset.scale.std if dataset and dataset.scale else 1.0)
    return {
        **value_metrics(truth, values),
        "loss": float((((values - truth) / std) ** 2).mean()),
        "examples": len(truth),
        "confusion": None,
    }


def _outputs(model: Any, batches: Iterable[Any]) -> tuple[Any, Any]:
    """Return the outputs of a model and the truth, float64 (n, labels or targets) each."""
    pairs = [(np.asarray(model(x, training=False), "float64"), np.asarray(y, "float64")) for x, y in batches]
    outputs, truth = map(np.concatenate, zip(*pairs, strict=True))
    return outputs, truth


def evaluate_generation(model: Any, batches: Iterable[Any], _: Dataset | None = None) -> dict[str, Any]:
    """Return the metrics of generated sequences; loss and token accuracy are of the next token after the true ones."""
    exact, examples = 0, 0
    sums = np.zeros(3)
    for x, y in batches:
        exact += int(np.all(zoo.generate(model, x["source"]) == np.asarray(y), axis=1).sum())
        examples += len(y)
        sums += _token_sums(model(x, training=False), y)
    loss, correct, count = sums
    return {
        "accuracy": exact / examples,
        "token_accuracy": float(correct / count),
        "loss": float(loss / count),
        "examples": examples,
        "confusion": None,
    }


def _token_sums(logits: Any, labels: Any) -> Any:
    """Return the sums of losses and of correct tokens, and the number of tokens, float64 (3,)."""
    classes, mask = word_targets(labels)
    correct = tf.cast(tf.equal(tf.argmax(logits, axis=-1, output_type=tf.int32), classes), tf.float32)
    losses = cross_entropy(classes, tf.cast(logits, tf.float32))
    return np.array([float(tf.reduce_sum(values * mask)) for values in (losses, correct, tf.ones_like(correct))])
