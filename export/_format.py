"""What a format is: how it is written, how its real runtime loads it, and how far it may be from its source."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo._errors import UnsupportedExport
from zoo._registry import Registry

if TYPE_CHECKING:
    import numpy as np

    from export._source import Source


@dataclasses.dataclass(frozen=True)
class Tolerance:
    """How far an artifact may be from its source before it is refused.

    Args:
        relative: largest difference of a logit, as a share of the source's largest logit.
        agreement: least share of answers with the same top-1.
        drop: most accuracy that may be lost, as a fraction.
    """

    relative: float
    agreement: float
    drop: float


@dataclasses.dataclass(frozen=True)
class Tensor:
    """One input or output of an artifact; sizes that are free are None."""

    name: str
    shape: tuple[int | None, ...]
    dtype: str
    scale: float | None = None
    zero_point: int | None = None


@dataclasses.dataclass(frozen=True)
class Way:
    """How a format keeps a model.

    Args:
        file: what `write` writes inside the artifact's folder; "" if that is several files.
        write: writes the source to a path, the folder itself for several files; runs in a child process.
        load: loads a path into its runtime, `load(path, threads=None)`.
        tolerance: how far the artifact may be from its source.
    """

    file: str
    write: Callable[[Source, Path], None]
    load: Callable[..., Runtime]
    tolerance: Tolerance


@dataclasses.dataclass(frozen=True)
class Format(Way):
    """One way to ship a model.

    Args:
        name: what users ask for.
        summary: one line for people.
        generate: how it keeps a network that writes sequences, if it can.
    """

    name: str
    summary: str
    generate: Way | None = None

    def way(self, task: str) -> Way:
        """Return how it keeps a network of a task.

        Raises:
            UnsupportedExport: it cannot.
        """
        if task != "generate":
            return self
        if self.generate is None:
            raise UnsupportedExport(f"{self.name} cannot keep a network that writes sequences. Received: task={task!r}")
        return self.generate


def name_input(name: str, shape: Sequence[int]) -> str:
    """Return what an artifact calls the input of a network: one of features may well be given images."""
    return "image" if name == "features" and len(shape) == 3 else name


# What comes out of a network of a task, where that is no logits.
OUTPUTS = {"generate": "tokens", "regress": "values"}


def describe(model: str, task: str, given: tuple[str, str, tuple[int, ...]], labels: Sequence[str]) -> dict[str, Any]:
    """Return the facts of a network that go into its artifacts.

    Args:
        model: its name.
        task: its task.
        given: name, dtype and shape of its input; the shape has both lengths where a sequence is written.
        labels: names of the classes, tags, labels or targets.
    """
    name, dtype, shape = given
    output = OUTPUTS.get(task, "logits")
    facts = {"model": model, "task": task, "input": name, "dtype": dtype, "output": output}
    return facts | {"shape": list(shape), "labels": list(labels)}


class Runtime:
    """A loaded artifact: one callable for every format.

    Attributes:
        inputs: the artifact's inputs.
        outputs: the artifact's outputs.
        batch: its batch size, None where it is free.
        metadata: what `write` put into the artifact itself, None if nothing was found.
    """

    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    batch: int | None
    metadata: dict[str, Any] | None

    def __call__(self, inputs: Any) -> np.ndarray:
        """Return float32 logits (n, classes) of raw values (n, *shape), pixels from 0 to 255 or int32 ids.

        Those of a network that gives numbers are values (n, targets) in the data's own units; of one that tags they are
        (n, length, classes); for one that writes, see `export._generate.Writer`.
        """
        raise NotImplementedError

    def classify_bytes(self, images: list[bytes]) -> np.ndarray | None:
        """Return float32 logits of encoded images; None where the artifact takes no such input."""
        return None

    def classify_strings(self, texts: list[str]) -> np.ndarray | None:
        """Return float32 logits of texts; None where the artifact takes no such input."""
        return None

    def step(self, inputs: Any) -> None:
        """Run the artifact once on raw values of exactly its batch size; a network that writes, on one sequence."""
        raise NotImplementedError


formats: Registry[Format] = Registry("format", "export", "zoo.formats")


def register(
    name: str,
    *,
    file: str,
    write: Callable[[Source, Path], None],
    load: Callable[..., Runtime],
    tolerance: Tolerance,
    summary: str,
    generate: Way | None = None,
) -> None:
    """Register a format; raises DuplicateName if the name is taken."""
    formats.add(name, Format(file, write, load, tolerance, name, summary, generate), write.__module__)
