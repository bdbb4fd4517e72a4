"""distil: a smaller registered network learns from the answers of the trained one."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import zoo
from export.compression.distillation import Distillation, distil
from export.compression.workbench import Workbench, check_classes, check_training, epochs_of
from export.core.compression import FEWER, OTHER, Compression, register
from training.learning.build import build_model, seeded
from training.recipe.config import ModelConfig
from zoo.build import dtype_policy
from zoo.common.errors import BadOption

if TYPE_CHECKING:
    import keras as _keras


@dataclasses.dataclass(frozen=True)
class Options(Distillation):
    """Who learns, how it listens (see `Distillation`), and how long.

    Args:
        student: a registered name.
        epochs: how long, 0 for the recipe's.
        rate: share of the recipe's learning rate.
    """

    student: str = ""
    epochs: int = 0
    rate: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_training(self.epochs, self.rate)
        if not self.student:
            raise BadOption("distil needs the name of a model. Received: none. Write distil:NAME; see: zoo list")
        zoo.spec(self.student)


def plan(network: _keras.Model, options: Options, workbench: Workbench) -> _keras.Model:
    """Return the student, untrained; raises BadOption if it does another task."""
    check_classes(network, workbench, "Distillation")
    given, wanted = zoo.spec(options.student), zoo.spec(workbench.recipe.model.name)
    if (given.task, bool(given.vocabulary)) != (wanted.task, bool(wanted.vocabulary)):
        raise BadOption(f"The student must do what its teacher does. Received: student={options.student}, {given.task}")
    recipe = dataclasses.replace(workbench.recipe, model=ModelConfig(options.student))
    with dtype_policy("float32"), seeded(recipe.seed):
        return build_model(recipe, workbench.pipeline)


def apply(network: _keras.Model, options: Options, workbench: Workbench) -> _keras.Model:
    """Return the student, taught."""
    student, train = plan(network, options, workbench), workbench.trainer(options.rate)
    return distil(network, student, options, train, epochs=epochs_of(options, workbench, 1.0))


def guarantees(_network: _keras.Model, _options: Options) -> dict[str, Any]:
    """Claim nothing of the weights."""
    return {}


register(
    Compression(
        name="distil",
        options=Options,
        first=("student",),
        plan=plan,
        apply=apply,
        guarantees=guarantees,
        stage=OTHER,
        then=FEWER,
        summary="distil:resnet_tiny[,temperature=4][,alpha=0.7]: a smaller network learns from this one's answers",
    )
)
