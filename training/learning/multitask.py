"""Several targets at once: the loss, the running metrics and the evaluation, each of them by output.

A model in training has its outputs side by side, (n, units), in the order of `Dataset.outputs`; the model that is
evaluated, saved and exported has them by name.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from training.common.sharding import sum_over_replicas
from training.data.dataset import Dataset
from training.data.outputs import Output, known_rows, unit_slices
from training.data.pipeline.pipeline import Pipeline
from training.learning.losses import CLASS_LOSSES, LABEL_LOSSES, VALUE_LOSSES
from training.recipe.config import LossConfig
from zoo import MultiClass, MultiLabel, Regression
from zoo.common.errors import BadOption
from zoo.common.lazy import keras, np, tf
from zoo.specs.tasks import CLASSIFY, MULTILABEL

HEADS = {CLASSIFY: MultiClass, MULTILABEL: MultiLabel}
LOSSES = {CLASSIFY: CLASS_LOSSES, MULTILABEL: LABEL_LOSSES}


class SeveralTasks:
    """What a `training.learning.tasks.Task` needs for several targets, made of the tasks of single ones.

    Args:
        tasks: the tasks of single targets by name.
    """

    def __init__(self, tasks: Mapping[str, Any]) -> None:
        self._tasks = tasks

    @staticmethod
    def heads(pipeline: Pipeline) -> dict[str, Any]:
        """Return the heads of a model for `zoo.get`, by the name of the output."""
        return {
            output.name: HEADS[output.task](output.units) if output.task in HEADS else Regression(output.units)
            for output in pipeline.dataset.outputs
        }

    def loss(self, config: LossConfig, weights: Sequence[float] | None = None, dataset: Dataset | None = None) -> Any:
        """Return the loss, for `compile`: the sum of those of all outputs by their weights, each of its known targets.

        Raises:
            BadOption: an option of the loss applies to none of the outputs, or to single targets only.
        """
        _check(config, dataset.outputs)
        return _summed()([(part.output.weight, part) for part in self._losses(config, dataset)])

    def _losses(self, config: LossConfig, dataset: Dataset) -> list[Any]:
        """Return the loss of each output."""
        found = []
        for output, place in unit_slices(dataset.outputs):
            part = dataset.of_output(output)
            loss = self._tasks[part.task].loss(_of_task(config, part.task), None, part)
            found.append(OutputLoss(output, place, loss.call if isinstance(loss, keras.losses.Loss) else loss))
        return found

    def metrics(self, dataset: Dataset) -> list[Any]:
        """Return the running metrics of each output, with its name in front."""
        cls, mean = _output_metrics()
        found: list[Any] = []
        for loss in self._losses(LossConfig(), dataset):
            found.append(mean(loss))
            found += [cls(loss, metric) for metric in self._tasks[loss.output.task].metrics(None)]
        return found

    def evaluate(self, model: Any, batches: Iterable[Any], dataset: Dataset | None = None) -> dict[str, Any]:
        """Return the metrics of each output under "targets"; "score" is the mean of their main metrics.

        Args:
            model: returns its outputs by name.
            batches: (x, y), y (n, units).
            dataset: names the outputs.
        """
        pairs = [(model(x, training=False), np.asarray(y)) for x, y in batches]
        truth = np.concatenate([y for _, y in pairs])
        targets, loss = {}, 0.0
        for output, place in unit_slices(dataset.outputs):
            values = np.concatenate([np.asarray(found[output.name]) for found, _ in pairs])
            targets[output.name] = self._metrics_of(output, values, truth[:, place], dataset.of_output(output))
            loss += output.weight * targets[output.name]["loss"]
        scores = [found[self._tasks[found["task"]].main] for found in targets.values() if found["examples"]]
        score = float(np.mean(scores)) if scores else 0.0
        return {"score": score, "loss": loss, "examples": len(truth), "confusion": None, "targets": targets}

    def _metrics_of(self, output: Output, values: Any, truth: Any, dataset: Dataset) -> dict[str, Any]:
        """Return the metrics of one output on the examples that have its target."""
        known = known_rows(truth)
        if not known.any():
            return {"task": output.task, "loss": 0.0, "examples": 0}
        found = self._tasks[output.task].evaluate(lambda x, **_: x, [(values[known], truth[known])], dataset)
        return {"task": output.task, **{key: value for key, value in found.items() if value is not None}}


def _of_task(config: LossConfig, task: str) -> LossConfig:
    """Return the loss of one output: what does not apply to its task is left at the default."""
    plain = LossConfig()
    if config.name not in LOSSES.get(task, VALUE_LOSSES):
        config = dataclasses.replace(config, name=plain.name, gamma=plain.gamma, delta=plain.delta)
    return config if task in LOSSES else dataclasses.replace(config, label_smoothing=plain.label_smoothing)


def _check(config: LossConfig, outputs: Sequence[Output]) -> None:
    """Raise BadOption for options of the loss that apply to none of the outputs."""
    if not any(config.name in LOSSES.get(output.task, VALUE_LOSSES) for output in outputs):
        kinds = ", ".join(f"{output.name} ({output.task})" for output in outputs)
        raise BadOption(f"loss.name={config.name} applies to none of the targets. Received: {kinds}. Use auto.")
    if config.class_weight or config.balanced:
        raise BadOption(
            "loss.class_weight and loss.balanced apply to a single target. Received: "
            f"loss.class_weight={list(config.class_weight)}, loss.balanced={config.balanced} with {len(outputs)} "
            "targets. Weight whole targets by loss.heads."
        )
    if config.label_smoothing and not any(output.task in LOSSES for output in outputs):
        raise BadOption(
            f"loss.label_smoothing applies to classes. Received: loss.label_smoothing={config.label_smoothing} with "
            "targets that are numbers. Leave it out."
        )


@dataclasses.dataclass(frozen=True)
class OutputLoss:
    """The loss of one output.

    Args:
        output: the output.
        place: where it is, side by side with the others.
        loss: of its targets and values (n, units), (n,).
    """

    output: Output
    place: slice
    loss: Any

    def parts(self, truth: Any, values: Any) -> tuple[Any, Any, Any]:
        """Return targets with 0 where they are missing, values, and which are known, float32 (n,)."""
        truth = tf.cast(truth, tf.float32)[:, self.place]
        known = known_rows(truth)
        return tf.where(known[:, None], truth, 0.0), values[:, self.place], tf.cast(known, tf.float32)

    def each(self, truth: Any, values: Any) -> tuple[Any, Any]:
        """Return the loss of each example (n,), 0 without a target, and which have one, float32 (n,)."""
        truth, values, known = self.parts(truth, values)
        return tf.cast(self.loss(truth, values), tf.float32) * known, known


@functools.cache
def _summed() -> Any:
    """Return the class of a Keras loss that sums those of outputs."""

    class Summed(keras.losses.Loss):
        """The weighted sum of means over the known targets of a batch."""

        def __init__(self, parts: Sequence[tuple[float, OutputLoss]]) -> None:
            super().__init__(name="loss")
            self._parts = tuple(parts)

        def call(self, labels: Any, outputs: Any) -> Any:
            return sum(weight * self._mean(part, labels, outputs) for weight, part in self._parts)

        @staticmethod
        def _mean(part: OutputLoss, labels: Any, outputs: Any) -> Any:
            each, known = part.each(labels, outputs)
            # Keras divides by the number of examples, and by the replicas of a strategy.
            counts = tf.stack([tf.cast(tf.size(known), tf.float32), tf.reduce_sum(known)])
            size, count = tf.unstack(sum_over_replicas(counts))
            return each * (size / tf.maximum(count, 1.0))

    return Summed


@functools.cache
def _output_metrics() -> tuple[Any, Any]:
    """Return the classes of Keras metrics of one output: of any metric, and its mean loss."""

    class OfOutput(keras.metrics.Metric):
        """A metric of one output, of the examples that have its target."""

        def __init__(self, part: OutputLoss, metric: Any) -> None:
            super().__init__(name=f"{part.output.name}_{metric.name}")
            self._part, self._metric = part, metric

        def update_state(self, labels: Any, outputs: Any, sample_weight: Any = None) -> None:
            truth, values, known = self._part.parts(labels, outputs)
            self._metric.update_state(truth, values, sample_weight=known)

        def result(self) -> Any:
            return self._metric.result()

        def reset_state(self) -> None:
            self._metric.reset_state()

    class MeanLoss(keras.metrics.Mean):
        """The mean loss of the known targets of one output."""

        def __init__(self, part: OutputLoss) -> None:
            super().__init__(name=f"{part.output.name}_loss")
            self._part = part

        def update_state(self, labels: Any, outputs: Any, sample_weight: Any = None) -> None:
            each, known = self._part.each(labels, outputs)
            super().update_state(each, sample_weight=known)

    return OfOutput, MeanLoss
