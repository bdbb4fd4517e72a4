"""A loaded artifact: one callable for every format."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any


@dataclasses.dataclass(frozen=True)
class Tensor:
    """One input or output of an artifact; None marks a dynamic size."""

    name: str
    shape: tuple[int | None, ...]
    dtype: str
    scale: float | None = None
    zero_point: int | None = None


class Runtime:
    """A loaded artifact.

    Attributes:
        inputs: the artifact's inputs.
        outputs: the artifact's outputs.
        batch: its batch size, None if dynamic.
        metadata: the metadata stored in the artifact itself, None if there is none.
        library: the module that runs it, "" if none; cold-start measurements separate its import from loading.
        shares_threads: whether all artifacts of a process share the threads that the first one was loaded with.
        required_modules: modules of this package that must be imported before the artifact opens; none for most.
    """

    library: str = ""
    shares_threads: bool = False
    required_modules: tuple[str, ...] = ()
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    batch: int | None
    metadata: dict[str, Any] | None

    def __call__(self, inputs: Any) -> Any:
        """Return float32 logits (n, classes) of raw values (n, *shape): pixels in [0, 255], features or int32 ids.

        A regression model returns values (n, targets) in the data's units; a tagger returns logits (n, length,
        classes); a model for several targets a dictionary of these by the names of `outputs`; for sequence-to-sequence
        models see `export.core.generate.Generator`.
        """
        raise NotImplementedError

    def classify_bytes(self, images: list[bytes]) -> Any:
        """Return what `__call__` does, of encoded images; None if the artifact has no such input."""
        return None

    def classify_strings(self, texts: list[str]) -> Any:
        """Return what `__call__` does, of texts; None if the artifact has no such input."""
        return None

    def step(self, inputs: Any) -> None:
        """Run the artifact once on raw values of exactly its batch size; a generator, on one sequence."""
        raise NotImplementedError


def one_or_named(outputs: Sequence[Tensor], found: Mapping[str, Any]) -> Any:
    """Return the only output, or all of several by name."""
    return dict(found) if len(outputs) > 1 else found[outputs[0].name]


def in_order(outputs: Sequence[Tensor], metadata: Mapping[str, Any] | None) -> tuple[Tensor, ...]:
    """Return several outputs in the order of an artifact's metadata; formats that sort signatures sort them by name."""
    names = [output["name"] for output in (metadata or {}).get("outputs", ())]
    return tuple(sorted(outputs, key=lambda one: names.index(one.name) if one.name in names else len(names)))
