"""Evaluate a model on images of another size than in training (arXiv:1906.06423)."""

from __future__ import annotations

from typing import Any

from training.data.pipeline.pipeline import Pipeline
from training.learning.build import build_model, compile_model
from training.learning.regularization import take_weights
from training.learning.training_model import inference_model
from training.recipe.recipe import Recipe
from zoo.common.errors import BadOption


def make_evaluation_model(model: Any, recipe: Recipe, pipeline: Pipeline) -> Any:
    """Return a compiled model for `pipeline.shape`; None if training uses the same size.

    Args:
        model: the model in training.
        recipe: the recipe.
        pipeline: its data.

    Raises:
        BadOption: the shapes of the model's weights depend on the size of its images.
    """
    if pipeline.for_training is pipeline:
        return None
    if pipeline.dataset.outputs:
        raise BadOption(
            f"data.train_size applies to one target. Received: data.train_size={list(recipe.data.train_size)} with "
            f"{len(pipeline.dataset.outputs)} targets. Leave it empty."
        )
    resized = build_model(recipe, pipeline)
    shapes = {weight.path: weight.shape for weight in inference_model(model).weights}
    differing = [weight.path for weight in resized.weights if shapes.get(weight.path) != weight.shape]
    if differing:
        raise BadOption(
            "data.train_size needs a model whose weights do not depend on the size of its images. "
            f"Received: data.train_size={list(recipe.data.train_size)}, model.name={recipe.model.name!r}, where "
            f"{differing[0]} does. Leave it empty."
        )
    compile_model(resized, recipe, pipeline, jit_compile=False)
    return resized


def evaluation_model(resized: Any, model: Any) -> Any:
    """Return the model to evaluate and save, with the present weights of a model in training.

    Args:
        resized: the result of `make_evaluation_model`.
        model: the model in training.
    """
    trained = inference_model(model)
    if resized is None:
        return trained
    take_weights(resized, trained)
    return resized
