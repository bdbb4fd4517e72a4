"""What a compression is: a step that makes a trained network smaller, its options, and what it claims."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from export.core.options import read_options, split_name
from zoo.specs.registry import Registry

if TYPE_CHECKING:
    import keras


class Workbench(Protocol):
    """What a compression works with; `export.compression.workbench.Workbench` is the one there is."""

    recipe: Any
    pipeline: Any
    folder: Path

    @property
    def steps_per_epoch(self) -> int:
        """Updates in an epoch."""

    @property
    def calibration(self) -> Any:
        """Training examples as the model takes them, float32 (n, *shape)."""

    def trainer(self, rate: float) -> Callable[..., None]:
        """Return `train(model, epochs, callbacks)` at a fraction `rate` of the recipe's learning rate."""

    def accuracy(self, model: Any, split: str = "test") -> float | None:
        """Return the accuracy on a split."""


# Stages of a chain: another network, fewer channels, zeros, few values, int8.
OTHER, FEWER, SPARSE, SHARED, INTEGER, CLOSED = range(6)
ANYWHERE = CLOSED


@dataclasses.dataclass(frozen=True)
class Compression:
    """One way to make a network smaller.

    Args:
        name: what users write in a chain.
        options: a frozen dataclass, whose fields are the options.
        first: options that a value without a name may stand for; the first whose type fits takes it.
        plan: `plan(network, options, workbench)` returns what later steps will be given, untrained; raises BadOption or
            UnsupportedExport for what cannot be had. It leaves the network as it is.
        apply: `apply(network, options, workbench)` returns the smaller network, trained; it may change the one given.
        claims: `guarantees(network, options)` says what holds of a network that was made so; see `export.compression.guarantees`.
        stage: where it may stand in a chain: not after a step whose `then` is higher.
        then: the least stage that may follow; what a lower one does would undo it.
        summary: one line for people.
        writers: `writers(options, workbench)` returns the formats that it writes itself, each as the format's own `write`.
        only: the formats that it has a meaning for; none for all.
        packages: the modules it is made with, for `zoo doctor`.
        inspect: `inspect(fmt, path, facts)` looks for what it claims in a format that it writes itself, and returns
            what was found; raises ParityError.
    """

    name: str
    options: type
    first: tuple[str, ...]
    plan: Callable[[keras.Model, Any, Workbench], keras.Model]
    apply: Callable[[keras.Model, Any, Workbench], keras.Model]
    guarantees: Callable[[keras.Model, Any], dict[str, Any]]
    stage: int
    then: int
    summary: str
    writers: Callable[[Any, Workbench], Mapping[str, Callable[..., None]]] = lambda _options, _bench: {}
    only: tuple[str, ...] = ()
    packages: tuple[str, ...] = ("tensorflow",)
    inspect: Callable[[str, Path, dict[str, Any]], dict[str, Any]] = lambda _fmt, _path, _facts: {}


compressions: Registry[Compression] = Registry("compression", "export.compressions", "zoo.compressions")


def register(compression: Compression) -> None:
    """Register a compression; raises DuplicateName if the name is taken."""
    compressions.add(compression.name, compression, compression.apply.__module__)


@dataclasses.dataclass(frozen=True)
class Step:
    """One step of a chain.

    Args:
        compression: which.
        options: an instance of its dataclass.
        text: how it was written, without white space.
    """

    compression: Compression
    options: Any
    text: str


def parse_step(text: str) -> Step:
    """Return what `name:value,option=value` asks for; see `export.core.options.read_options`.

    Raises:
        UnknownName: no such compression.
        BadOption: an option that it does not have, or a value that cannot be.
    """
    name, rest = split_name(text)
    compression = compressions[name]
    options = read_options(name, rest, compression.options, compression.first)
    return Step(compression, options, "".join(text.split()).rstrip(":"))
