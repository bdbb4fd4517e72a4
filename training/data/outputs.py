"""Several targets at once: each has an output of the model, with a name, a task and labels of its own.

The raw labels of an example are one row, float32 (columns,), with the columns of the outputs side by side: a class
index, a number, or 1, 0 and -1 for each of several labels; NaN where a class or a number is missing. The targets of the
loss are a row too, (units,), with one-hot classes; and so are the outputs of a model in training.
"""

from __future__ import annotations

import dataclasses
import re
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from zoo.common.errors import BadOption, did_you_mean
from zoo.common.lazy import np, tf
from zoo.specs.tasks import task_of

# Names that inputs and outputs of models have anyway.
TAKEN = ("logits", "values", "scores", "labels", "tokens", "embedding", "features", "image", "image_bytes", "text")


@dataclasses.dataclass(frozen=True)
class Output:
    """An output of a model with several, for one target.

    Args:
        name: an identifier: of the output in the model, in metrics and in artifacts.
        target: the name of the target, such as that of its column.
        task: "classify", "multilabel" or "regress".
        labels: names of the classes or labels; of a number, the target.
        weight: factor of its loss.
    """

    name: str
    target: str
    task: str
    labels: tuple[str, ...]
    weight: float = 1.0

    @property
    def columns(self) -> int:
        """Number of raw labels."""
        return task_of(self.task).columns(self.labels)

    @property
    def units(self) -> int:
        """Number of values of the output: logits, or one number."""
        return len(self.labels)

    def to_json(self) -> dict[str, Any]:
        """Return what artifacts state."""
        return {"name": self.name, "target": self.target, "task": self.task, "labels": list(self.labels)}


def identifiers(columns: Sequence[str], kind: str = "target") -> list[str]:
    """Return an identifier for each target or other kind of column, its own name where that is one in ASCII."""
    names: list[str] = []
    for number, column in enumerate(columns):
        plain = unicodedata.normalize("NFKD", column).encode("ascii", "ignore").decode()
        name = re.sub(r"\W+", "_", plain).strip("_") or f"{kind}_{number}"
        name = f"{kind}_{name}" if name[0].isdigit() or name in TAKEN else name
        names.append(next(found for found in _variants(name) if found.lower() not in map(str.lower, names)))
    return names


def _variants(name: str) -> Iterator[str]:
    yield name
    number = 2
    while True:
        yield f"{name}_{number}"
        number += 1


def label_slices(outputs: Sequence[Output]) -> list[tuple[Output, slice]]:
    """Return each output with its place among the raw labels."""
    return _placed(outputs, lambda output: output.columns)


def unit_slices(outputs: Sequence[Output]) -> list[tuple[Output, slice]]:
    """Return each output with its place among the targets of the loss, and among the outputs side by side."""
    return _placed(outputs, lambda output: output.units)


def _placed(outputs: Sequence[Output], width: Callable[[Output], int]) -> list[tuple[Output, slice]]:
    ends = np.cumsum([0, *map(width, outputs)]).tolist()
    return [(output, slice(low, high)) for output, low, high in zip(outputs, ends, ends[1:], strict=False)]


def labels_side_by_side(outputs: Sequence[Output]) -> tuple[str, ...]:
    """Return the name of each unit."""
    pairs = [(output, label) for output in outputs for label in output.labels]
    return tuple(label if task_of(output.task).numbers else f"{output.target}: {label}" for output, label in pairs)


def unit_targets(y: Any, outputs: Sequence[Output]) -> Any:
    """Return raw labels (n, columns) as the targets of the loss, float32 (n, units); NaN where missing."""
    y = tf.cast(y, tf.float32)
    return tf.concat([_expanded(y[:, place], output) for output, place in label_slices(outputs)], axis=1)


def _expanded(y: Any, output: Output) -> Any:
    """Return the labels of one output: classes one-hot."""
    if not task_of(output.task).indexed:
        return y
    missing = tf.math.is_nan(y)
    found = tf.one_hot(tf.cast(tf.where(missing, 0.0, y)[:, 0], tf.int32), output.units)
    return tf.where(missing, float("nan"), found)


def known_rows(truth: Any) -> Any:
    """Return which rows of one output's targets (n, units) have one, bool (n,)."""
    if isinstance(truth, np.ndarray):
        return ~np.isnan(truth).any(-1)
    return tf.logical_not(tf.reduce_any(tf.math.is_nan(truth), axis=-1))


def strata(outputs: Sequence[Output], values: Any) -> Any:
    """Return the class of each row of raw labels by the first target with classes, int64 (n,): for splits.

    Rows without it, and all rows without such a target, are a class of their own.
    """
    for output, place in label_slices(outputs):
        if task_of(output.task).indexed:
            found = np.asarray(values)[:, place.start]
            return np.where(np.isnan(found), -1, found).astype("int64")
    return np.zeros(len(values), "int64")


def weighted(outputs: Sequence[Output], weights: Mapping[str, float]) -> tuple[Output, ...]:
    """Return outputs with the weights of their losses, 1 by default.

    Args:
        outputs: the outputs; none for a single target, whose weights are of auxiliary outputs.
        weights: `loss.heads`, by the name of the output or of the target.

    Raises:
        BadOption: a weight names no output, or all are 0.
    """
    names = [name for one in outputs for name in (one.name, one.target)]
    for name in weights if names else ():
        if name not in names:
            raise BadOption(
                f"loss.heads must name outputs, which are {', '.join(one.name for one in outputs)}. Received: "
                f"loss.heads.{name}={weights[name]}. {did_you_mean(name, names)}"
            )
    factors = [float(weights.get(one.name, weights.get(one.target, 1.0))) for one in outputs]
    if factors and not any(factors):
        raise BadOption(f"loss.heads must leave a weight above 0. Received: loss.heads={dict(weights)}")
    return tuple(dataclasses.replace(one, weight=each) for one, each in zip(outputs, factors, strict=True))
