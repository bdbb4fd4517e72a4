"""Build and compile the model of a recipe."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Iterator
from typing import Any

import zoo
from training.common.compat import build_compiled, step_count
from training.common.sharding import WHOLE, Shard, draw_for_batch
from training.data.dataset import Dataset, TargetScale
from training.data.pipeline.pipeline import Pipeline
from training.data.pretrained import architecture
from training.learning.heads import make_training_model, to_inference_model
from training.learning.regularization import routed_options, take_weights
from training.learning.tasks import TASKS
from training.learning.training_model import evaluation_loss, label_loss, logits_of
from training.learning.trunk import prepare_stages
from training.optim.optimizer import connect_optimizer, make_optimizer, same, scale_loss
from training.recipe.recipe import Recipe
from zoo.common.errors import BadOption
from zoo.common.lazy import keras, tf


def build_model(recipe: Recipe, pipeline: Pipeline) -> Any:
    """Return the model that a recipe saves and exports, with an output for each label of a pipeline.

    Its weights are random; `build_training_model` loads those of `model.weights`.
    """
    return to_inference_model(_build(recipe, pipeline), recipe)


def build_training_model(recipe: Recipe, pipeline: Pipeline, *, start: bool) -> Any:
    """Return the TrainingModel of a recipe.

    Args:
        recipe: the recipe.
        pipeline: its data.
        start: load the weights that the recipe starts from; not needed before a checkpoint is loaded.

    Raises:
        BadOption: options, weights or a teacher do not fit the model.
    """
    model = _build(recipe, pipeline)
    if start and recipe.model.weights:
        _load_weights(model, recipe, pipeline)
    trained = make_training_model(model, recipe, pipeline)
    prepare_stages(trained, recipe)
    return trained


def _build(recipe: Recipe, pipeline: Pipeline, **changes: Any) -> Any:
    """Return the model of a recipe with all its outputs."""
    options, sizes = dict(recipe.model.options), TASKS[pipeline.dataset.task].sizes(pipeline)
    for name in sizes.keys() & options.keys():
        raise BadOption(
            f"model.options.{name} follows from the data. Received: model.options.{name}={options[name]}. "
            f"Set data.{name} instead."
        )
    options |= routed_options(recipe)
    if not changes:
        options = architecture(pipeline.pretrained, options)
    model = zoo.get(recipe.model.name, input_shape=pipeline.shape, **{**options, **sizes, **changes})
    return in_data_units(model, pipeline.dataset)


def in_data_units(model: Any, dataset: Dataset) -> Any:
    """Return a model that outputs values in the units of the data, through rescaling layers; see `TargetScale`."""
    if dataset.scale is None:
        return model
    by_name = model.output if isinstance(model.output, dict) else {"": model.output}
    scales = {output.name: dataset.of_output(output).scale for output in dataset.outputs}
    outputs = {name: _in_units(name, output, scales.get(name, dataset.scale)) for name, output in by_name.items()}
    return keras.Model(model.input, outputs.get("", outputs), name=model.name)


def _in_units(name: str, output: Any, scale: TargetScale | None) -> Any:
    """Return an output in the units of the data; unchanged if it has no scale."""
    if scale is None:
        return output
    std, mean = (values[0] if len(values) == 1 else list(values) for values in (scale.std, scale.mean))
    return keras.layers.Rescaling(std, mean, dtype="float32", name=f"{name}_units".strip("_"))(output)


def _load_weights(model: Any, recipe: Recipe, pipeline: Pipeline) -> None:
    """Load the weights that a recipe starts from; a head of another size stays random."""
    weights = recipe.model.weights
    try:
        source = _build(recipe, pipeline, weights=weights)
    except BadOption as error:
        try:
            source = _build(recipe, pipeline, weights=weights, classes=0, heads=None)
        except BadOption:
            raise error from None
    configs = {layer.name: _config(layer) for layer in model.layers}
    for layer in source.layers:
        theirs, ours = _config(layer), configs.get(layer.name)
        if layer.weights and theirs != ours:
            differing = sorted(key for key in theirs if ours is None or theirs[key] != ours.get(key))
            shown = ", ".join(f"{key}={theirs[key]}" for key in differing[:3])
            raise BadOption(
                f"model.weights must be of a model with the same options. Received: model.weights={weights!r}, where "
                f"{layer.name} has {shown}. Set model.options to match."
            )
    take_weights(model, source)


def _config(layer: Any) -> dict[str, Any]:
    """Return the configuration of a layer without its initializers."""
    return {key: value for key, value in layer.get_config().items() if not key.endswith("initializer")}


def compile_model(
    model: Any,
    recipe: Recipe,
    pipeline: Pipeline,
    jit_compile: bool,
    shard: Shard = WHOLE,
    adapt: Callable[[Any], Any] = same,
) -> None:
    """Compile a model with the loss, optimizer and metrics of a recipe, and create their variables.

    Args:
        model: a TrainingModel, or any model that is only evaluated.
        recipe: the recipe.
        pipeline: its data.
        jit_compile: compile the step by XLA.
        shard: the part of a batch that this process computes.
        adapt: returns a subclass of an optimizer for a device; see `training.distributed.device.Device`.
    """
    task = TASKS[pipeline.dataset.task]
    trains, evaluated = hasattr(model, "hooks"), evaluation_loss(pipeline)
    optimizer = make_optimizer(recipe, pipeline.steps_per_epoch, adapt)
    connect_optimizer(optimizer, model, recipe.optimizer)
    if model.dtype_policy.name == "mixed_float16":
        optimizer = scale_loss(optimizer, adapt)
    model.compile(
        optimizer=optimizer,
        loss=label_loss(recipe, pipeline) if trains else evaluated,
        metrics=task.metrics(pipeline.dataset),
        # XLA has no operations that move pixels.
        jit_compile=jit_compile and not pipeline.augments_on_device,
    )
    output = logits_of(model.output)
    # Keras creates the variables of metrics at the first batch, too late for a checkpoint to restore them.
    empty = keras.ops.zeros((1, *output.shape[1:]))
    build_compiled(model, empty, empty)
    if trains:
        model.hooks.evaluation_loss = evaluated
    if pipeline.augments_on_device and trains:
        rows = None if shard == WHOLE else shard.table(pipeline.batch_size)
        model.hooks.change = augmentation(model, pipeline.augment_batch, recipe.seed, rows)


def augmentation(model: Any, change: Callable[..., Any], seed: int, rows: Any = None) -> Callable[[Any], Any]:
    """Return the function that augments a batch inside the training step of a compiled model.

    Args:
        model: a compiled model; its optimizer counts the steps, and a checkpoint restores the count.
        change: takes (x, y, seed int64 (2,)) of a raw batch and returns the inputs of model and loss.
        seed: the recipe's seed.
        rows: the rows of a batch that each replica computes, int64 (replicas, rows); None for one replica.
    """

    def changed(data: Any) -> Any:
        x, y, weight = keras.utils.unpack_x_y_sample_weight(data)
        step = tf.cast(tf.convert_to_tensor(step_count(model.optimizer)), tf.int64)
        drawn = tf.stack([tf.cast(seed, tf.int64), step])
        if rows is None:
            return keras.utils.pack_x_y_sample_weight(*change(x, y, drawn), weight)
        replica = tf.distribute.get_replica_context().replica_id_in_sync_group
        with draw_for_batch(rows.size, tf.gather(rows, replica)):
            return keras.utils.pack_x_y_sample_weight(*change(x, y, drawn), weight)

    return changed


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Draw initial weights and dropout seeds from `seed`; Keras takes both from Python's generator."""
    before = random.getstate()
    random.seed(seed)
    try:
        yield
    finally:
        random.setstate(before)
