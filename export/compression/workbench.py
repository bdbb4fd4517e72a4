"""The recipe, data and training that a compression step uses."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from export.compression import tf_keras_copy
from export.core import keras_graph
from export.core.compression import Workbench
from training.fit.finetune import finetune, shorten
from training.learning.evaluation import evaluate_model
from zoo.common.errors import BadOption, UnsupportedExport
from zoo.common.lazy import np
from zoo.reading.files import Refusal
from zoo.reading.keras_models import open_model
from zoo.specs.tasks import task_of

if TYPE_CHECKING:
    from training.data.pipeline.pipeline import Pipeline
    from training.recipe.recipe import Recipe

CALIBRATION_EXAMPLES = 200


@dataclasses.dataclass(frozen=True)
class RunWorkbench:
    """The `Workbench` of a run: its recipe, its data, and a folder for one step.

    Args:
        recipe: the recipe of the run.
        data: the data pipeline of the run.
        folder: folder of the step, for checkpoints.
    """

    recipe: Recipe
    data: Pipeline
    folder: Path

    def trainer(self, rate: float) -> Callable[..., None]:
        """Return `train(model, epochs, callbacks)` at a fraction `rate` of the recipe's learning rate.

        Training resumes from its last checkpoint after a kill.
        """

        def train(model: Any, epochs: int, callbacks: Sequence[Any] = ()) -> None:
            recipe = shorten(self.recipe, epochs, rate)
            finetune(model, recipe, self.data, state=self.folder / "state.safetensors", callbacks=callbacks)

        return train

    def tf_keras_trainer(self, rate: float) -> Callable[..., None]:
        """Return `train(model, epochs, callbacks)` for tf_keras models; training restarts after a kill."""
        config = self.recipe.optimizer

        def train(model: Any, epochs: int, callbacks: Sequence[Any] = ()) -> None:
            tf_keras_copy.fit(
                model,
                self.data.train,
                epochs,
                rate=config.learning_rate * rate,
                smoothing=self.recipe.loss.label_smoothing,
                optimizer=config.name,
                callbacks=callbacks,
            )

        return train

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer updates in an epoch."""
        return self.data.steps_per_epoch

    @functools.cached_property
    def calibration(self) -> Any:
        """Training examples as the model takes them, float32 (n, *shape)."""
        raw, labels = self.data.raw("train", CALIBRATION_EXAMPLES)
        return np.asarray(self.data.encoder.prepare(raw, labels)[0])

    def accuracy(self, model: Any, split: str = "test") -> float | None:
        """Return the accuracy on a split, or on the validation split if there is no such split; None for regression."""
        split = split if split in self.data.dataset.splits else "validation"
        return evaluate_model(model, self.data, split).accuracy


def epochs_of(options: Any, workbench: Workbench, fraction: float) -> int:
    """Return the epochs of a step: the option, or a fraction of the recipe's epochs, at least one."""
    return options.epochs or max(1, round(fraction * workbench.recipe.epochs))


def check_training(epochs: int, rate: float) -> None:
    """Raise BadOption for an invalid training option."""
    if epochs < 0 or not rate > 0:
        raise BadOption(
            f"epochs must be at least 0 (0 for the default) and rate above 0. Received: epochs={epochs}, rate={rate}"
        )


def check_float_input(model: Any, method: str) -> None:
    """Raise UnsupportedExport unless a model has one floating-point input."""
    if len(model.inputs) != 1 or not str(model.inputs[0].dtype).startswith("float"):
        inputs = ", ".join(f"{tensor.name} ({tensor.dtype})" for tensor in model.inputs)
        raise UnsupportedExport(f"{method} needs a model of images or features. Received: inputs={inputs}")


def check_classifier(model: Any, workbench: Workbench, method: str) -> None:
    """Raise UnsupportedExport unless a model classifies one example into one of several classes."""
    task = workbench.data.dataset.task
    if len(model.inputs) != 1 or len(model.output_shape) != 2 or not task_of(task).indexed:
        raise UnsupportedExport(
            f"{method} needs a classifier with one input. "
            f"Received: task={task}, inputs={len(model.inputs)}, output={model.output_shape}"
        )


def load_compressed(path: Path) -> Any:
    """Load a compressed model from a .keras file."""
    return keras_graph.copy(open_model(path, Refusal(advice="Remove its folder: the step runs again.")))
