"""A network in the size of the images that it is judged on, where those of training have another (arXiv:1906.06423)."""

from __future__ import annotations

from typing import Any

from training.data.pipeline.pipeline import Pipeline
from training.learning.build import build_model, compile_model
from training.learning.regularization import take_weights
from training.learning.training_model import product
from training.recipe.recipe import Recipe
from zoo.common.errors import BadOption


def make_view(model: Any, recipe: Recipe, pipeline: Pipeline) -> Any:
    """Return a compiled network for `pipeline.shape` that `look` gives the weights of a model; None if none is needed.

    Raises:
        BadOption: the network has weights that depend on the size of its images.
    """
    if pipeline.learning is pipeline:
        return None
    network = build_model(recipe, pipeline)
    theirs = {weight.path: weight.shape for weight in product(model).weights}
    differing = [weight.path for weight in network.weights if theirs.get(weight.path) != weight.shape]
    if differing:
        raise BadOption(
            "data.train_size needs a network whose weights do not depend on the size of its images. "
            f"Received: data.train_size={list(recipe.data.train_size)}, model.name={recipe.model.name!r}, whose "
            f"{differing[0]} does. Leave it empty."
        )
    compile_model(network, recipe, pipeline, jit_compile=False)
    return network


def look(view: Any, model: Any) -> Any:
    """Return what is judged and kept of a model: its product, in the view's size if there is a view."""
    kept = product(model)
    if view is None:
        return kept
    take_weights(view, kept)
    return view
