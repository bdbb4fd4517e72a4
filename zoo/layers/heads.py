"""Heads of a model: its predictions, and the feature maps and attention weights marked before them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from zoo.common.errors import BadOption
from zoo.common.lazy import keras
from zoo.common.types import fit_type
from zoo.layers.blocks import check_activation, check_rate, dense, drop
from zoo.layers.lazy import sequence


@dataclasses.dataclass(frozen=True)
class Task:
    """A prediction from the trunk's features: `units` outputs (n, units).

    Args:
        units: number of outputs.
        activation: a Keras activation after them, such as "softmax"; None returns logits, for the loss.
    """

    units: int
    activation: str | None = None

    def __post_init__(self) -> None:
        if fit_type(self.units, int, "units") < 1:
            raise BadOption(f"A head needs at least one output. Received: {type(self).__name__}({self.units})")


class MultiClass(Task):
    """One of several classes: logits (n, classes)."""


class MultiLabel(Task):
    """Several labels at once: independent logits (n, labels)."""


@dataclasses.dataclass(frozen=True)
class Regression(Task):
    """Real numbers: values (n, targets)."""

    units: int = 1


@dataclasses.dataclass(frozen=True)
class Head:
    """Pooling, dropout, and a dense layer for each task.

    Args:
        tasks: tasks by name; a single unnamed task has the name ""; without tasks the output is the pooled features.
        include_top: False returns the feature map unchanged.
        levels: feature maps that the builder marked, from the finest to the coarsest.
        attention: attention weights (n, heads, queries, keys) in block order.
    """

    tasks: Mapping[str, Task]
    include_top: bool = True
    levels: list[Any] = dataclasses.field(default_factory=list)
    attention: list[Any] = dataclasses.field(default_factory=list)

    def level(self, x: Any, grid: tuple[int, int] | None = None) -> Any:
        """Mark a feature map (n, h, w, c), the last of its size, and return it.

        With a grid (rows, columns), mark the map of the patches at the end of a sequence (n, t, c).
        """
        self.levels.append(x if grid is None else sequence.Grid(*grid, name=f"level{len(self.levels)}_map")(x))
        return x

    def attend(self, weights: Any) -> Any:
        """Mark attention weights (n, heads, queries, keys) and return them."""
        self.attention.append(weights)
        return weights

    def __call__(self, x: Any, dropout: float = 0.0, *, neck: Callable[[Any], Any] | None = None) -> Any:
        """Return the predictions of a feature map (n, h, w, c) or of features (n, c).

        Args:
            x: the last feature map.
            dropout: fraction of the pooled features dropped in training.
            neck: function from the map to features (n, c); global average pooling by default.

        Returns:
            float32 logits (n, classes), a dictionary of logits by task, the features (n, c) if there is no task, or
            `x` without the top.
        """
        rate = check_rate(dropout)
        if not self.include_top:
            return x
        x = (neck or pool)(x)
        x = drop(x, rate, name="head_dropout")
        return self.logits(x) if self.tasks else x

    def logits(self, x: Any, name: str = "logits") -> Any:
        """Return the outputs of the last dense layers, always float32."""
        outputs = {key: _predict(x, task, f"{key}_{name}" if key else name) for key, task in self.tasks.items()}
        return outputs.get("", outputs)

    def token_logits(self, x: Any, embedding: Callable[..., Any]) -> Any:
        """Return float32 logits (n, t, vocabulary) of vectors (n, t, width) with the tied `TokenEmbedding`.

        The task's activation follows; without the top, return the vectors unchanged.
        """
        if not self.include_top:
            return x
        logits = embedding(x, reverse=True)
        return _activated(logits, self.tasks[""], "logits")

    def average(self, features: Mapping[str, Any]) -> Any:
        """Return the average of several classifiers' logits.

        Without tasks, return the average of the features.

        Args:
            features: input (n, c) of each classifier, by its name.
        """
        if not self.tasks:
            return keras.layers.Average(name="average_features")(list(features.values()))
        outputs = {key: self._average(features, task, f"{key}_" * bool(key)) for key, task in self.tasks.items()}
        return outputs.get("", outputs)

    def _average(self, features: Mapping[str, Any], task: Task, prefix: str) -> Any:
        # Sorted as Keras orders the outputs of `with_auxiliary`: a `.weights.h5` file identifies layers by order only.
        each = [_classifier(features[name], task, prefix + name) for name in sorted(features)]
        return _activated(keras.layers.Average(name=f"{prefix}average", dtype="float32")(each), task, f"{prefix}logits")

    def with_auxiliary(self, logits: Any, auxiliary: Mapping[str, Callable[[], Any]]) -> Any:
        """Return the logits and the logits of auxiliary classifiers, by name; without tasks, return `logits`.

        Args:
            logits: output of the main classifier.
            auxiliary: functions that return the features (n, c) of the auxiliary classifiers, by name.
        """
        if not (self.include_top and self.tasks):
            return logits
        if "" not in self.tasks:
            raise BadOption(
                f"Expected one head with auxiliary classifiers. Received: heads={dict(self.tasks)}. "
                "Set classes= instead, or turn the auxiliary classifiers off."
            )
        return {"logits": logits} | {name: self.logits(features(), name) for name, features in auxiliary.items()}


def pool(x: Any) -> Any:
    """Average a feature map (n, h, w, c) over its pixels; return features (n, c) unchanged."""
    return keras.layers.GlobalAveragePooling2D(name="pool")(x) if len(x.shape) > 2 else x


def _predict(x: Any, task: Task, name: str) -> Any:
    return _activated(_classifier(x, task, name), task, name)


def _classifier(x: Any, task: Task, name: str) -> Any:
    return dense(x, task.units, name=name, dtype="float32")


def _activated(x: Any, task: Task, name: str) -> Any:
    """Apply a task's activation to its logits."""
    if task.activation is None:
        return x
    scores = name.replace("logits", "scores") if "logits" in name else f"{name}_scores"
    return keras.layers.Activation(task.activation, dtype="float32", name=scores)(x)


def tasks_of(classes: int, heads: Any, activation: str | None) -> dict[str, Task]:
    """Return the tasks of the arguments `classes` or `heads` of `zoo.get`, or raise BadOption."""
    if heads is None:
        return _single(classes, activation)
    if activation is not None:
        raise BadOption(
            "Expected the activation in each head, as in MultiClass(10, activation='softmax'). "
            f"Received: classifier_activation={activation!r} with heads"
        )
    if not isinstance(heads, Mapping):
        return {"": _task(heads)}
    for name in heads:
        if not (isinstance(name, str) and name.isidentifier()):
            raise BadOption(f"heads need names that are identifiers, such as 'species'. Received: heads={heads}")
    if not heads:
        raise BadOption("heads must name at least one task. Received: heads={}. For features use classes=0.")
    return {name: _task(value) for name, value in heads.items()}


def _task(value: Any) -> Task:
    """Return a task; a number is a number of classes."""
    if isinstance(value, Task):
        if value.activation is not None:
            check_activation("activation", value.activation)
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        return MultiClass(value)
    raise BadOption(
        f"Expected a head to be a number of classes, MultiClass, MultiLabel or Regression. Received: {value!r}. "
        "For example heads={'species': 10, 'age': zoo.Regression()}"
    )


def _single(classes: int, activation: str | None) -> dict[str, Task]:
    """Return the single task of a number of classes; no task for 0."""
    if activation is not None:
        check_activation("classifier_activation", activation)
        if not classes:
            raise BadOption(f"classes=0 leaves no logits to activate. Received: classifier_activation={activation!r}")
    return {"": MultiClass(classes, activation)} if classes else {}
