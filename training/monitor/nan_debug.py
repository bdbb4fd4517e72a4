"""Which layer went wrong first, when a loss or a weight is not finite.

While all is well nothing is measured. Once it is not, the steps since the last checkpoint are taken again, which are
the same as before, up to the first whose loss or weights are not finite; and that one is then taken layer by layer.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Iterator
from typing import Any

from training.checkpoints.files import Progress
from training.common.finite import broken_weight
from training.data.pipeline.pipeline import Pipeline
from zoo.common.lazy import keras, np, tf

# Seconds of steps that are taken again, at most.
LONGEST = 600.0


@dataclasses.dataclass(frozen=True)
class Call:
    """One layer, or operation, of a network's graph at work.

    Args:
        operation: what was called.
        inputs: the tensors that it was given, its own alone.
        outputs: the tensors that it returned.
    """

    operation: Any
    inputs: list[Any]
    outputs: list[Any]

    @property
    def shown(self) -> str:
        """What it is called, for people."""
        return f"{self.operation.name} ({type(self.operation).__name__})"


def find_first(model: Any, pipeline: Pipeline, progress: Progress) -> str:
    """Return a sentence on what was not finite first after a checkpoint, which the model was just given.

    Args:
        model: compiled and functional; it is left in some other state.
        pipeline: what it learns from.
        progress: where the checkpoint stands.

    Returns:
        "" where the steps after it are good, or take too long.
    """
    if not hasattr(model, "_run_through_graph"):
        return ""
    start = time.monotonic()
    step = progress.epoch * pipeline.steps_per_epoch + progress.step
    for batch in pipeline.train(progress.epoch, progress.step):
        if time.monotonic() - start > LONGEST:
            break
        before = [np.asarray(variable).copy() for variable in model.variables]
        drawn = tf.constant([pipeline.recipe.seed, int(model.optimizer._iterations)], tf.int64)
        model.reset_metrics()
        loss, broken = float(model.train_function(iter([batch]))["loss"]), broken_weight(model)
        if broken or not math.isfinite(loss):
            for variable, value in zip(model.variables, before, strict=True):
                variable.assign(value)
            x, y, *_ = pipeline.change(*batch[:2], drawn) if pipeline.in_step else batch
            where = f"epoch {progress.epoch + 1}, step {step - progress.epoch * pipeline.steps_per_epoch + 1}"
            return f"First to go, in {where}: {_first(model, x, y) or _updated(broken)}"
        step += 1
    return ""


def _updated(broken: str | None) -> str:
    return f"the update of {broken} by the optimizer; all activations and gradients are finite"


def _first(model: Any, x: Any, y: Any) -> str | None:
    """Return what is not finite first when a model learns from a batch: data, activation, loss or gradient."""
    for name, values in (("the images or features", x), ("the labels", y)):
        if kind := _kind(values):
            return f"the data; {name} of the batch hold {kind}"
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
    """Take a functional model forward in training; return each call of its graph in turn, and its outputs."""
    calls: list[Call] = []

    def watched(operation: Any) -> Any:
        def call(*arguments: Any, **options: Any) -> Any:
            # Copies, so that what goes back to this operation is told from what goes back to others.
            arguments, options = keras.tree.map_structure(_copied, (arguments, options))
            if getattr(operation, "_call_has_training_arg", False):
                options["training"] = True
            outputs = operation(*arguments, **options)
            calls.append(Call(operation, _floats((arguments, options)), _floats(outputs)))
            return outputs

        return call

    outputs = model._run_through_graph(model._standardize_inputs(x), operation_fn=watched)
    return calls, outputs[0] if isinstance(outputs, (list, tuple)) and len(outputs) == 1 else outputs


def _copied(value: Any) -> Any:
    if not isinstance(value, tf.Tensor):
        return value
    copy = tf.identity(value)
    mask = getattr(value, "_keras_mask", None)
    if mask is not None:
        copy._keras_mask = mask
    return copy


def _gradients(tape: Any, loss: Any, calls: list[Call], outputs: Any) -> Iterator[tuple[str, Any]]:
    """Yield what gradients are of, and what they are, going back through a network."""
    stages = [("the output", _floats(outputs))]
    for call in reversed(calls):
        weights = getattr(call.operation, "trainable_weights", ())
        stages += [(f"the {w.name} of {call.shown}", [w.value]) for w in weights]
        stages.append((f"the input of {call.shown}", call.inputs))
    found = tape.gradient(loss, [sources for _, sources in stages], unconnected_gradients="none")
    return zip((name for name, _ in stages), found, strict=True)


def _first_gradient(gradients: Iterator[tuple[str, Any]]) -> str | None:
    for name, found in gradients:
        dense = [g.values if isinstance(g, tf.IndexedSlices) else g for g in found if g is not None]
        if kind := _kind(dense):
            return f"the gradient by {name}, {kind}; all activations are finite"
    return None


def _floats(values: Any) -> list[Any]:
    return [v for v in keras.tree.flatten(values) if isinstance(v, tf.Tensor) and v.dtype.is_floating]


def _kind(values: Any) -> str:
    """Return "nan" or "inf" if one of some tensors is not finite, nan before inf; else ""."""
    for kind, holds in (("nan", tf.math.is_nan), ("inf", tf.math.is_inf)):
        if any(bool(tf.reduce_any(holds(v))) for v in _floats(values)):
            return kind
    return ""
