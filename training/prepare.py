"""What a training begins with: the device, the data, and the network that is ready to learn."""

from __future__ import annotations

from typing import Any

import zoo
from training.data.pipeline.opening import open_pipeline
from training.data.pipeline.pipeline import Pipeline
from training.distributed.device import Device
from training.distributed.devices import open_device
from training.learning.build import build_training_model, compile_model, seeded
from training.learning.eval_resolution import make_view
from training.learning.evaluation import open_data
from training.optim.lbfgs import check_lbfgs, in_float32, is_asked, remember
from training.recipe.recipe import Recipe
from training.runs.run import Run
from zoo.build import dtype_policy


def prepare(recipe: Recipe, run: Run | None = None) -> tuple[Device, Pipeline, Any, Any]:
    """Return the device, the data, the compiled model, its initial weights drawn from the seed, and its view."""
    asked = is_asked(recipe)
    device = open_device(in_float32(recipe) if asked else recipe)
    pipeline = open_data(run) if run else open_pipeline(recipe, zoo.spec(recipe.model.name))
    pipeline.check(device.share)
    device.check(pipeline)
    with device.running(), device.strategy.scope(), dtype_policy(device.precision), seeded(recipe.seed):
        model = build_training_model(recipe, pipeline.learning, start=run is None)
        if asked:
            check_lbfgs(recipe, pipeline, device, model)
            remember(model)
        compile_model(model, recipe, pipeline, device.jit_compile, device.share)
        model.optimizer.build(model.trainable_variables)
        device.prepare(model)
        view = make_view(model, recipe, pipeline)
    return device, pipeline, model, view
