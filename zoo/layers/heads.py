"""The end of a network: what is predicted, and the feature maps marked on the way there."""

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
    """Something to predict from the features of one trunk; the network gives `units` numbers (n, units) for it.

    Args:
        units: how many numbers.
        activation: a Keras activation after them, such as "softmax"; None leaves them as they are, for the loss.
    """

    units: int
    activation: str | None = None

    def __post_init__(self) -> None:
        if fit_type(self.units, int, "units") < 1:
            raise BadOption(f"A head needs at least one output. Received: {type(self).__name__}({self.units})")


class MultiClass(Task):
    """One of several classes: logits (n, classes)."""


class MultiLabel(Task):
    """Any number of labels at once: logits (n, labels), each for itself."""


@dataclasses.dataclass(frozen=True)
class Regression(Task):
    """Numbers on a scale: values (n, targets)."""

    units: int = 1


@dataclasses.dataclass(frozen=True)
class Head:
    """What follows the feature map: pooling, dropout, and a dense layer for each task.

    Args:
        tasks: what to predict by name; the name "" stands for the only one; none leaves the pooled features.
        include_top: False returns the feature map as it is.
        levels: feature maps that the builder marked, from the finest to the coarsest.
        attention: weights of attention (n, heads, queries, keys) in the order of the blocks.
    """

    tasks: Mapping[str, Task]
    include_top: bool = True
    levels: list[Any] = dataclasses.field(default_factory=list)
    attention: list[Any] = dataclasses.field(default_factory=list)

    def level(self, x: Any, grid: tuple[int, int] | None = None) -> Any:
        """Mark a feature map (n, h, w, c), the last of its size, and return it.

        With a grid (rows, columns), a sequence (n, t, c) whose last tokens are patches is marked as the map of them.
        """
        self.levels.append(x if grid is None else sequence.Grid(*grid, name=f"level{len(self.levels)}_map")(x))
        return x

    def attend(self, weights: Any) -> Any:
        """Keep weights of attention (n, heads, queries, keys) and return them."""
        self.attention.append(weights)
        return weights

    def __call__(self, x: Any, dropout: float = 0.0, *, neck: Callable[[Any], Any] | None = None) -> Any:
        """Return the predictions of a feature map (n, h, w, c) or of features (n, c).

        Args:
            x: the last feature map.
            dropout: share of the pooled features dropped in training.
            neck: turns the map into features (n, c); global average pooling by default.

        Returns:
            float32 logits (n, classes), a dictionary of them by task, the features (n, c) if there is no task, or `x`
            itself without the top.
        """
        rate = check_rate(dropout)
        if not self.include_top:
            return x
        x = (neck or pool)(x)
        x = drop(x, rate, name="head_dropout")
        return self.logits(x) if self.tasks else x

    def logits(self, x: Any, name: str = "logits") -> Any:
        """Return the last dense layers, in float32 whatever the precision before them."""
        outputs = {task: _predict(x, what, f"{task}_{name}" if task else name) for task, what in self.tasks.items()}
        return outputs.get("", outputs)

    def words(self, x: Any, embedding: Callable[..., Any]) -> Any:
        """Return float32 logits (n, t, vocabulary) of vectors (n, t, width) by a `TokenEmbedding`, activated if asked.

        Without the top, the vectors are returned as they are.
        """
        if not self.include_top:
            return x
        logits = embedding(x, reverse=True)
        return _activated(logits, self.tasks[""], "logits")

    def average(self, features: Mapping[str, Any]) -> Any:
        """Return the average of classifiers' logits, of features (n, c) by the classifier's name.

        Without classes to predict it is the average of the features.
        """
        if not self.tasks:
            return keras.layers.Average(name="average_features")(list(features.values()))
        outputs = {task: self._average(features, what, f"{task}_" * bool(task)) for task, what in self.tasks.items()}
        return outputs.get("", outputs)

    def _average(self, features: Mapping[str, Any], what: Task, prefix: str) -> Any:
        # In the order that Keras gives the outputs of `beside`: a `.weights.h5` file knows layers by their order only.
        each = [_classifier(features[name], what, prefix + name) for name in sorted(features)]
        return _activated(keras.layers.Average(name=f"{prefix}average", dtype="float32")(each), what, f"{prefix}logits")

    def beside(self, logits: Any, auxiliary: Mapping[str, Callable[[], Any]]) -> Any:
        """Return the logits and those of auxiliary classifiers, functions that give features (n, c), by name.

        Without classes to predict there is nothing beside them.
        """
        if not (self.include_top and self.tasks):
            return logits
        if "" not in self.tasks:
            raise BadOption(f"Auxiliary classifiers go with one head only. Received: heads={dict(self.tasks)}")
        return {"logits": logits} | {name: self.logits(features(), name) for name, features in auxiliary.items()}


def pool(x: Any) -> Any:
    """Average a feature map (n, h, w, c) over its pixels; features (n, c) pass."""
    return keras.layers.GlobalAveragePooling2D(name="pool")(x) if len(x.shape) > 2 else x


def _predict(x: Any, task: Task, name: str) -> Any:
    return _activated(_classifier(x, task, name), task, name)


def _classifier(x: Any, task: Task, name: str) -> Any:
    return dense(x, task.units, name=name, dtype="float32")


def _activated(x: Any, task: Task, name: str) -> Any:
    """Return what a task wants of its logits."""
    if task.activation is None:
        return x
    scores = name.replace("logits", "scores") if "logits" in name else f"{name}_scores"
    return keras.layers.Activation(task.activation, dtype="float32", name=scores)(x)


def tasks_of(classes: int, heads: Any, activation: str | None) -> dict[str, Task]:
    """Return the tasks that a user asked for by `classes` or `heads`, or raise BadOption."""
    if heads is None:
        return _single(classes, activation)
    if activation is not None:
        raise BadOption(
            "With heads, each states its own activation, as in MultiClass(10, activation='softmax'). "
            f"Received: classifier_activation={activation!r}"
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
    """Return a task; a number stands for that many classes."""
    if isinstance(value, Task):
        if value.activation is not None:
            check_activation("activation", value.activation)
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        return MultiClass(value)
    raise BadOption(
        f"A head is a number of classes, MultiClass, MultiLabel or Regression. Received: {value!r}. "
        "For example heads={'species': 10, 'age': zoo.Regression()}"
    )


def _single(classes: int, activation: str | None) -> dict[str, Task]:
    """Return the one task of a number of classes, none for 0."""
    if activation is not None:
        check_activation("classifier_activation", activation)
        if not classes:
            raise BadOption(f"classes=0 leaves no logits to activate. Received: classifier_activation={activation!r}")
    return {"": MultiClass(classes, activation)} if classes else {}
