"""What a format is: how it is written, how its real runtime loads it, and how far it may be from its source."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo._registry import Registry

if TYPE_CHECKING:
    import numpy as np

    from export._source import Source


@dataclasses.dataclass(frozen=True)
class Tolerance:
    """How far an artifact may be from its source before it is refused.

    Args:
        relative: largest difference of a logit, as a share of the source's largest logit.
        agreement: least share of images with the same top-1.
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
class Format:
    """One way to ship a model.

    Args:
        name: what users ask for.
        file: what `write` writes inside the artifact's folder.
        write: writes the source to a path; runs in a child process.
        load: loads a path into its runtime, `load(path, threads=None)`.
        tolerance: how far the artifact may be from its source.
        summary: one line for people.
    """

    name: str
    file: str
    write: Callable[[Source, Path], None]
    load: Callable[..., Runtime]
    tolerance: Tolerance
    summary: str


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

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """Return float32 logits (n, classes) of raw values (n, *shape), pixels from 0 to 255."""
        raise NotImplementedError

    def classify_bytes(self, images: list[bytes]) -> np.ndarray | None:
        """Return float32 logits (n, classes) of encoded images; None where the artifact takes no such input."""
        return None

    def step(self, images: np.ndarray) -> None:
        """Run the artifact once on raw values of exactly its batch size."""
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
) -> None:
    """Register a format; raises DuplicateName if the name is taken."""
    formats.add(name, Format(name, file, write, load, tolerance, summary), write.__module__)
