"""Running metrics of training and validation, as Keras metrics; their base classes are heavy imports."""

from __future__ import annotations

import functools
from typing import Any

from training.learning.token_losses import Targets
from zoo.common.lazy import keras, tf

# The logit of a label that is certainly not predicted.
NOT_PREDICTED = -100.0


@functools.cache
def token_accuracy() -> Any:
    """Return the class of a Keras metric, TokenAccuracy(targets)."""

    class TokenAccuracy(keras.metrics.Mean):
        """The fraction of correct tokens, without padding."""

        def __init__(self, targets: Targets) -> None:
            super().__init__(name="accuracy")
            self._targets = targets

        def update_state(self, labels: Any, logits: Any, sample_weight: Any = None) -> None:
            classes, mask = self._targets(labels)
            correct = tf.equal(tf.argmax(logits, axis=-1, output_type=tf.int32), classes)
            # Keras would weight the means of sequences, not their tokens, unless they are flat.
            values = tf.reshape(tf.cast(correct, tf.float32), (-1,))
            super().update_state(values, sample_weight=tf.reshape(mask, (-1,)))

    return TokenAccuracy


@functools.cache
def known_label_metrics() -> tuple[Any, Any]:
    """Return the classes of Keras metrics that ignore unknown labels: accuracy and mean average precision."""

    class KnownAccuracy(keras.metrics.Mean):
        """The fraction of correct decisions."""

        def update_state(self, labels: Any, logits: Any, sample_weight: Any = None) -> None:
            correct = tf.equal(logits > 0, labels > 0)
            known = tf.reshape(tf.cast(labels >= 0, tf.float32), (-1,))
            super().update_state(tf.reshape(tf.cast(correct, tf.float32), (-1,)), sample_weight=known)

    class RunningPrecision(keras.metrics.AUC):
        """Mean average precision from 200 thresholds."""

        def update_state(self, labels: Any, logits: Any, sample_weight: Any = None) -> None:
            # An unknown label counts as one that does not apply and is not predicted, which changes nothing.
            known = labels >= 0
            super().update_state(tf.maximum(labels, 0.0), tf.where(known, logits, NOT_PREDICTED))

    return KnownAccuracy, RunningPrecision


def class_metrics(_: Any = None) -> list[Any]:
    """Return the metrics of classes."""
    return [keras.metrics.CategoricalAccuracy(name="accuracy")]


def multilabel_metrics(_: Any = None) -> list[Any]:
    """Return the metrics of several labels."""
    accuracy, precision = known_label_metrics()
    options = {"curve": "PR", "multi_label": True, "from_logits": True}
    return [accuracy(name="accuracy"), precision(name="mean_average_precision", **options)]


def regression_metrics(_: Any = None) -> list[Any]:
    """Return the metrics of numbers."""
    return [keras.metrics.RootMeanSquaredError(name="rmse"), keras.metrics.MeanAbsoluteError(name="mae")]
