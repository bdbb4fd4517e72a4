"""Losses by name: Keras' own on logits or values, with class weights."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

from training.common.sharding import sum_over_replicas
from training.data.pipeline.pipeline import Pipeline
from training.recipe.config import LossConfig
from training.recipe.rules import check_class_weight, check_loss_keys
from zoo.common.errors import BadOption, DataError
from zoo.common.lazy import keras, np, tf

# Keys that apply to classes only.
CLASS_KEYS = ("label_smoothing", "class_weight", "balanced")


def class_loss(config: LossConfig, weights: Sequence[float] | None = None) -> Any:
    """Return the loss, for `compile`, of logits (n, classes) against one-hot or mixed labels (n, classes).

    Args:
        config: the recipe's loss.
        weights: the weight of each class; None for 1.

    Raises:
        BadOption: the loss does not apply to classes.
    """
    loss = _chosen(config, CLASS_LOSSES, "classes")
    return loss if weights is None else _weighted()(loss, weights)


def label_loss(config: LossConfig, weights: Sequence[float] | None = None) -> Any:
    """Return the loss, for `compile`, of logits (n, labels) against several labels at once.

    The labels (n, labels) are 1 or 0, or -1 for an unknown label, which the loss ignores.

    Args:
        config: the recipe's loss.
        weights: the weight of each label; None for 1.

    Raises:
        BadOption: the loss does not apply to several labels.
    """
    return _known_only()(_chosen(config, LABEL_LOSSES, "several labels at once"), weights)


def value_loss(config: LossConfig, _: Sequence[float] | None = None) -> Any:
    """Return the loss, for `compile`, of values (n, targets) against numbers; raises BadOption for a class loss."""
    for key in CLASS_KEYS:
        if getattr(config, key) != getattr(LossConfig(), key):
            raise BadOption(
                f"loss.{key} applies to classes. Received: loss.{key}={getattr(config, key)} on numbers. Leave it out."
            )
    return _chosen(config, VALUE_LOSSES, "numbers")


def check_token_loss(config: LossConfig) -> None:
    """Raise BadOption for options that the cross-entropy of tokens does not have."""
    _chosen(config, dict.fromkeys(("auto", "cross_entropy"), lambda _: None), "tokens")
    if config.class_weight or config.balanced:
        raise BadOption(
            "loss.class_weight and loss.balanced apply to classes of whole examples. Received: "
            f"loss.class_weight={list(config.class_weight)}, loss.balanced={config.balanced} on tokens. Leave them out."
        )


def class_weights(config: LossConfig, pipeline: Pipeline) -> tuple[float, ...] | None:
    """Return the weight of each class: from the recipe, or from the training examples; None if all are 1.

    A balanced class with n of N examples has the weight N / (classes x n), so that the mean over all examples is 1.

    Raises:
        BadOption: not one weight for each class, or both `class_weight` and `balanced` are set.
        DataError: a class has no training examples.
    """
    labels = pipeline.dataset.labels
    check_class_weight(config, labels)
    if config.class_weight:
        return config.class_weight
    if not config.balanced or pipeline.dataset.task not in COUNTED:
        return None
    counts = _counts(pipeline)
    for label, count in zip(labels, counts, strict=True):
        if not count:
            raise DataError(
                f"loss.balanced needs training examples of every class. Received: none of {label!r} in "
                f"{pipeline.dataset.name}. Add examples, or set loss.class_weight."
            )
    return tuple((counts.sum() / (len(counts) * counts)).tolist())


def _counts(pipeline: Pipeline) -> Any:
    """Return the number of training examples of each class, float64 (classes,)."""
    total = np.zeros(len(pipeline.dataset.labels))
    for y in pipeline.dataset.splits["train"].labels().batch(1024):
        total += COUNTED[pipeline.dataset.task](y.numpy(), len(total))
    return total


# Functions that count each class among raw labels, by the task of a dataset.
COUNTED: dict[str, Callable[[Any, int], Any]] = {
    "classify": lambda y, size: np.bincount(y, minlength=size),
    "multilabel": lambda y, _: (y > 0).sum(axis=0),
}


def _chosen(config: LossConfig, known: dict[str, Callable[[LossConfig], Any]], what: str) -> Any:
    """Return the loss of a name, or raise BadOption for a name or a key that does not apply."""
    if config.name not in known:
        raise BadOption(
            f"The loss of {what} must be one of {', '.join(known)}. Received: loss.name={config.name}. "
            "Choose one of these, or other data."
        )
    check_loss_keys(config)
    return known[config.name](config)


def _cross_entropy(config: LossConfig) -> Any:
    return keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=config.label_smoothing)


def _class_binary(config: LossConfig) -> Any:
    """Return the binary cross-entropy of each class, with labels smoothed over classes (arXiv:2110.00476)."""
    return _smoothed()(keras.losses.BinaryCrossentropy(from_logits=True), config.label_smoothing)


def _focal(config: LossConfig) -> Any:
    """Return the focal loss; `class_weight` weights classes, so alpha is 1."""
    return keras.losses.CategoricalFocalCrossentropy(
        alpha=1.0, gamma=config.gamma, from_logits=True, label_smoothing=config.label_smoothing
    )


def _binary(config: LossConfig) -> Any:
    return keras.losses.BinaryCrossentropy(from_logits=True, label_smoothing=config.label_smoothing)


def _binary_focal(config: LossConfig) -> Any:
    return keras.losses.BinaryFocalCrossentropy(
        gamma=config.gamma, from_logits=True, label_smoothing=config.label_smoothing
    )


CLASS_LOSSES = {
    "auto": _cross_entropy,
    "cross_entropy": _cross_entropy,
    "binary_cross_entropy": _class_binary,
    "focal": _focal,
}
LABEL_LOSSES = {"auto": _binary, "binary_cross_entropy": _binary, "focal": _binary_focal}
VALUE_LOSSES = {
    "auto": lambda _: keras.losses.MeanSquaredError(),
    "mse": lambda _: keras.losses.MeanSquaredError(),
    "mae": lambda _: keras.losses.MeanAbsoluteError(),
    "huber": lambda config: keras.losses.Huber(config.delta),
}


@functools.cache
def _weighted() -> Any:
    """Return the class of a Keras loss with a weight for each class."""

    class Weighted(keras.losses.Loss):
        """A loss, multiplied by the weight of each example's label."""

        def __init__(self, loss: Any, weights: Sequence[float]) -> None:
            super().__init__(name=loss.name)
            self._loss, self._weights = loss, tuple(weights)

        def call(self, labels: Any, logits: Any) -> Any:
            weights = keras.ops.convert_to_tensor(self._weights, labels.dtype)
            return self._loss.call(labels, logits) * keras.ops.sum(labels * weights, axis=-1)

    return Weighted


@functools.cache
def _smoothed() -> Any:
    """Return the class of a Keras loss that smooths labels over all classes."""

    class Smoothed(keras.losses.Loss):
        """A loss of smoothed labels."""

        def __init__(self, loss: Any, smoothing: float) -> None:
            super().__init__(name=loss.name)
            self._loss, self._smoothing = loss, smoothing

        def call(self, labels: Any, logits: Any) -> Any:
            return self._loss.call(labels * (1.0 - self._smoothing) + self._smoothing / labels.shape[-1], logits)

    return Smoothed


@functools.cache
def _known_only() -> Any:
    """Return the class of a Keras loss that ignores unknown labels, and weights each label."""

    class KnownOnly(keras.losses.Loss):
        """The mean of a loss over the known labels of a batch."""

        def __init__(self, loss: Any, weights: Sequence[float] | None) -> None:
            super().__init__(name=loss.name)
            self._loss, self._weights = loss, weights and tuple(weights)

        def call(self, labels: Any, logits: Any) -> Any:
            known = keras.ops.cast(labels >= 0, "float32")
            # Keras takes the mean over the last axis; with one label each it keeps them separate.
            each = self._loss.call(keras.ops.maximum(labels, 0.0)[..., None], logits[..., None])
            if self._weights is not None:
                each = each * keras.ops.convert_to_tensor(self._weights, "float32")
            # Keras then divides by the number of examples, and by the replicas of a strategy.
            counts = tf.stack([tf.cast(tf.size(known), tf.float32), tf.reduce_sum(known)])
            size, count = tf.unstack(sum_over_replicas(counts))
            scale = size / tf.maximum(count, 1.0)
            return keras.ops.mean(each * known, axis=-1) * scale

    return KnownOnly
