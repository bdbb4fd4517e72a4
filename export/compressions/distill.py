"""distill: train a smaller registered model on the outputs of the trained one."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import zoo
from export.compression.distillation import Distillation
from export.compression.distillation import distill as train_student
from export.compression.workbench import check_classifier, check_training, epochs_of
from export.core.compression import FEWER_CHANNELS, NEW_MODEL, Compression, Workbench, register
from training.learning.build import build_model, seeded
from training.recipe.config import ModelConfig
from zoo.build import dtype_policy
from zoo.common.errors import BadOption

if TYPE_CHECKING:
    import keras as _keras


@dataclasses.dataclass(frozen=True)
class Options(Distillation):
    """The student and its training; see `Distillation` for the loss.

    Args:
        student: name of a registered model.
        epochs: number of epochs, 0 for the recipe's.
        rate: fraction of the recipe's learning rate.
    """

    student: str = ""
    epochs: int = 0
    rate: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_training(self.epochs, self.rate)
        if not self.student:
            raise BadOption("distill needs the name of a model. Received: none. Use distill:NAME; see: zoo list")
        zoo.spec(self.student)


def plan(model: _keras.Model, options: Options, workbench: Workbench) -> _keras.Model:
    """Return the untrained student; raises BadOption if its task differs."""
    check_classifier(model, workbench, "Distillation")
    student, teacher = zoo.spec(options.student), zoo.spec(workbench.recipe.model.name)
    if (student.task, bool(student.vocabulary)) != (teacher.task, bool(teacher.vocabulary)):
        raise BadOption(
            f"Expected a student with the teacher's task, {teacher.task}. "
            f"Received: student={options.student}, {student.task}"
        )
    recipe = dataclasses.replace(workbench.recipe, model=ModelConfig(options.student))
    with dtype_policy("float32"), seeded(recipe.seed):
        return build_model(recipe, workbench.data)


def apply(model: _keras.Model, options: Options, workbench: Workbench) -> _keras.Model:
    """Return the trained student."""
    student, train = plan(model, options, workbench), workbench.trainer(options.rate)
    return train_student(model, student, options, train, epochs=epochs_of(options, workbench, 1.0))


def guarantees(_model: _keras.Model, _options: Options) -> dict[str, Any]:
    """Return no guarantees."""
    return {}


register(
    Compression(
        name="distill",
        options=Options,
        positional=("student",),
        plan=plan,
        apply=apply,
        guarantees=guarantees,
        stage=NEW_MODEL,
        next_stage=FEWER_CHANNELS,
        summary="distill:resnet_tiny[,temperature=4][,alpha=0.7]: train a smaller model on this model's outputs",
    )
)
