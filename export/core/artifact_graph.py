"""What stands in an artifact, whatever its kind: operators, weights, inputs and outputs, as its file states them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from zoo.common.lazy import np

if TYPE_CHECKING:
    import numpy as _np

# Bits of a stored value.
BITS = {"int2": 2, "int4": 4, "uint4": 4, "int8": 8, "uint8": 8, "int16": 16, "float16": 16, "bfloat16": 16}


@dataclasses.dataclass(frozen=True)
class Operator:
    """One operator.

    Args:
        kind: what its format calls it.
        name: its own name, or that of its first output.
        integer: whether it computes in integers; None for one that computes nothing, such as a cast or a transpose.
        real: whether it takes or gives floating-point values; False for casts, which stand around those that do.
        kernels: the weights that it multiplies by, as places in `ArtifactGraph.weights`; none if it multiplies by none.
        before: the operators whose outputs it takes, as places in `ArtifactGraph.operators`.
        foreign: whether the format's own runtime lacks it.
    """

    kind: str
    name: str
    integer: bool | None = None
    real: bool = False
    kernels: tuple[int, ...] = ()
    before: tuple[int, ...] = ()
    unsupported: bool = False


@dataclasses.dataclass(frozen=True)
class Weight:
    """One stored array.

    Args:
        name: what the file calls it.
        dtype: of its values, "int4" also where two of them share a byte.
        shape: its shape; the array may hold fewer values if zeros are left out.
        array: its values.
        zero: the stored value that stands for 0, one or one for each channel.
        axis: the axis of the channels that `zero` goes by.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    array: _np.ndarray
    zero: Any = 0
    axis: int = 0

    @property
    def size(self) -> int:
        """How many values it stands for."""
        return int(np.prod(self.shape, dtype=np.int64))

    @property
    def bits(self) -> int:
        """Bits of a value."""
        return BITS.get(self.dtype, 32)

    @property
    def zeros(self) -> int:
        """How many of its values are 0."""
        zero = np.asarray(self.zero)
        if zero.ndim and zero.size > 1:
            zero = zero.reshape([-1 if axis == self.axis else 1 for axis in range(self.array.ndim)])
        kept = self.array != zero if zero.any() else self.array
        return self.size - int(np.count_nonzero(kept))


@dataclasses.dataclass(frozen=True)
class Value:
    """An input or output; sizes that are free are None."""

    name: str
    shape: tuple[int | None, ...]
    dtype: str

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON-safe values."""
        return {"name": self.name, "shape": list(self.shape), "dtype": self.dtype}


@dataclasses.dataclass(frozen=True)
class ArtifactGraph:
    """What stands in an artifact.

    Args:
        kind: "tflite", "onnx", "saved_model", "keras" or "openvino".
        operators: in an order in which they can be run.
        weights: what training made, in the order of the file.
        inputs: what it takes.
        outputs: what it gives.
        opset: the version of its standard operators, where it has such.
        of_layers: whether its operators are layers of Keras, of which one of another's is no fault.
        moved: the axes that bring a kernel of convolution into Keras' order: height, width, inputs, outputs.
    """

    kind: str
    operators: Sequence[Operator]
    weights: Sequence[Weight]
    inputs: Sequence[Value]
    outputs: Sequence[Value]
    opset: int | None = None
    moved: tuple[int, ...] = (0, 1, 2, 3)
    of_layers: bool = False

    def layers(self) -> Mapping[str, Weight]:
        """Return the kernels by the name of the operator that multiplies by them; by their own if none is known to."""
        found: dict[str, Weight] = {}
        seen: set[int] = set()
        for operator in self.operators:
            for place in operator.kernels if operator.integer is not None else ():
                if place not in seen:
                    found[operator.name if operator.name not in found else self.weights[place].name] = self.weights[
                        place
                    ]
                seen.add(place)
        return found or {weight.name: weight for weight in self.weights if len(weight.shape) > 1}

    def float_fallback(self) -> list[str]:
        """Return what computes in floating point where others do in integers.

        Those that multiply by weights, and others that stand between two that compute in integers.
        """
        computing = [operator.integer for operator in self.operators]
        if True not in computing and not any(weight.dtype in ("int4", "int8", "uint8") for weight in self.weights):
            return []
        after, ahead = self._reached(), self._reaching()
        return [
            operator.name
            for place, operator in enumerate(self.operators)
            if operator.integer is False and (operator.kernels or (after[place] and ahead[place]))
        ]

    def _reached(self) -> list[bool]:
        """Return which operators come after one that computes in integers."""
        found: list[bool] = []
        for operator in self.operators:
            earlier = [place for place in operator.before if place < len(found)]
            found.append(any(found[place] or self.operators[place].integer is True for place in earlier))
        return found

    def _reaching(self) -> list[bool]:
        """Return which operators come before one that computes in integers."""
        found = [False] * len(self.operators)
        for place, operator in reversed(list(enumerate(self.operators))):
            if found[place] or operator.integer is True:
                for earlier in operator.before:
                    found[earlier] = True
        return found


def joined(parts: Mapping[str, ArtifactGraph]) -> ArtifactGraph:
    """Return what stands in several files as one; names begin with that of their own.

    Args:
        parts: of one kind, by the names of their files; a single one stays as it is.
    """
    if len(parts) == 1:
        return next(iter(parts.values()))
    operators: list[Operator] = []
    weights: list[Weight] = []
    for part, stored in parts.items():
        shift, first = len(operators), len(weights)
        operators += [
            dataclasses.replace(
                o,
                name=f"{part}/{o.name}",
                before=tuple(place + shift for place in o.before),
                kernels=tuple(place + first for place in o.kernels),
            )
            for o in stored.operators
        ]
        weights += [dataclasses.replace(weight, name=f"{part}/{weight.name}") for weight in stored.weights]
    first_part = next(iter(parts.values()))
    inputs = [value for part, stored in parts.items() for value in _named(part, stored.inputs)]
    outputs = [value for part, stored in parts.items() for value in _named(part, stored.outputs)]
    return dataclasses.replace(first_part, operators=operators, weights=weights, inputs=inputs, outputs=outputs)


def _named(part: str, values: Iterable[Value]) -> list[Value]:
    return [dataclasses.replace(value, name=f"{part}/{value.name}") for value in values]
