"""Cross-layer equalization: channels of very different size made alike, without changing what is computed.

Nagel et al. 2019, arXiv:1906.04721, section 4.1: where f(s x) = s f(x), as of ReLU and pooling, a layer may give a
channel divided by s if the layer that reads it multiplies by s. With s = sqrt(a / b), a being the largest weight that
makes the channel and b the largest that reads it, both become sqrt(a b). An int8 activation has one scale for all of
its channels, so that next to a channel a hundred times larger the others would vanish.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator
from typing import Any

from export.backends.litert.file import name_of, operator_name, pack, read, schema
from zoo.common.lazy import np

# Axes of a kernel that make and read channels.
AXES = {"CONV_2D": (0, 3), "DEPTHWISE_CONV_2D": (3, 3), "FULLY_CONNECTED": (0, 1)}
# What passes channels on, each scaled as it comes.
PASSING = ("PAD", "MAX_POOL_2D", "AVERAGE_POOL_2D", "MEAN", "RELU")
KERNEL, BIAS = 1, 2  # places among an operator's inputs


@dataclasses.dataclass(frozen=True)
class Link:
    """A layer whose channels only one other reads.

    Args:
        name: what the operator gives.
        maker: its operator.
        reader: the operator that reads it.
    """

    name: str
    maker: Any
    reader: Any


class Links:
    """The pairs of layers of a float32 .tflite that can be equalized.

    Args:
        content: the file.
    """

    def __init__(self, content: bytes) -> None:
        self._model = read(content)
        self._graph = self._model.subgraphs[0]
        self._readers: dict[int, list[Any]] = {}
        for operator in self._graph.operators:
            for i in operator.inputs:
                self._readers.setdefault(int(i), []).append(operator)
        self.found = {link.name: link for link in self._links()}

    def equalize(self, names: Iterable[str]) -> dict[str, float]:
        """Equalize the channels that operators of these names give; returns how far apart channels were, by name."""
        return {name: self._equalize(self.found[name]) for name in names}

    def content(self) -> bytes:
        """Return the file."""
        return bytes(pack(self._model))

    def _links(self) -> Iterator[Link]:
        if len(self._model.subgraphs) > 1:
            return
        for operator in self._graph.operators:
            if self._kind(operator) in AXES and self._is_homogeneous(operator):
                reader = self._reader(operator)
                if reader is not None and self._fits(operator, reader):
                    yield Link(name_of(self._graph.tensors[operator.outputs[0]]), operator, reader)

    def _reader(self, operator: Any) -> Any:
        """Return the layer that alone reads what an operator gives, through what passes it on; None if others do."""
        while True:
            (out,) = operator.outputs
            found = self._readers.get(int(out), [])
            if len(found) != 1 or out in self._graph.outputs:
                return None
            (operator,) = found
            if self._kind(operator) in AXES:
                return operator if operator.inputs[0] == out else None
            if self._kind(operator) not in PASSING or not self._is_homogeneous(operator):
                return None

    def _kind(self, operator: Any) -> str:
        return operator_name(self._model, operator)

    def _is_homogeneous(self, operator: Any) -> bool:
        """Tell whether an operator's activation is none or ReLU."""
        kinds = schema.ActivationFunctionType
        activation = getattr(operator.builtinOptions, "fusedActivationFunction", kinds.NONE)
        return activation in (kinds.NONE, kinds.RELU)

    def _fits(self, maker: Any, reader: Any) -> bool:
        """Tell whether each channel made is read once, and by weights of its own."""
        sizes = [self._graph.tensors[op.inputs[KERNEL]].shape for op in (maker, reader)]
        made, taken = sizes[0][AXES[self._kind(maker)][0]], sizes[1][AXES[self._kind(reader)][1]]
        weights = [int(op.inputs[place]) for op, place in ((maker, KERNEL), (maker, BIAS), (reader, KERNEL))]
        alone = all(len(self._readers[i]) == 1 and self._has_data(i) for i in weights if i >= 0)
        return made == taken and alone

    def _has_data(self, tensor: int) -> bool:
        data = self._model.buffers[self._graph.tensors[tensor].buffer].data
        return data is not None and len(data) > 0

    def _equalize(self, link: Link) -> float:
        out, into = AXES[self._kind(link.maker)][0], AXES[self._kind(link.reader)][1]
        made, taken = (self._array(int(op.inputs[KERNEL])) for op in (link.maker, link.reader))
        sizes = [_largest(made, out), _largest(taken, into)]
        scale = np.ones(len(sizes[0]), "float32")
        # A channel that nothing makes or nobody reads has no size to be made alike.
        alive = (sizes[0] > 0) & (sizes[1] > 0)
        scale[alive] = np.sqrt(sizes[0][alive] / sizes[1][alive])
        scale /= np.exp(np.log(scale).mean())
        self._store(int(link.maker.inputs[KERNEL]), made / _along(scale, out, made.ndim))
        if len(link.maker.inputs) > BIAS and link.maker.inputs[BIAS] >= 0:
            bias = int(link.maker.inputs[BIAS])
            self._store(bias, self._array(bias) / scale)
        self._store(int(link.reader.inputs[KERNEL]), taken * _along(scale, into, taken.ndim))
        return float(scale.max() / scale.min())

    def _array(self, tensor: int) -> Any:
        found = self._graph.tensors[tensor]
        return np.frombuffer(bytes(self._model.buffers[found.buffer].data), "float32").reshape(found.shape)

    def _store(self, tensor: int, values: Any) -> None:
        found = self._graph.tensors[tensor]
        # Equal constants may be kept once for several tensors.
        if sum(other.buffer == found.buffer for other in self._graph.tensors) > 1:
            self._model.buffers.append(schema.BufferT())
            found.buffer = len(self._model.buffers) - 1
        self._model.buffers[found.buffer].data = np.ascontiguousarray(values, "float32").view(np.uint8).ravel()


def _largest(kernel: Any, axis: int) -> Any:
    """Return the largest magnitude of each channel along an axis."""
    return np.abs(kernel).max(tuple(i for i in range(kernel.ndim) if i != axis))


def _along(scale: Any, axis: int, rank: int) -> Any:
    return scale.reshape([-1 if i == axis else 1 for i in range(rank)])
