"""The interface of a compression: one step of a compression pipeline, its options and its guarantees."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from export.core.options import parse_options, split_name
from zoo.specs.registry import Registry

if TYPE_CHECKING:
    import keras


class Workbench(Protocol):
    """The recipe, data and training that a compression uses; `export.compression.workbench.RunWorkbench` implements it.

    Attributes:
        recipe: the recipe of the run.
        data: the data pipeline of the run.
        folder: folder of the step, for checkpoints.
    """

    recipe: Any
    data: Any
    folder: Path

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer updates in an epoch."""

    @property
    def calibration(self) -> Any:
        """Training examples as the model takes them, float32 (n, *shape)."""

    def trainer(self, rate: float) -> Callable[..., None]:
        """Return `train(model, epochs, callbacks)` at a fraction `rate` of the recipe's learning rate."""

    def tf_keras_trainer(self, rate: float) -> Callable[..., None]:
        """Return `train(model, epochs, callbacks)` for tf_keras models."""

    def accuracy(self, model: Any, split: str = "test") -> float | None:
        """Return the accuracy on a split."""


# Stages of a pipeline. A step follows a step of the same or an earlier stage.
NEW_MODEL, FEWER_CHANNELS, SPARSE, CLUSTERED, QUANTIZED, FINAL = range(6)
ANY_STAGE = FINAL


def _no_writers(_options: Any, _workbench: Workbench) -> Mapping[str, Callable[..., None]]:
    return {}


def _no_facts(_fmt: str, _path: Path, _facts: dict[str, Any]) -> dict[str, Any]:
    return {}


@dataclasses.dataclass(frozen=True)
class Compression:
    """A compression method.

    Args:
        name: name in a pipeline's text.
        options: a frozen dataclass with the options.
        positional: options for values without a name; a value goes to the first one of a fitting type.
        plan: `plan(model, options, workbench)` returns the untrained model that later steps get. It does not change the
            model, and raises BadOption or UnsupportedExport if the step cannot be applied.
        apply: `apply(model, options, workbench)` returns the compressed, trained model; it may change its argument.
        guarantees: `guarantees(model, options)` returns what holds for the compressed model; see
            `export.compression.guarantees`.
        stage: the stage of the step; it cannot follow a step with a later `next_stage`.
        next_stage: the earliest stage that may follow, because an earlier one would undo this step.
        summary: one line for the list of compressions.
        writers: `writers(options, workbench)` returns the formats that the step writes itself, as `write` functions.
        formats: the formats that the step supports; empty for all.
        packages: required modules, for `zoo doctor`.
        inspect: `inspect(fmt, path, facts)` checks the guarantees of a format that the step writes itself, and returns
            facts; raises ParityError.
    """

    name: str
    options: type
    positional: tuple[str, ...]
    plan: Callable[[keras.Model, Any, Workbench], keras.Model]
    apply: Callable[[keras.Model, Any, Workbench], keras.Model]
    guarantees: Callable[[keras.Model, Any], dict[str, Any]]
    stage: int
    next_stage: int
    summary: str
    writers: Callable[[Any, Workbench], Mapping[str, Callable[..., None]]] = _no_writers
    formats: tuple[str, ...] = ()
    packages: tuple[str, ...] = ("tensorflow",)
    inspect: Callable[[str, Path, dict[str, Any]], dict[str, Any]] = _no_facts


compressions: Registry[Compression] = Registry("compression", "export.compressions", "zoo.compressions")


def register(compression: Compression) -> None:
    """Register a compression; raises DuplicateName if the name is taken."""
    compressions.add(compression.name, compression, compression.apply.__module__)


@dataclasses.dataclass(frozen=True)
class Step:
    """A step of a compression pipeline.

    Args:
        compression: the compression.
        options: an instance of its options dataclass.
        text: the step as written, without white space.
    """

    compression: Compression
    options: Any
    text: str


def parse_step(text: str) -> Step:
    """Parse a step, `name:value,option=value`; see `export.core.options.parse_options`.

    Raises:
        UnknownName: there is no such compression.
        BadOption: an unknown option, or an invalid value.
    """
    name, rest = split_name(text)
    compression = compressions[name]
    options = parse_options(name, rest, compression.options, compression.positional)
    return Step(compression, options, "".join(text.split()).rstrip(":"))
