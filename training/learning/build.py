"""From a recipe and its data to a network that is ready to learn."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator
from typing import Any

import zoo
from training.augment.augment import augment_in_step
from training.common.sharding import WHOLE, Shard
from training.data.dataset import TargetScale
from training.data.pipeline.pipeline import Pipeline
from training.learning.regularization import routed_options, take_weights
from training.learning.tasks import TASKS
from training.learning.training_model import KEPT, kept, label_loss, make_training_model
from training.optim.optimizer import fit_optimizer, make_optimizer
from training.recipe.recipe import Recipe
from zoo.common.errors import BadOption
from zoo.common.lazy import keras


def build_model(recipe: Recipe, pipeline: Pipeline) -> Any:
    """Return the network that a recipe keeps and exports, with logits for the labels of a pipeline.

    Its weights are random: those that `model.weights` names are where training starts, see `build_training_model`.
    """
    return kept(_network(recipe, pipeline), recipe)


def build_training_model(recipe: Recipe, pipeline: Pipeline, *, start: bool) -> Any:
    """Return the model that learns as a recipe says; `training.learning.training_model.product` gives what is kept of it.

    Args:
        recipe: which network, and how it learns.
        pipeline: from what.
        start: give it the weights that the recipe starts from; a checkpoint brings its own.

    Raises:
        BadOption: options, weights or a teacher that do not fit.
    """
    network = _network(recipe, pipeline)
    if start and recipe.model.weights:
        _start(network, recipe, pipeline)
    return make_training_model(network, recipe, pipeline)


def _network(recipe: Recipe, pipeline: Pipeline, **changed: Any) -> Any:
    """Return the network of a recipe with all its outputs."""
    options, sizes = dict(recipe.model.options), TASKS[pipeline.dataset.task].sizes(pipeline)
    for name in sizes.keys() & options.keys():
        raise BadOption(
            f"{name} follows from the data. Received: model.options.{name}={options[name]}. Set data.{name} instead."
        )
    options |= routed_options(recipe)
    network = zoo.get(recipe.model.name, input_shape=pipeline.shape, **{**sizes, **options, **changed})
    return in_units(network, pipeline.dataset.scale)


def in_units(network: Any, scale: TargetScale | None) -> Any:
    """Return a network that gives values in the data's own units, by a layer that brings them back; see `TargetScale`."""
    if scale is None:
        return network
    std, mean = (values[0] if len(values) == 1 else list(values) for values in (scale.std, scale.mean))
    several = network.output if isinstance(network.output, dict) else {"": network.output}
    outputs = {
        name: keras.layers.Rescaling(std, mean, dtype="float32", name=f"{name}_units".strip("_"))(output)
        for name, output in several.items()
    }
    return keras.Model(network.input, outputs.get("", outputs), name=network.name)


def _start(network: Any, recipe: Recipe, pipeline: Pipeline) -> None:
    """Give a network the weights that its recipe starts from; a head of another size than theirs stays random."""
    weights = recipe.model.weights
    try:
        given = _network(recipe, pipeline, weights=weights)
    except BadOption as whole:
        try:
            given = _network(recipe, pipeline, weights=weights, classes=0)
        except BadOption:
            raise whole from None
    ours = {layer.name: _shape_of(layer) for layer in network.layers}
    for layer in given.layers:
        theirs, mine = _shape_of(layer), ours.get(layer.name)
        if layer.weights and theirs != mine:
            differing = sorted(key for key in theirs if mine is None or theirs[key] != mine.get(key))
            shown = ", ".join(f"{key}={theirs[key]}" for key in differing[:3])
            raise BadOption(
                f"model.weights need a network that is built as theirs. Received: model.weights={weights!r}, whose "
                f"{layer.name} has {shown}. Set model.options so that it has."
            )
    take_weights(network, given)


def _shape_of(layer: Any) -> dict[str, Any]:
    """Return the configuration of a layer, but for how its weights are drawn."""
    return {key: value for key, value in layer.get_config().items() if not key.endswith("initializer")}


def compile_model(model: Any, recipe: Recipe, pipeline: Pipeline, jit_compile: bool, share: Shard = WHOLE) -> None:
    """Give a network its loss, optimizer and metric, and build what belongs to them."""
    task = TASKS[pipeline.dataset.task]
    model.compile(
        optimizer=_optimizer(model, recipe, pipeline),
        loss=label_loss(recipe, pipeline),
        metrics=task.metrics(),
        # XLA has none of the operations that move pixels.
        jit_compile=jit_compile and not pipeline.in_step,
    )
    output = model.output[KEPT] if isinstance(model.output, dict) else model.output
    # The variables of metrics appear with the first batch otherwise, too late for a checkpoint to restore them.
    empty = keras.ops.zeros((1, *output.shape[1:]))
    model._compile_metrics.build(empty, empty)
    model._compile_loss.build(empty, empty)
    if pipeline.in_step:
        rows = None if share == WHOLE else share.table(pipeline.batch_size)
        augment_in_step(model, pipeline.change, recipe.seed, rows)


def _optimizer(model: Any, recipe: Recipe, pipeline: Pipeline) -> Any:
    optimizer = make_optimizer(recipe, pipeline.steps_per_epoch)
    fit_optimizer(optimizer, model, recipe.optimizer)
    return optimizer


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Draw initial weights and the seeds of dropout from `seed`; Keras takes both from Python's generator."""
    before = random.getstate()
    random.seed(seed)
    try:
        yield
    finally:
        random.setstate(before)
