"""A loaded artifact: one callable for every format."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from zoo.common.errors import BadOption
from zoo.common.lazy import np


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

        Several inputs are a dictionary by the names of `inputs`, or a list in their order.
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

    def classify_rows(self, rows: Sequence[Mapping[str, str]]) -> Any:
        """Return what `__call__` does, of rows of texts by column; None if the artifact has no such input."""
        return None

    def step(self, inputs: Any) -> None:
        """Run the artifact once on raw values of exactly its batch size; a generator, on one sequence."""
        raise NotImplementedError


def by_input(tensors: Sequence[Tensor], values: Any) -> dict[str, Any]:
    """Return the inputs of an artifact by name, as arrays.

    Args:
        tensors: the inputs of the artifact.
        values: one array, or several by name or in order.

    Raises:
        BadOption: there are others.
    """
    names = [tensor.name for tensor in tensors]
    if not isinstance(values, dict):
        listed = [values] if len(tensors) == 1 else list(values) if isinstance(values, (list, tuple)) else []
        values = dict(zip(names, listed, strict=True)) if len(listed) == len(names) else {}
    if values.keys() != set(names):
        raise BadOption(f"Expected the inputs {', '.join(names)}. Received: {', '.join(map(str, values)) or 'others'}.")
    return {name: np.asarray(values[name]) for name in names}


def cast_inputs(tensors: Sequence[Tensor], values: Any) -> dict[str, Any]:
    """Return the inputs of an artifact by name, as arrays of its dtypes; see `by_input`."""
    named = by_input(tensors, values)
    dtypes = {tensor.name: None if tensor.dtype == "string" else tensor.dtype for tensor in tensors}
    return {name: np.asarray(array, dtypes[name]) for name, array in named.items()}


def one_or_named(outputs: Sequence[Tensor], found: Mapping[str, Any]) -> Any:
    """Return the only output, or all of several by name."""
    return dict(found) if len(outputs) > 1 else found[outputs[0].name]


def in_order(outputs: Sequence[Tensor], metadata: Mapping[str, Any] | None) -> tuple[Tensor, ...]:
    """Return several outputs in the order of an artifact's metadata; formats that sort signatures sort them by name."""
    return _sorted(outputs, (metadata or {}).get("outputs", ()))


def inputs_in_order(inputs: Sequence[Tensor], metadata: Mapping[str, Any] | None) -> tuple[Tensor, ...]:
    """Return several inputs in the order of an artifact's metadata."""
    return _sorted(inputs, (metadata or {}).get("inputs", ()))


def _sorted(tensors: Sequence[Tensor], described: Sequence[Mapping[str, Any]]) -> tuple[Tensor, ...]:
    names = [entry["name"] for entry in described]
    return tuple(sorted(tensors, key=lambda one: names.index(one.name) if one.name in names else len(names)))
