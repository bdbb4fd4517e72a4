"""Prepare a training: the device, the data and the compiled model."""

from __future__ import annotations

from typing import Any

import zoo
from training.data.pipeline.opening import open_pipeline
from training.data.pipeline.pipeline import Pipeline
from training.distributed.device import Device
from training.distributed.devices import open_device
from training.learning.build import build_training_model, compile_model, seeded
from training.learning.eval_resolution import make_evaluation_model
from training.learning.evaluation import open_data
from training.optim.lbfgs import add_search_state, check_lbfgs, in_float32, is_lbfgs
from training.recipe.recipe import Recipe
from training.recipe.stages import check_pretrained
from training.runs.run import Run
from zoo.build import dtype_policy
from zoo.common.footprint import require_training


def prepare(recipe: Recipe, run: Run | None = None, changed_data: str = "") -> tuple[Device, Pipeline, Any, Any]:
    """Return the device, the data, the compiled TrainingModel with initial weights, and the evaluation model or None.

    Args:
        recipe: the recipe; its seed determines the initial weights.
        run: the run to resume; None for a new one.
        changed_data: see `training.learning.evaluation.check_data`.
    """
    check_pretrained(recipe)
    lbfgs = is_lbfgs(recipe)
    device = open_device(in_float32(recipe) if lbfgs else recipe)
    if run:
        pipeline = open_data(run, check=True, changed_data=changed_data, exact=True)
    else:
        pipeline = open_pipeline(recipe, zoo.spec(recipe.model.name))
    pipeline.check(device.shard)
    device.check(pipeline)
    with device.running(), device.strategy.scope(), dtype_policy(device.precision), seeded(recipe.seed):
        model = build_training_model(recipe, pipeline.for_training, start=run is None)
        require_training(model, recipe.data.batch_size // device.workers)
        if lbfgs:
            check_lbfgs(recipe, pipeline, model, precision=device.precision, replicas=device.replicas)
            add_search_state(model)
        compile_model(model, recipe, pipeline, device.jit_compile, device.shard, device.adapt_optimizer)
        model.optimizer.build(model.trainable_variables)
        device.prepare(model)
        resized = make_evaluation_model(model, recipe, pipeline)
    return device, pipeline, model, resized
