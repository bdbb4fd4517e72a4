"""What a compression works with: the run's data and recipe, and training on that survives being killed."""

from __future__ import annotations

import dataclasses
import functools
import importlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from export.compression import tf_keras_copy
from export.core import keras_graph
from training.data.pipeline.pipeline import Pipeline
from training.finetune import finetune, shorten
from training.learning.evaluation import judge
from training.recipe.recipe import Recipe
from zoo.common.errors import BadOption, UnsupportedExport
from zoo.common.lazy import keras, np

CALIBRATION = 200


@dataclasses.dataclass(frozen=True)
class Workbench:
    """The place where a step of a chain is done.

    Args:
        recipe: the run's.
        pipeline: the run's data.
        folder: of the step, for what training leaves on the way.
    """

    recipe: Recipe
    pipeline: Pipeline
    folder: Path

    def trainer(self, rate: float) -> Callable[..., None]:
        """Return `train(network, epochs, callbacks)` at a share `rate` of the recipe's learning rate."""

        def train(network: Any, epochs: int, callbacks: Sequence[Any] = ()) -> None:
            recipe = shorten(self.recipe, epochs, rate)
            finetune(network, recipe, self.pipeline, state=self.folder / "state.safetensors", callbacks=callbacks)

        return train

    def twin_trainer(self, rate: float) -> Callable[..., None]:
        """Return `train(model, epochs, callbacks)` for models of tf_keras, which starts anew if it was killed."""
        config = self.recipe.optimizer

        def train(model: Any, epochs: int, callbacks: Sequence[Any] = ()) -> None:
            tf_keras_copy.fit(
                model,
                self.pipeline.train,
                epochs,
                rate=config.learning_rate * rate,
                smoothing=self.recipe.loss.label_smoothing,
                optimizer=config.name,
                callbacks=callbacks,
            )

        return train

    @property
    def steps_per_epoch(self) -> int:
        """Updates in an epoch."""
        return self.pipeline.steps_per_epoch

    @functools.cached_property
    def calibration(self) -> Any:
        """Training examples as the network takes them, float32 (n, *shape)."""
        raw, labels = self.pipeline.raw("train", CALIBRATION)
        return np.asarray(self.pipeline.encoder.prepare(raw, labels)[0])

    def accuracy(self, network: Any, split: str = "test") -> float | None:
        """Return the accuracy on a split, on the validation split where there is no such; numbers have none."""
        split = split if split in self.pipeline.dataset.splits else "validation"
        return judge(network, self.pipeline, split).get("accuracy")


def epochs_of(options: Any, workbench: Workbench, share: float) -> int:
    """Return for how long a step trains: as given, or a share of the recipe's epochs, at least one."""
    return options.epochs or max(1, round(share * workbench.recipe.epochs))


def check_training(epochs: int, rate: float) -> None:
    """Raise BadOption for an option of training that cannot be."""
    if epochs < 0 or not rate > 0:
        raise BadOption(
            f"epochs must be at least 0 (0 for the usual) and rate above 0. Received: epochs={epochs}, rate={rate}"
        )


def check_values(network: Any, what: str) -> None:
    """Raise UnsupportedExport for a network that does not answer one array of real values."""
    if len(network.inputs) != 1 or not str(network.inputs[0].dtype).startswith("float"):
        given = ", ".join(f"{tensor.name} ({tensor.dtype})" for tensor in network.inputs)
        raise UnsupportedExport(f"{what} needs a network of images or features. Received: inputs={given}")


def check_classes(network: Any, workbench: Workbench, what: str) -> None:
    """Raise UnsupportedExport for a network that does not answer one example with one of several classes."""
    task = workbench.pipeline.dataset.task
    if len(network.inputs) != 1 or len(network.output_shape) != 2 or task != "classify":
        raise UnsupportedExport(
            f"{what} needs a network that chooses among classes. "
            f"Received: task={task}, inputs={len(network.inputs)}, output={network.output_shape}"
        )


def load_compressed(path: Path) -> Any:
    """Return a network that was saved in Keras' own format."""
    for registering in ("zoo.layers.core", "zoo.layers.sequence"):
        importlib.import_module(registering)
    return keras_graph.copy(keras.saving.load_model(path, compile=False, safe_mode=True))
