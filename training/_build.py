"""From a recipe and its data to a network that is ready to learn."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator
from typing import Any

import zoo
from training._optimizer import make_optimizer
from training._pipeline import Pipeline
from training._recipe import Recipe
from training._tasks import TASKS
from zoo._errors import BadOption
from zoo._lazy import keras


def build_model(recipe: Recipe, pipeline: Pipeline) -> Any:
    """Return the network of a recipe for the data of a pipeline, with logits for its labels."""
    options, sizes = dict(recipe.model.options), TASKS[pipeline.dataset.task].sizes(pipeline)
    for name in sizes.keys() & options.keys():
        raise BadOption(
            f"{name} follows from the data. Received: model.options.{name}={options[name]}. Set data.{name} instead."
        )
    return zoo.get(
        recipe.model.name, input_shape=pipeline.shape, weights=recipe.model.weights or None, **sizes, **options
    )


def compile_model(model: Any, recipe: Recipe, pipeline: Pipeline, jit_compile: bool) -> None:
    """Give a network its loss, optimizer and metric, and build what belongs to them."""
    task = TASKS[zoo.spec(recipe.model.name).task]
    model.compile(
        optimizer=make_optimizer(recipe, pipeline.steps_per_epoch),
        loss=task.loss(recipe.loss),
        metrics=[task.metric()],
        jit_compile=jit_compile,
    )
    # The variables of metrics appear with the first batch otherwise, too late for a checkpoint to restore them.
    empty = keras.ops.zeros((1, *model.output_shape[1:]))
    model._compile_metrics.build(empty, empty)


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Draw initial weights and the seeds of dropout from `seed`; Keras takes both from Python's generator."""
    before = random.getstate()
    random.seed(seed)
    try:
        yield
    finally:
        random.setstate(before)
