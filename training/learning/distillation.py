"""Distillation: a network learns from the answers, and the feature maps, of another (arXiv:1503.02531)."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import zoo
from training.data.pipeline.pipeline import Pipeline
from training.learning.evaluation import load_model
from training.learning.regularization import level_names
from training.recipe.config import TeacherConfig
from training.recipe.recipe import Recipe
from training.runs.run import Run
from zoo.common.errors import BadOption
from zoo.common.lazy import keras

# The output that learns from a teacher where a network has one (DeiT, arXiv:2012.12877).
TAUGHT = "distillation_logits"


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
    """Return the cross-entropy of a student's logits (n, classes) with its teacher's first choices."""
    choices = keras.ops.argmax(teacher, axis=-1)
    losses = keras.ops.sparse_categorical_crossentropy(choices, keras.ops.cast(student, "float32"), from_logits=True)
    return keras.ops.mean(losses)


def difference(teacher: Any, student: Any) -> Any:
    """Return the mean square of the difference of two feature maps (n, h, w, c) (FitNets, arXiv:1412.6550)."""
    teacher, student = (keras.ops.cast(x, "float32") for x in (teacher, student))
    return keras.ops.mean(keras.ops.square(teacher - student))


@dataclasses.dataclass(frozen=True)
class Teacher:
    """A network that teaches.

    Args:
        config: how.
        network: from inputs to a dictionary of "logits" and, of each chosen stage, its map by name.
    """

    config: TeacherConfig
    network: Any

    def answer(self, x: Any) -> dict[str, Any]:
        """Return what the network says of a batch; nothing is learnt by it."""
        return {name: keras.ops.stop_gradient(value) for name, value in self.network(x, training=False).items()}

    def loss(self, answers: dict[str, Any], student: Any) -> Any:
        """Return what the student's logits are to be minimized by."""
        if self.config.hard:
            return hard_loss(answers["logits"], student)
        return divergence(answers["logits"], student, self.config.temperature)

    def maps(self) -> dict[str, Any]:
        """Return the shape (h, w, c) of each map by its name."""
        return {name: tensor.shape[1:] for name, tensor in self.network.output.items() if name != "logits"}


def map_name(stage: int) -> str:
    """Return the name of the map of a stage, from 1."""
    return f"map{stage}"


def open_teacher(config: TeacherConfig, pipeline: Pipeline) -> Teacher:
    """Return the teacher of a recipe, checked against the data.

    Raises:
        BadOption: it was taught by data of another kind, or there is none.
        RunError: the run cannot be read.
    """
    if bool(config.run) == bool(config.model):
        raise BadOption(
            "A teacher is either a run or a registered model. "
            f"Received: teacher.run={config.run!r}, teacher.model={config.model!r}"
        )
    if pipeline.dataset.task != "classify":
        raise BadOption(f"A teacher teaches classes. Received: {pipeline.dataset.name} ({pipeline.dataset.task})")
    if bool(config.beta) != bool(config.features):
        raise BadOption(
            "teacher.beta weighs the maps of teacher.features; each needs the other. "
            f"Received: teacher.beta={config.beta}, teacher.features={list(config.features)}"
        )
    network, recipe = _from_run(config, pipeline) if config.run else _from_registry(config, pipeline)
    network.trainable = False
    outputs = {"logits": network.output}
    if config.features:
        names = level_names(recipe, pipeline.shape)
        outputs |= {map_name(i): at_stage(network, names, i) for i in config.features}
    return Teacher(config, keras.Model(network.input, outputs, name="teacher"))


def at_stage(network: Any, names: list[str], stage: int) -> Any:
    """Return the feature map of a stage, from 1, of a network whose stages end with the layers `names`."""
    known = {layer.name for layer in network.layers}
    if not 1 <= stage <= len(names) or names[stage - 1] not in known:
        raise BadOption(
            f"teacher.features must be stages from 1 to {len(names)}, which {network.name} has. Received: {stage}"
        )
    return network.get_layer(names[stage - 1]).output


def _from_run(config: TeacherConfig, pipeline: Pipeline) -> tuple[Any, Recipe]:
    """Return the network of a run that learnt from the same kind of data, and the run's recipe."""
    run = Run.open(Path(config.run).expanduser())
    result, text = run.result(), run.text()
    same = {
        "labels": (result["labels"], list(pipeline.dataset.labels)),
        "input_shape": (result["input_shape"], list(pipeline.shape)),
        "preprocessing": (result["preprocessing"], pipeline.preprocessing.to_json()),
        "vocabulary": (text and text.to_json(), pipeline.text and pipeline.text.to_json()),
    }
    for name, (theirs, ours) in same.items():
        if theirs != ours:
            raise BadOption(
                f"Teacher and student must see the same data, the {name} too. Received: teacher.run={config.run!r} "
                f"with {_short(theirs)}, {pipeline.dataset.name} with {_short(ours)}"
            )
    return load_model(run), run.recipe


def _from_registry(config: TeacherConfig, pipeline: Pipeline) -> tuple[Any, Recipe]:
    """Return a registered network with its weights, and a recipe that names it."""
    spec = zoo.spec(config.model)
    if not config.weights:
        raise BadOption(f"A teacher needs weights. Received: teacher.model={config.model!r}, teacher.weights=''")
    published = [w for i, w in enumerate(spec.weights) if w.source == config.weights or not i]
    named = config.weights == "imagenet" or any(w.source == config.weights for w in spec.weights)
    preprocessing = (published[-1].preprocessing if named and published else None) or spec.preprocessing
    if not spec.vocabulary and preprocessing.affine() != pipeline.preprocessing.affine():
        raise BadOption(
            f"Teacher and student must see the same values. Received: teacher.model={config.model!r}, which wants "
            f"mean={list(preprocessing.mean)} and std={list(preprocessing.std)}, {pipeline.dataset.name} with "
            f"mean={list(pipeline.preprocessing.mean)} and std={list(pipeline.preprocessing.std)}. Set data.preprocessing."
        )
    network = zoo.get(config.model, input_shape=pipeline.shape, weights=config.weights)
    if network.output_shape[1:] != (len(pipeline.dataset.labels),):
        raise BadOption(
            f"Teacher and student must tell the same classes apart. Received: teacher.model={config.model!r} with "
            f"{network.output_shape[-1]}, {pipeline.dataset.name} with {len(pipeline.dataset.labels)}"
        )
    return network, Recipe("teacher", model=dataclasses.replace(Recipe("teacher").model, name=config.model))


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 120 else text[:119] + "…"
