"""The content of an artifact, of any format: operators, weights, inputs and outputs, as read from its file."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from zoo.common.lazy import np

if TYPE_CHECKING:
    import numpy as _np

# Bits of a value by dtype; 32 for all others.
BITS = {"int2": 2, "int4": 4, "uint4": 4, "int8": 8, "uint8": 8, "int16": 16, "float16": 16, "bfloat16": 16}


@dataclasses.dataclass(frozen=True)
class Operator:
    """One operator.

    Args:
        kind: its type in the format's terms.
        name: its name, or the name of its first output.
        integer: whether it computes in integers; None if it computes nothing, such as a cast or a transpose.
        real: whether it has floating-point inputs or outputs; False for casts.
        kernels: indices in `ArtifactGraph.weights` of the weights that it multiplies by.
        before: indices in `ArtifactGraph.operators` of the operators that compute its inputs.
        unsupported: whether the format's own runtime lacks it.
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
        name: its name in the file.
        dtype: of its values; "int4" also if two values share a byte.
        shape: its shape; `array` has fewer values if the file stores it sparse.
        array: its stored values.
        zero: the zero point: one, or one per channel.
        axis: the axis of the channels of `zero`.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    array: _np.ndarray
    zero: Any = 0
    axis: int = 0

    @property
    def size(self) -> int:
        """Number of values."""
        return int(np.prod(self.shape, dtype=np.int64))

    @property
    def bits(self) -> int:
        """Bits per value."""
        return BITS.get(self.dtype, 32)

    @property
    def zeros(self) -> int:
        """Number of zeros."""
        zero = np.asarray(self.zero)
        if zero.ndim and zero.size > 1:
            zero = zero.reshape([-1 if axis == self.axis else 1 for axis in range(self.array.ndim)])
        nonzero = self.array != zero if zero.any() else self.array
        return self.size - int(np.count_nonzero(nonzero))


@dataclasses.dataclass(frozen=True)
class Value:
    """An input or output; None marks a dynamic size."""

    name: str
    shape: tuple[int | None, ...]
    dtype: str

    def to_json(self) -> dict[str, Any]:
        """Return the value's fields."""
        return {"name": self.name, "shape": list(self.shape), "dtype": self.dtype}


@dataclasses.dataclass(frozen=True)
class ArtifactGraph:
    """The content of an artifact.

    Args:
        kind: "tflite", "onnx", "saved_model", "keras" or "openvino".
        operators: its operators, in topological order.
        weights: its weights, in the order of the file.
        inputs: its inputs.
        outputs: its outputs.
        opset: the version of its operator set, None if the format has none.
        of_layers: whether its operators are Keras layers; custom layers are supported then.
        moved: the permutation of a convolution kernel's axes to Keras' order: height, width, inputs, outputs.
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
        """Return the kernels by the name of their operator; by their own names if no operator has kernels."""
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
        """Return the operators that compute in floating point in a quantized artifact.

        These are the operators with weights, and those between two integer operators.
        """
        computing = [operator.integer for operator in self.operators]
        if True not in computing and not any(weight.dtype in ("int4", "int8", "uint8") for weight in self.weights):
            return []
        after, before = self._after_integers(), self._before_integers()
        return [
            operator.name
            for place, operator in enumerate(self.operators)
            if operator.integer is False and (operator.kernels or (after[place] and before[place]))
        ]

    def _after_integers(self) -> list[bool]:
        """Return for each operator whether an integer operator precedes it."""
        found: list[bool] = []
        for operator in self.operators:
            earlier = [place for place in operator.before if place < len(found)]
            found.append(any(found[place] or self.operators[place].integer is True for place in earlier))
        return found

    def _before_integers(self) -> list[bool]:
        """Return for each operator whether an integer operator follows it."""
        found = [False] * len(self.operators)
        for place, operator in reversed(list(enumerate(self.operators))):
            if found[place] or operator.integer is True:
                for earlier in operator.before:
                    found[earlier] = True
        return found


def joined(parts: Mapping[str, ArtifactGraph]) -> ArtifactGraph:
    """Return the graphs of several files as one; names get the name of their file as a prefix.

    Args:
        parts: graphs of one kind by the names of their files; a single one is returned as it is.
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
