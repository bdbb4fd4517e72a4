"""Find the first layer with a value that is not finite, after a loss or a weight is not.

Healthy steps are not measured. After a failure, the steps since the last checkpoint are repeated, with the same
results, up to the first whose loss or weights are not finite; that step is then run layer by layer.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Iterator
from typing import Any

from training.checkpoints.files import Progress
from training.common.compat import step_count
from training.common.finite import nonfinite_weight
from training.data.pipeline.pipeline import Pipeline
from zoo.common import compat
from zoo.common.lazy import keras, np, tf

# Maximum seconds of repeated steps.
TIMEOUT = 600.0


@dataclasses.dataclass(frozen=True)
class Call:
    """One call of a layer or operation of a model's graph.

    Args:
        operation: the layer or operation.
        inputs: copies of its input tensors.
        outputs: its output tensors.
    """

    operation: Any
    inputs: list[Any]
    outputs: list[Any]

    @property
    def shown(self) -> str:
        """Its name and class."""
        return f"{self.operation.name} ({type(self.operation).__name__})"


def find_first(model: Any, pipeline: Pipeline, progress: Progress) -> str:
    """Return a sentence on the first value after a checkpoint that is not finite.

    Args:
        model: a compiled functional TrainingModel with the state of the checkpoint; its state changes.
        pipeline: its data.
        progress: progress of the checkpoint.

    Returns:
        The sentence; "" if the steps after the checkpoint are finite, or take too long.
    """
    if not compat.is_functional(model):
        return ""
    model.make_train_function()
    start = time.monotonic()
    step = progress.epoch * pipeline.steps_per_epoch + progress.step
    for batch in pipeline.train(progress.epoch, progress.step):
        if time.monotonic() - start > TIMEOUT:
            break
        before = [np.asarray(variable).copy() for variable in model.variables]
        drawn = tf.constant([pipeline.recipe.seed, int(step_count(model.optimizer))], tf.int64)
        model.reset_metrics()
        loss, broken = float(model.train_function(iter([batch]))["loss"]), nonfinite_weight(model)
        if broken or not math.isfinite(loss):
            for variable, value in zip(model.variables, before, strict=True):
                variable.assign(value)
            x, y, *_ = pipeline.augment_batch(*batch[:2], drawn) if pipeline.augments_on_device else batch
            where = f"epoch {progress.epoch + 1}, step {step - progress.epoch * pipeline.steps_per_epoch + 1}"
            return f"First value that is not finite, in {where}: {_first(model, x, y) or _updated(broken)}"
        step += 1
    return ""


def _updated(broken: str | None) -> str:
    return f"the update of {broken} by the optimizer; all activations and gradients are finite"


def _first(model: Any, x: Any, y: Any) -> str | None:
    """Return the first value that is not finite in a step on a batch: data, activation, loss or gradient."""
    for name, values in (("the images or features", x), ("the labels", y)):
        if kind := _kind(values):
            return f"the data; {name} of the batch contain {kind}"
    with tf.GradientTape() as tape:
        calls, outputs = _run(model, x)
        loss = model.compute_loss(x, y, outputs, None, training=True)
    for call in calls:
        if kind := _kind(call.outputs):
            return f"the activation of {call.shown}, {kind}"
    if kind := _kind(loss):
        return f"the loss itself, {kind}; all activations are finite"
    return _first_gradient(_gradients(tape, loss, calls, outputs))


def _run(model: Any, x: Any) -> tuple[list[Call], Any]:
    """Run a functional model forward in training; return each call of its graph in order, and its outputs."""
    calls: list[Call] = []

    def recorded(operation: Any) -> Any:
        def call(*arguments: Any, **options: Any) -> Any:
            # Copies separate the gradients of this operation's inputs from those of other operations.
            arguments, options = keras.tree.map_structure(_copied, (arguments, options))
            if compat.has_training_argument(operation):
                options["training"] = True
            outputs = operation(*arguments, **options)
            calls.append(Call(operation, _floats((arguments, options)), _floats(outputs)))
            return outputs

        return call

    outputs = compat.run_graph(model.hooks.head or model, x, recorded)
    return calls, outputs[0] if isinstance(outputs, (list, tuple)) and len(outputs) == 1 else outputs


def _copied(value: Any) -> Any:
    if not isinstance(value, tf.Tensor):
        return value
    copy = tf.identity(value)
    mask = compat.get_mask(value)
    if mask is not None:
        compat.set_mask(copy, mask)
    return copy


def _gradients(tape: Any, loss: Any, calls: list[Call], outputs: Any) -> Iterator[tuple[str, Any]]:
    """Yield names of gradients and the gradients, backwards through a model."""
    stages = [("the output", _floats(outputs))]
    for call in reversed(calls):
        weights = getattr(call.operation, "trainable_weights", ())
        stages += [(f"the {w.name} of {call.shown}", [w.value]) for w in weights]
        stages.append((f"the input of {call.shown}", call.inputs))
    gradients = tape.gradient(loss, [sources for _, sources in stages], unconnected_gradients="none")
    return zip((name for name, _ in stages), gradients, strict=True)


def _first_gradient(gradients: Iterator[tuple[str, Any]]) -> str | None:
    for name, tensors in gradients:
        dense = [g.values if isinstance(g, tf.IndexedSlices) else g for g in tensors if g is not None]
        if kind := _kind(dense):
            return f"the gradient of {name}, {kind}; all activations are finite"
    return None


def _floats(values: Any) -> list[Any]:
    return [v for v in keras.tree.flatten(values) if isinstance(v, tf.Tensor) and v.dtype.is_floating]


def _kind(values: Any) -> str:
    """Return "nan" or "inf" if a tensor is not finite, nan before inf; else ""."""
    for kind, holds in (("nan", tf.math.is_nan), ("inf", tf.math.is_inf)):
        if any(bool(tf.reduce_any(holds(v))) for v in _floats(values)):
            return kind
    return ""
