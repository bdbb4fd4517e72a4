"""Tasks: the loss, the running metrics and the evaluation of each kind of labels."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from training.data.dataset import Dataset
from training.data.pipeline.pipeline import Pipeline
from training.learning.evaluators import (
    evaluate_classes,
    evaluate_generation,
    evaluate_multilabel,
    evaluate_regression,
)
from training.learning.losses import class_loss, label_loss, value_loss
from training.learning.multitask import SeveralTasks
from training.learning.running_metrics import class_metrics, multilabel_metrics, regression_metrics, token_accuracy
from training.learning.token_losses import Targets, tag_targets, token_loss, word_targets
from training.recipe.config import LossConfig
from zoo.build import options_of
from zoo.common.lazy import np
from zoo.specs.registry import models

# The option of models for tables that tell numbers and categories apart.
COLUMNS = "columns"


@dataclasses.dataclass(frozen=True)
class Task:
    """A kind of labels to train on.

    Args:
        sizes: returns the arguments of `zoo.get` that fit a model to the data of a pipeline.
        loss: returns the loss, for `compile`, of a recipe's configuration, class weights or None, and the dataset or
            None.
        metrics: returns new Keras metrics for a dataset or None.
        evaluate: returns the metrics of a model on the batches of a split; see `EvaluationResult`.
        main: the metric that summarizes a model, 1 at best.
        shown: the metrics to print, most important first.
        best: the validation metric that selects the best weights, and 1 if higher is better, else -1.
    """

    sizes: Callable[[Pipeline], dict[str, Any]]
    loss: Callable[..., Any]
    metrics: Callable[[Dataset | None], list[Any]]
    evaluate: Callable[..., dict[str, Any]]
    main: str = "accuracy"
    shown: tuple[str, ...] = ("accuracy",)
    best: tuple[str, int] = ("val_accuracy", 1)


def _label_sizes(pipeline: Pipeline) -> dict[str, int]:
    return {"classes": len(pipeline.dataset.labels)} | _input_sizes(pipeline)


def _input_sizes(pipeline: Pipeline) -> dict[str, Any]:
    """Return the size of the vocabulary of a text, and the columns of a table for models that tell them apart."""
    if pipeline.text is not None:
        return _vocabulary_size(pipeline)
    table, name = pipeline.dataset.table, pipeline.recipe.model.name
    takes = table is not None and name in models and COLUMNS in options_of(models[name])
    return {COLUMNS: table.parts} if takes else {}


def _vocabulary_size(pipeline: Pipeline) -> dict[str, int]:
    """Return the rows of the embedding; pretrained ones can have more than the vocabulary that goes with them."""
    size, start = len(pipeline.text.vocabulary), pipeline.pretrained
    rows = start.options.get("vocabulary", 0) if start and start.text == pipeline.text else 0
    return {"vocabulary": max(size, rows)}


def _head_sizes(pipeline: Pipeline) -> dict[str, Any]:
    return {"heads": SeveralTasks.heads(pipeline)} | _input_sizes(pipeline)


def _class_loss(config: LossConfig, weights: Sequence[float] | None = None, _: Dataset | None = None) -> Any:
    return class_loss(config, weights)


def _multilabel_loss(config: LossConfig, weights: Sequence[float] | None = None, _: Dataset | None = None) -> Any:
    return label_loss(config, weights)


def _regression_loss(config: LossConfig, weights: Sequence[float] | None = None, data: Dataset | None = None) -> Any:
    """Return the loss of numbers in the units of the data, computed in standard deviations of the training targets."""
    loss = value_loss(config, weights)
    if data is None or data.scale is None:
        return loss
    mean, std = (np.asarray(values, "float32") for values in (data.scale.mean, data.scale.std))

    def standardized(truth: Any, values: Any) -> Any:
        return loss.call((truth - mean) / std, (values - mean) / std)

    return standardized


def _sequence(targets: Targets, sizes: Any, evaluate: Any) -> Task:
    """Return a task with a label for each token."""
    return Task(sizes, functools.partial(token_loss, targets), lambda _: [token_accuracy()(targets)], evaluate)


# Names of metrics in a sentence, where they differ from their key.
NAMES = {"mean_average_precision": "mAP", "micro_f1": "micro F1", "rmse": "RMSE", "mae": "MAE", "r2": "R²"}


def describe_metrics(task: str, metrics: Mapping[str, Any]) -> str:
    """Return the main metrics of a task as text, and those of each of several targets."""
    found = [f"{NAMES.get(key, key)} {metrics[key]:.4f}" for key in TASKS[task].shown]
    for name, values in (metrics.get("targets") or {}).items():
        shown = [f"{NAMES.get(key, key)} {values[key]:.4f}" for key in TASKS[values["task"]].shown if key in values]
        found.append(f"{name} {' '.join(shown) or 'without examples'}")
    return ", ".join(found)


TASKS = {
    "classify": Task(_label_sizes, _class_loss, class_metrics, evaluate_classes),
    "multilabel": Task(
        _label_sizes,
        _multilabel_loss,
        multilabel_metrics,
        evaluate_multilabel,
        main="mean_average_precision",
        shown=("mean_average_precision", "micro_f1", "accuracy"),
        best=("val_mean_average_precision", 1),
    ),
    "regress": Task(
        _label_sizes,
        _regression_loss,
        regression_metrics,
        evaluate_regression,
        main="r2",
        shown=("rmse", "mae", "r2"),
        best=("val_loss", -1),
    ),
    "tag": _sequence(tag_targets, _label_sizes, evaluate_classes),
    "generate": _sequence(word_targets, _vocabulary_size, evaluate_generation),
}

_SEVERAL = SeveralTasks(TASKS)
TASKS["multitask"] = Task(
    _head_sizes,
    _SEVERAL.loss,
    _SEVERAL.metrics,
    _SEVERAL.evaluate,
    main="score",
    shown=("score",),
    best=("val_loss", -1),
)
