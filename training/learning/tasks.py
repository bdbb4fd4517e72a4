"""What a task makes of logits and labels: the loss, the running metric, and the judgement in the end."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import zoo
from training.common.sharding import over_replicas
from training.data.dataset import Dataset, TargetScale
from training.data.pipeline.pipeline import Pipeline
from training.learning.losses import check_token_loss, class_loss, label_loss, value_loss
from training.learning.metrics import average_precisions, label_metrics, value_metrics
from training.recipe.config import LossConfig
from zoo.common.lazy import keras, np, tf
from zoo.specs.text import PADDING

# The logit of a label that is certainly not given.
NOT_GIVEN = -100.0


@dataclasses.dataclass(frozen=True)
class Task:
    """One kind of thing to learn.

    Args:
        sizes: returns the arguments of `zoo.get` that fit a network to the data of a pipeline.
        loss: returns the loss, for `compile`, that a recipe asks for; given numbers, each class counts as they say;
            given the scale of targets, it is that of their standard deviations.
        metrics: returns new Keras metrics.
        judge: returns the figures of a model on the batches of a split; see `training.evaluate`.
        main: the figure of `judge` that sums a model up, 1 at best.
        shown: the figures of `judge` that are told, the first of them first.
        best: the validation figure that tells the best weights, and 1 if more of it is better, else -1.
    """

    sizes: Callable[[Pipeline], dict[str, int]]
    loss: Callable[..., Any]
    metrics: Callable[[], list[Any]]
    judge: Callable[..., dict[str, Any]]
    main: str = "accuracy"
    shown: tuple[str, ...] = ("accuracy",)
    best: tuple[str, int] = ("val_accuracy", 1)


def _labelled(pipeline: Pipeline) -> dict[str, int]:
    known = {} if pipeline.text is None else _written(pipeline)
    return {"classes": len(pipeline.dataset.labels)} | known


def _written(pipeline: Pipeline) -> dict[str, int]:
    return {"vocabulary": len(pipeline.text.vocabulary)}


def tag_targets(labels: Any) -> tuple[Any, Any]:
    """Return (numbers int32 (n, t), whether they count float32 (n, t)) of one-hot labels (n, t, classes)."""
    return tf.argmax(labels, axis=-1, output_type=tf.int32), tf.reduce_max(tf.cast(labels, tf.float32), axis=-1)


def word_targets(labels: Any) -> tuple[Any, Any]:
    """Return (ids int32 (n, t), whether they count float32 (n, t)) of the ids (n, t) of a text."""
    ids = tf.cast(labels, tf.int32)
    return ids, tf.cast(tf.not_equal(ids, PADDING), tf.float32)


def cross_entropy(numbers: Any, logits: Any, smoothing: float = 0.0) -> Any:
    """Return the cross-entropy of each token, float32 (n, t).

    Args:
        numbers: the right classes, int32 (n, t).
        logits: float32 (n, t, classes).
        smoothing: share of each label that is spread over all classes.
    """
    if not smoothing:
        return tf.nn.sparse_softmax_cross_entropy_with_logits(numbers, logits)
    # Beside 37,000 classes the fused operation on whole rows takes half the memory and two thirds of the time of the
    # sparse one plus a uniform term, whose gradients are rows of their own.
    size = logits.shape[-1]
    rest = smoothing / size
    return tf.nn.softmax_cross_entropy_with_logits(tf.one_hot(numbers, size, 1 - smoothing + rest, rest), logits)


def _token_loss(targets: Callable[[Any], tuple[Any, Any]], config: LossConfig, *_: Any) -> Callable[[Any, Any], Any]:
    """Return the loss of a sequence: the mean over the tokens of a batch that are not padding."""
    check_token_loss(config)

    def loss(labels: Any, logits: Any) -> Any:
        numbers, real = targets(labels)
        # Keras goes on to divide by all tokens, and by the replicas of a strategy.
        counts = tf.stack([tf.cast(tf.size(real), tf.float32), tf.reduce_sum(real)])
        size, count = tf.unstack(over_replicas(counts))
        return cross_entropy(numbers, logits, config.label_smoothing) * real * (size / tf.maximum(count, 1.0))

    return loss


@functools.cache
def _token_accuracy() -> Any:
    """Return the class of a Keras metric; made here because its base class is a heavy import."""

    class TokenAccuracy(keras.metrics.Mean):
        """The share of tokens that are right, padding left out."""

        def __init__(self, targets: Callable[[Any], tuple[Any, Any]]) -> None:
            super().__init__(name="accuracy")
            self._targets = targets

        def update_state(self, labels: Any, logits: Any, sample_weight: Any = None) -> None:
            numbers, real = self._targets(labels)
            right = tf.equal(tf.argmax(logits, axis=-1, output_type=tf.int32), numbers)
            # Flat, or Keras would weigh the means of sequences and not their tokens.
            super().update_state(tf.reshape(tf.cast(right, tf.float32), (-1,)), sample_weight=tf.reshape(real, (-1,)))

    return TokenAccuracy


def _judge_labels(model: Any, batches: Iterable[Any], _: Dataset | None = None) -> dict[str, Any]:
    """Judge labels one by one; those of a sequence are all its tokens that are not padding."""
    logits, truth, examples = [], [], 0
    for x, y in batches:
        y = np.asarray(y)
        real = y.any(-1)
        logits.append(np.asarray(model(x, training=False))[real])
        truth.append(y[real])
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


def _judge_several(model: Any, batches: Iterable[Any], dataset: Dataset | None = None) -> dict[str, Any]:
    """Judge several labels at once; see `training.learning.metrics.label_metrics`."""
    logits, truth = _answers(model, batches)
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


def _judge_values(model: Any, batches: Iterable[Any], dataset: Dataset | None = None) -> dict[str, Any]:
    """Judge numbers; the loss is the mean square of errors in standard deviations of the training targets."""
    values, truth = _answers(model, batches)
    std = np.asarray(dataset.scale.std if dataset and dataset.scale else 1.0)
    return {
        **value_metrics(truth, values),
        "loss": float((((values - truth) / std) ** 2).mean()),
        "examples": len(truth),
        "confusion": None,
    }


def _answers(model: Any, batches: Iterable[Any]) -> tuple[Any, Any]:
    """Return what a model answers and what is right, float64 (n, labels or targets) each."""
    pairs = [(np.asarray(model(x, training=False), "float64"), np.asarray(y, "float64")) for x, y in batches]
    logits, truth = map(np.concatenate, zip(*pairs, strict=True))
    return logits, truth


def _judge_writing(model: Any, batches: Iterable[Any], _: Dataset | None = None) -> dict[str, Any]:
    """Judge what a model writes by itself; the loss and the accuracy of tokens are those of the next one given."""
    exact, examples = 0, 0
    sums = np.zeros(3)
    for x, y in batches:
        exact += int(np.all(zoo.generate(model, x["source"]) == np.asarray(y), axis=1).sum())
        examples += len(y)
        sums += _token_sums(model(x, training=False), y)
    loss, right, count = sums
    return {
        "accuracy": exact / examples,
        "token_accuracy": float(right / count),
        "loss": float(loss / count),
        "examples": examples,
        "confusion": None,
    }


def _token_sums(logits: Any, labels: Any) -> Any:
    """Return the sums of losses and of right tokens, and the number of tokens, float64 (3,)."""
    numbers, real = word_targets(labels)
    right = tf.cast(tf.equal(tf.argmax(logits, axis=-1, output_type=tf.int32), numbers), tf.float32)
    losses = cross_entropy(numbers, tf.cast(logits, tf.float32))
    return np.array([float(tf.reduce_sum(values * real)) for values in (losses, right, tf.ones_like(right))])


def _class_metrics() -> list[Any]:
    return [keras.metrics.CategoricalAccuracy(name="accuracy")]


def _label_loss(config: LossConfig, weights: Sequence[float] | None = None, _: TargetScale | None = None) -> Any:
    return label_loss(config, weights)


def _class_loss(config: LossConfig, weights: Sequence[float] | None = None, _: TargetScale | None = None) -> Any:
    return class_loss(config, weights)


def _value_loss(config: LossConfig, weights: Sequence[float] | None = None, scale: TargetScale | None = None) -> Any:
    """Return the loss of numbers in the data's own units, taken in standard deviations of the training targets."""
    loss = value_loss(config, weights)
    if scale is None:
        return loss
    mean, std = (np.asarray(values, "float32") for values in (scale.mean, scale.std))

    def standardized(truth: Any, values: Any) -> Any:
        return loss.call((truth - mean) / std, (values - mean) / std)

    return standardized


@functools.cache
def _known_metrics() -> tuple[Any, Any]:
    """Return the classes of Keras metrics that leave out what is not known; their base classes are heavy imports."""

    class KnownAccuracy(keras.metrics.Mean):
        """The share of labels that are decided right."""

        def update_state(self, labels: Any, logits: Any, sample_weight: Any = None) -> None:
            right = tf.equal(logits > 0, labels > 0)
            known = tf.reshape(tf.cast(labels >= 0, tf.float32), (-1,))
            super().update_state(tf.reshape(tf.cast(right, tf.float32), (-1,)), sample_weight=known)

    class RunningPrecision(keras.metrics.AUC):
        """Mean average precision from 200 thresholds."""

        def update_state(self, labels: Any, logits: Any, sample_weight: Any = None) -> None:
            # What is not known counts as a label that does not apply and was not given, which changes nothing.
            known = labels >= 0
            super().update_state(tf.maximum(labels, 0.0), tf.where(known, logits, NOT_GIVEN))

    return KnownAccuracy, RunningPrecision


def _label_metrics() -> list[Any]:
    accuracy, precision = _known_metrics()
    options = {"curve": "PR", "multi_label": True, "from_logits": True}
    return [accuracy(name="accuracy"), precision(name="mean_average_precision", **options)]


def _value_metrics() -> list[Any]:
    return [keras.metrics.RootMeanSquaredError(name="rmse"), keras.metrics.MeanAbsoluteError(name="mae")]


def _sequence(targets: Callable[[Any], tuple[Any, Any]], sizes: Any, judge: Any) -> Task:
    """Return a task that is about each token."""
    return Task(sizes, functools.partial(_token_loss, targets), lambda: [_token_accuracy()(targets)], judge)


# What figures are called in a sentence, where that is not their key.
NAMES = {"mean_average_precision": "mAP", "micro_f1": "micro F1", "rmse": "RMSE", "mae": "MAE", "r2": "R²"}


def describe_metrics(task: str, figures: Mapping[str, Any]) -> str:
    """Return the figures of a judgement that a task is known by, in words."""
    return ", ".join(f"{NAMES.get(key, key)} {figures[key]:.4f}" for key in TASKS[task].shown)


TASKS = {
    "classify": Task(_labelled, _class_loss, _class_metrics, _judge_labels),
    "multilabel": Task(
        _labelled,
        _label_loss,
        _label_metrics,
        _judge_several,
        main="mean_average_precision",
        shown=("mean_average_precision", "micro_f1", "accuracy"),
        best=("val_mean_average_precision", 1),
    ),
    "regress": Task(
        _labelled,
        _value_loss,
        _value_metrics,
        _judge_values,
        main="r2",
        shown=("rmse", "mae", "r2"),
        best=("val_loss", -1),
    ),
    "tag": _sequence(tag_targets, _labelled, _judge_labels),
    "generate": _sequence(word_targets, _written, _judge_writing),
}
