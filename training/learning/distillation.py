"""Distillation: train a model on the outputs, and the feature maps, of another (arXiv:1503.02531)."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import zoo
from training.data.pipeline.pipeline import Pipeline
from training.learning.evaluation import load_model
from training.learning.regularization import stage_outputs
from training.recipe.config import TeacherConfig
from training.recipe.recipe import Recipe
from training.runs.run import Run
from zoo.common.errors import BadOption
from zoo.common.lazy import keras
from zoo.specs.tasks import task_of

# The output that is trained on a teacher, in models that have it (DeiT, arXiv:2012.12877).
DISTILLED = "distillation_logits"


def divergence(teacher: Any, student: Any, temperature: float) -> Any:
    """Return T² KL(softmax(teacher / T) || softmax(student / T)), the mean over a batch.

    Args:
        teacher: logits (n, classes).
        student: logits (n, classes).
        temperature: T.
    """
    teacher, student = (keras.ops.log_softmax(keras.ops.cast(x, "float32") / temperature) for x in (teacher, student))
    return temperature**2 * keras.ops.mean(keras.ops.sum(keras.ops.exp(teacher) * (teacher - student), axis=-1))


def hard_loss(teacher: Any, student: Any) -> Any:
    """Return the cross-entropy of a student's logits (n, classes) with its teacher's top-1 classes."""
    classes = keras.ops.argmax(teacher, axis=-1)
    losses = keras.ops.sparse_categorical_crossentropy(classes, keras.ops.cast(student, "float32"), from_logits=True)
    return keras.ops.mean(losses)


def feature_loss(teacher: Any, student: Any) -> Any:
    """Return the mean squared difference of two feature maps (n, h, w, c) (FitNets, arXiv:1412.6550)."""
    teacher, student = (keras.ops.cast(x, "float32") for x in (teacher, student))
    return keras.ops.mean(keras.ops.square(teacher - student))


@dataclasses.dataclass(frozen=True)
class Teacher:
    """A model whose outputs are the targets of a student.

    Args:
        config: how to distill.
        model: from inputs to a dictionary of "logits" and the map of each chosen stage by name.
    """

    config: TeacherConfig
    model: Any

    def predict(self, x: Any) -> dict[str, Any]:
        """Return the outputs for a batch, without gradients."""
        return {name: keras.ops.stop_gradient(value) for name, value in self.model(x, training=False).items()}

    def loss(self, targets: dict[str, Any], student: Any) -> Any:
        """Return the loss of the student's logits."""
        if self.config.hard:
            return hard_loss(targets["logits"], student)
        return divergence(targets["logits"], student, self.config.temperature)

    def maps(self) -> dict[str, Any]:
        """Return the shape (h, w, c) of each map by its name."""
        return {name: tensor.shape[1:] for name, tensor in self.model.output.items() if name != "logits"}


def map_name(stage: int) -> str:
    """Return the name of the map of a stage, from 1."""
    return f"map{stage}"


def open_teacher(config: TeacherConfig, pipeline: Pipeline) -> Teacher:
    """Return the teacher of a recipe, checked against the data.

    Raises:
        BadOption: the teacher was trained on data of another kind.
        RunError: the run cannot be read.
    """
    _check_task(pipeline)
    model, recipe = _from_run(config, pipeline) if config.run else _from_registry(config, pipeline)
    model.trainable = False
    outputs = {"logits": model.output}
    if config.features:
        names = stage_outputs(recipe, pipeline.shape)
        outputs |= {map_name(i): at_stage(model, names, i) for i in config.features}
    return Teacher(config, keras.Model(model.input, outputs, name="teacher"))


def _check_task(pipeline: Pipeline) -> None:
    if not task_of(pipeline.dataset.task).indexed:
        raise BadOption(
            f"Distillation needs a classification dataset. Received: data.name={pipeline.dataset.name} "
            f"({pipeline.dataset.task}). Leave out the teacher."
        )


def at_stage(model: Any, names: list[str], stage: int) -> Any:
    """Return the feature map of a stage, from 1, of a model; `names` are the last layers of its stages."""
    known = {layer.name for layer in model.layers}
    if not 1 <= stage <= len(names) or names[stage - 1] not in known:
        raise BadOption(
            f"teacher.features must be stages of {model.name}, from 1 to {len(names)}. Received: {stage}. "
            "Choose one of these."
        )
    return model.get_layer(names[stage - 1]).output


def _from_run(config: TeacherConfig, pipeline: Pipeline) -> tuple[Any, Recipe]:
    """Return the model of a run on the same kind of data, and the run's recipe."""
    run = Run.open(Path(config.run).expanduser())
    result, text = run.result(), run.text()
    pairs = {
        "labels": (result["labels"], list(pipeline.dataset.labels)),
        "input_shape": (result["input_shape"], list(pipeline.shape)),
        "preprocessing": (result["preprocessing"], pipeline.preprocessing.to_json()),
        "vocabulary": (text and text.to_json(), pipeline.text and pipeline.text.to_json()),
    }
    for name, (theirs, ours) in pairs.items():
        if theirs != ours:
            raise BadOption(
                f"Teacher and student must have the same {name}. Received: teacher.run={config.run!r} "
                f"with {_short(theirs)}, {pipeline.dataset.name} with {_short(ours)}. Use a run on the same data."
            )
    return load_model(run), run.recipe


def _from_registry(config: TeacherConfig, pipeline: Pipeline) -> tuple[Any, Recipe]:
    """Return a registered model with its weights, and a recipe that names it."""
    spec = zoo.spec(config.model)
    published = [w for i, w in enumerate(spec.weights) if w.source == config.weights or not i]
    is_published = config.weights == "imagenet" or any(w.source == config.weights for w in spec.weights)
    preprocessing = (published[-1].preprocessing if is_published and published else None) or spec.preprocessing
    if not spec.vocabulary and preprocessing.affine() != pipeline.preprocessing.affine():
        raise BadOption(
            f"Teacher and student must have the same preprocessing. Received: teacher.model={config.model!r} with "
            f"mean={list(preprocessing.mean)} and std={list(preprocessing.std)}, {pipeline.dataset.name} with "
            f"mean={list(pipeline.preprocessing.mean)} and std={list(pipeline.preprocessing.std)}. "
            "Set data.preprocessing."
        )
    model = zoo.get(config.model, input_shape=pipeline.shape, weights=config.weights)
    if model.output_shape[1:] != (len(pipeline.dataset.labels),):
        raise BadOption(
            f"Teacher and student must have the same classes. Received: teacher.model={config.model!r} with "
            f"{model.output_shape[-1]}, {pipeline.dataset.name} with {len(pipeline.dataset.labels)}. "
            "Use another teacher."
        )
    return model, Recipe("teacher", model=dataclasses.replace(Recipe("teacher").model, name=config.model))


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 120 else text[:119] + "…"
