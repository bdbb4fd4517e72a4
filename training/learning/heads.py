"""Compose the model in training: auxiliary outputs and their losses, distillation and regularizers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from training.data.outputs import Output
from training.data.pipeline.pipeline import Pipeline
from training.learning.distillation import DISTILLED, Teacher, at_stage, feature_loss, map_name, open_teacher
from training.learning.regularization import (
    add_norms,
    normalize_kernels,
    stage_outputs,
    take_weights,
    with_spatial_dropout,
)
from training.learning.training_model import LOGITS, Term, add_variables, label_loss, training_model_class
from training.recipe.recipe import Recipe
from zoo.common.errors import BadOption
from zoo.common.lazy import keras, tf


def to_inference_model(model: Any, recipe: Recipe) -> Any:
    """Return the part of a model that is evaluated, saved and exported: without auxiliary outputs.

    A model with a distilled second classifier outputs the average of both classifiers, as DeiT does.
    """
    outputs = _outputs(model)
    if len(outputs) == 1 or LOGITS not in outputs:
        return model
    logits = outputs[LOGITS]
    if recipe.teacher and DISTILLED in outputs:
        # In the order of the names, as in the zoo.
        logits = keras.layers.Average(name="average", dtype="float32")([outputs[DISTILLED], logits])
    return keras.Model(model.input, logits, name=model.name)


def make_training_model(model: Any, recipe: Recipe, pipeline: Pipeline) -> Any:
    """Return a model in training, with the outputs, terms and constraints of its recipe.

    Args:
        model: a functional model with all its outputs.
        recipe: the recipe.
        pipeline: its data.

    Returns:
        A TrainingModel; `training.learning.training_model.inference_model` returns the model to save.

    Raises:
        BadOption: an option does not apply to this model.
    """
    several = pipeline.dataset.outputs
    if not several:
        _check_heads(model, recipe)
    needs_stages = recipe.regularize.spatial_dropout or (recipe.teacher and recipe.teacher.features)
    stages = stage_outputs(recipe, pipeline.shape) if needs_stages else []
    graph = with_spatial_dropout(model, recipe, stages)
    add_norms(graph, recipe.regularize)
    vectors = normalize_kernels(graph) if recipe.regularize.spectral_norm else []
    outputs = {LOGITS: _side_by_side(graph, several)} if several else _outputs(graph)
    terms = [] if several else _head_terms(recipe, pipeline)
    if recipe.teacher:
        teacher = open_teacher(recipe.teacher, pipeline)
        outputs |= _compared_maps(graph, teacher, stages)
        terms.append(_distillation_term(teacher, label_loss(recipe, pipeline), outputs))
    plain = graph is model and len(outputs) == 1 and not (terms or vectors)
    single = outputs[LOGITS] if several else graph.output
    trained = training_model_class()(graph.input, single if plain else outputs, name=graph.name)
    trained.hooks.terms = terms
    trained.hooks.inference_model = lambda: _inference_model(model, graph, recipe)
    if not plain:
        add_variables(trained, vectors)
    return trained


def _side_by_side(graph: Any, outputs: Sequence[Output]) -> Any:
    """Return the outputs of a model for several targets as one, float32 (n, units)."""
    parts = [graph.output[output.name] for output in outputs]
    return keras.layers.Concatenate(name="targets", dtype="float32")(parts)


def _outputs(model: Any) -> dict[str, Any]:
    """Return the outputs of a model by name."""
    return dict(model.output) if isinstance(model.output, dict) else {LOGITS: model.output}


def _inference_model(model: Any, graph: Any, recipe: Recipe) -> Any:
    if graph is not model:
        take_weights(model, graph)
    return to_inference_model(model, recipe)


def _check_heads(model: Any, recipe: Recipe) -> None:
    """Raise BadOption unless each auxiliary output has a weight or a teacher."""
    auxiliary, weights = set(_outputs(model)) - {LOGITS}, recipe.loss.heads
    distilled = {DISTILLED} if recipe.teacher else set()
    unknown = sorted(set(weights) - (auxiliary - distilled))
    if unknown:
        have = ", ".join(sorted(auxiliary - distilled)) or "none"
        raise BadOption(
            f"loss.heads must give weights to auxiliary outputs of {model.name}, which has {have}. "
            f"Received: loss.heads={dict(weights)}. Remove the others."
        )
    missing = sorted(auxiliary - set(weights) - distilled)
    if missing:
        raise BadOption(
            f"Each auxiliary output needs a weight. Received: {model.name} with {', '.join(missing)}, "
            f"loss.heads={dict(weights)}. Set loss.heads.{missing[0]}=0.3, for example."
        )


def _head_terms(recipe: Recipe, pipeline: Pipeline) -> list[Term]:
    """Return a term for each auxiliary output: its weight times its loss of the labels."""

    def term(name: str, weight: float) -> Term:
        loss = label_loss(recipe, pipeline)
        return lambda _, y, outputs: weight * loss(y, outputs[name])

    return [term(name, weight) for name, weight in recipe.loss.heads.items() if weight]


def _distillation_term(teacher: Teacher, loss: Callable[[Any, Any], Any], outputs: dict[str, Any]) -> Term:
    """Return the term that moves weight from the labels to the teacher, and adds the feature loss."""
    config, student = teacher.config, DISTILLED if DISTILLED in outputs else LOGITS

    def term(x: Any, y: Any, outputs: dict[str, Any]) -> Any:
        targets = teacher.predict(x)
        distilled = teacher.loss(targets, outputs[student])
        features = sum(feature_loss(targets[name], outputs[name]) for name in teacher.maps())
        mean = _per_replica(config.alpha * distilled + config.beta * features)
        # The compiled loss is a mean over all replicas already.
        return mean - config.alpha * loss(y, outputs[LOGITS])

    return term


def _per_replica(mean: Any) -> Any:
    """Return this replica's part of a mean over a batch: gradients are summed over replicas."""
    return mean / tf.distribute.get_strategy().num_replicas_in_sync


def _compared_maps(graph: Any, teacher: Teacher, stages: Sequence[str]) -> dict[str, Any]:
    """Return the student's maps to compare with the teacher's, by 1x1 convolutions of the teacher's width."""
    maps = {}
    for stage in teacher.config.features:
        name, student = map_name(stage), at_stage(graph, list(stages), stage)
        shape = teacher.maps()[name]
        if student.shape[1:3] != shape[:2]:
            raise BadOption(
                f"teacher.features must be stages with maps of one size. Received: teacher.features={stage}, where the "
                f"teacher has {tuple(shape)} and the student {tuple(student.shape[1:])}. Choose another stage."
            )
        if student.shape[-1] != shape[-1]:
            student = keras.layers.Conv2D(shape[-1], 1, name=f"{name}_regressor", dtype="float32")(student)
        maps[name] = keras.layers.Identity(name=name, dtype="float32")(student)
    return maps
