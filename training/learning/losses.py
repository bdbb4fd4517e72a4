"""What is minimized, by name: Keras' own losses on logits or values, and how much each class counts in them."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

from training.common.sharding import over_replicas
from training.data.pipeline.pipeline import Pipeline
from training.recipe.config import LossConfig
from zoo.common.errors import BadOption, DataError
from zoo.common.lazy import keras, np, tf

# The key of a loss that reads it, and what the others leave it at.
OWN = {"gamma": "focal", "delta": "huber"}
# Keys that some kinds of answers do not have.
OF_CLASSES = ("label_smoothing", "class_weight", "balanced")


def class_loss(config: LossConfig, weights: Sequence[float] | None = None) -> Any:
    """Return the loss, for `compile`, of logits (n, classes) against one-hot or mixed labels (n, classes).

    Args:
        config: which loss.
        weights: how much each class counts; all alike if None.

    Raises:
        BadOption: the loss is not one of classes.
    """
    loss = _chosen(config, CLASS_LOSSES, "classes")
    return loss if weights is None else _weighted()(loss, weights)


def label_loss(config: LossConfig, weights: Sequence[float] | None = None) -> Any:
    """Return the loss, for `compile`, of logits (n, labels) against several labels at once.

    The labels (n, labels) are 1, 0, or -1 where it is not known whether one applies, which counts for nothing.

    Args:
        config: which loss.
        weights: how much each label counts; all alike if None.

    Raises:
        BadOption: the loss is not one of labels.
    """
    return _known_only()(_chosen(config, LABEL_LOSSES, "several labels at once"), weights)


def value_loss(config: LossConfig, _: Sequence[float] | None = None) -> Any:
    """Return the loss, for `compile`, of values (n, targets) against numbers; raises BadOption for one of classes."""
    for key in OF_CLASSES:
        if getattr(config, key) != getattr(LossConfig(), key):
            raise BadOption(f"loss.{key} applies to classes. Received: loss.{key}={getattr(config, key)} on numbers")
    return _chosen(config, VALUE_LOSSES, "numbers")


def check_token_loss(config: LossConfig) -> None:
    """Raise BadOption for what the cross-entropy of tokens cannot do."""
    _chosen(config, dict.fromkeys(("auto", "cross_entropy"), lambda _: None), "tokens")
    if config.class_weight or config.balanced:
        raise BadOption(
            "loss.class_weight and loss.balanced apply to classes of whole examples. Received: "
            f"loss.class_weight={list(config.class_weight)}, loss.balanced={config.balanced} on tokens"
        )


def class_weights(config: LossConfig, pipeline: Pipeline) -> tuple[float, ...] | None:
    """Return how much each class counts: as stated, or by the training examples; None if all count alike.

    Balanced, a class of n of N examples counts N / (classes x n), so that the mean over all examples is 1.

    Raises:
        BadOption: not one number a class, or stated and balanced at once.
        DataError: a class without training examples.
    """
    labels, given = pipeline.dataset.labels, config.class_weight
    if given and config.balanced:
        raise BadOption("Of loss.class_weight and loss.balanced, one is enough. Received: both")
    if given:
        if len(given) != len(labels) or min(given) < 0 or not max(given) > 0:
            raise BadOption(
                f"loss.class_weight needs {len(labels)} numbers of at least 0, one for each of {_shown(labels)}. "
                f"Received: loss.class_weight={list(given)}"
            )
        return given
    if not config.balanced or pipeline.dataset.task not in COUNTED:
        return None
    counts = _counts(pipeline)
    for label, count in zip(labels, counts, strict=True):
        if not count:
            raise DataError(
                f"loss.balanced needs training examples of every class. Received: none of {label!r} in "
                f"{pipeline.dataset.name}"
            )
    return tuple((counts.sum() / (len(counts) * counts)).tolist())


def _counts(pipeline: Pipeline) -> Any:
    """Return how many training examples each class has, float64 (classes,)."""
    total = np.zeros(len(pipeline.dataset.labels))
    for y in pipeline.dataset.splits["train"].examples.map(lambda _, y: y).batch(1024):
        total += COUNTED[pipeline.dataset.task](y.numpy(), len(total))
    return total


# How often each class occurs among raw labels, by the task of a dataset.
COUNTED: dict[str, Callable[[Any, int], Any]] = {
    "classify": lambda y, size: np.bincount(y, minlength=size),
    "multilabel": lambda y, _: (y > 0).sum(axis=0),
}


def _shown(labels: Sequence[str]) -> str:
    return ", ".join(labels[:5]) + ("" if len(labels) <= 5 else ", …")


def _chosen(config: LossConfig, known: dict[str, Callable[[LossConfig], Any]], what: str) -> Any:
    """Return the loss of a name, or raise BadOption for a name or a key that cannot apply."""
    if config.name not in known:
        raise BadOption(
            f"The loss of {what} must be one of {', '.join(known)}. Received: loss.name={config.name}. "
            "Choose one of these, or data of another kind."
        )
    for key, owner in OWN.items():
        value = getattr(config, key)
        if config.name != owner and value != getattr(LossConfig(), key):
            raise BadOption(f"loss.{key} is of {owner}. Received: loss.{key}={value}, loss.name={config.name}")
    return known[config.name](config)


def _cross_entropy(config: LossConfig) -> Any:
    return keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=config.label_smoothing)


def _one_by_one(config: LossConfig) -> Any:
    """Return the binary cross-entropy of each class, the labels smoothed as those of classes are (arXiv:2110.00476)."""
    return _smoothed()(keras.losses.BinaryCrossentropy(from_logits=True), config.label_smoothing)


def _focal(config: LossConfig) -> Any:
    """Return the focal loss; how much classes count is `class_weight`'s to say, not alpha's."""
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
    "binary_cross_entropy": _one_by_one,
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
    """Return the class of a Keras loss in which each class counts as its weight says."""

    class Weighted(keras.losses.Loss):
        """Another loss, each example multiplied by the weight of its label."""

        def __init__(self, loss: Any, weights: Sequence[float]) -> None:
            super().__init__(name=loss.name)
            self._loss, self._weights = loss, tuple(weights)

        def call(self, labels: Any, logits: Any) -> Any:
            weights = keras.ops.convert_to_tensor(self._weights, labels.dtype)
            return self._loss.call(labels, logits) * keras.ops.sum(labels * weights, axis=-1)

    return Weighted


@functools.cache
def _smoothed() -> Any:
    """Return the class of a Keras loss that gets a share of each label spread over all classes."""

    class Smoothed(keras.losses.Loss):
        """Another loss on smoothed labels."""

        def __init__(self, loss: Any, share: float) -> None:
            super().__init__(name=loss.name)
            self._loss, self._share = loss, share

        def call(self, labels: Any, logits: Any) -> Any:
            return self._loss.call(labels * (1.0 - self._share) + self._share / labels.shape[-1], logits)

    return Smoothed


@functools.cache
def _known_only() -> Any:
    """Return the class of a Keras loss that leaves out what is not known, and weighs each label."""

    class KnownOnly(keras.losses.Loss):
        """The mean of another loss over the labels of a batch that are known."""

        def __init__(self, loss: Any, weights: Sequence[float] | None) -> None:
            super().__init__(name=loss.name)
            self._loss, self._weights = loss, weights and tuple(weights)

        def call(self, labels: Any, logits: Any) -> Any:
            known = keras.ops.cast(labels >= 0, "float32")
            # Keras takes the mean over the last axis; one label each leaves them apart.
            each = self._loss.call(keras.ops.maximum(labels, 0.0)[..., None], logits[..., None])
            if self._weights is not None:
                each = each * keras.ops.convert_to_tensor(self._weights, "float32")
            # Keras goes on to divide by the number of examples, and by the replicas of a strategy.
            counts = tf.stack([tf.cast(tf.size(known), tf.float32), tf.reduce_sum(known)])
            size, count = tf.unstack(over_replicas(counts))
            share = size / tf.maximum(count, 1.0)
            return keras.ops.mean(each * known, axis=-1) * share

    return KnownOnly
