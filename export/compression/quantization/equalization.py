"""Cross-layer equalization: rescale channels of very different size without changing the outputs.

Nagel et al. 2019, arXiv:1906.04721, section 4.1: if f(s x) = s f(x), as for ReLU and pooling, a layer may divide a
channel by s if the layer that reads it multiplies by s. With s = sqrt(a / b), where a is the largest weight that
produces the channel and b the largest that reads it, both become sqrt(a b). An int8 activation has one scale for all
channels, so that the others vanish next to a channel that is a hundred times larger.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator
from typing import Any

from export.backends.litert.file import name_of, operator_name, pack, read
from export.core.compat import schema
from zoo.common.lazy import np

# Axes of a kernel for output and input channels.
AXES = {"CONV_2D": (0, 3), "DEPTHWISE_CONV_2D": (3, 3), "FULLY_CONNECTED": (0, 1)}
# Operators that preserve the scale of each channel.
SCALE_PRESERVING = ("PAD", "MAX_POOL_2D", "AVERAGE_POOL_2D", "MEAN", "RELU")
KERNEL, BIAS = 1, 2  # places among an operator's inputs


@dataclasses.dataclass(frozen=True)
class Link:
    """A layer with a single reader of its channels.

    Args:
        name: name of the operator's output.
        producer: operator of the layer.
        reader: operator that reads the output.
    """

    name: str
    producer: Any
    reader: Any


class Links:
    """The pairs of layers of a float32 .tflite file that can be equalized.

    Args:
        content: the content of the file.
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
        """Equalize the output channels of operators; returns the ratio of the extreme scales, by name."""
        return {name: self._equalize(self.found[name]) for name in names}

    def content(self) -> bytes:
        """Return the content of the equalized file."""
        return bytes(pack(self._model))

    def _links(self) -> Iterator[Link]:
        if len(self._model.subgraphs) > 1:
            return
        for operator in self._graph.operators:
            if self._kind(operator) in AXES and self._is_homogeneous(operator):
                reader = self._reader(operator)
                if reader is not None and self._is_equalizable(operator, reader):
                    yield Link(name_of(self._graph.tensors[operator.outputs[0]]), operator, reader)

    def _reader(self, operator: Any) -> Any:
        """Return the only layer that reads an operator's output, through scale-preserving operators; None otherwise."""
        while True:
            (out,) = operator.outputs
            found = self._readers.get(int(out), [])
            if len(found) != 1 or out in self._graph.outputs:
                return None
            (operator,) = found
            if self._kind(operator) in AXES:
                return operator if operator.inputs[0] == out else None
            if self._kind(operator) not in SCALE_PRESERVING or not self._is_homogeneous(operator):
                return None

    def _kind(self, operator: Any) -> str:
        return operator_name(self._model, operator)

    def _is_homogeneous(self, operator: Any) -> bool:
        """Return whether the activation of an operator is none or ReLU."""
        kinds = schema.ActivationFunctionType
        activation = getattr(operator.builtinOptions, "fusedActivationFunction", kinds.NONE)
        return activation in (kinds.NONE, kinds.RELU)

    def _is_equalizable(self, producer: Any, reader: Any) -> bool:
        """Return whether each channel is read once, by weights that no other operator uses."""
        sizes = [self._graph.tensors[op.inputs[KERNEL]].shape for op in (producer, reader)]
        produced, read_weights = sizes[0][AXES[self._kind(producer)][0]], sizes[1][AXES[self._kind(reader)][1]]
        weights = [int(op.inputs[place]) for op, place in ((producer, KERNEL), (producer, BIAS), (reader, KERNEL))]
        unshared = all(len(self._readers[i]) == 1 and self._has_data(i) for i in weights if i >= 0)
        return produced == read_weights and unshared

    def _has_data(self, tensor: int) -> bool:
        data = self._model.buffers[self._graph.tensors[tensor].buffer].data
        return data is not None and len(data) > 0

    def _equalize(self, link: Link) -> float:
        out, into = AXES[self._kind(link.producer)][0], AXES[self._kind(link.reader)][1]
        produced, read_weights = (self._array(int(op.inputs[KERNEL])) for op in (link.producer, link.reader))
        sizes = [_largest(produced, out), _largest(read_weights, into)]
        scale = np.ones(len(sizes[0]), "float32")
        # A channel without weights on one side has no scale.
        nonzero = (sizes[0] > 0) & (sizes[1] > 0)
        scale[nonzero] = np.sqrt(sizes[0][nonzero] / sizes[1][nonzero])
        scale /= np.exp(np.log(scale).mean())
        self._store(int(link.producer.inputs[KERNEL]), produced / _along(scale, out, produced.ndim))
        if len(link.producer.inputs) > BIAS and link.producer.inputs[BIAS] >= 0:
            bias = int(link.producer.inputs[BIAS])
            self._store(bias, self._array(bias) / scale)
        self._store(int(link.reader.inputs[KERNEL]), read_weights * _along(scale, into, read_weights.ndim))
        return float(scale.max() / scale.min())

    def _array(self, tensor: int) -> Any:
        found = self._graph.tensors[tensor]
        return np.frombuffer(bytes(self._model.buffers[found.buffer].data), "float32").reshape(found.shape)

    def _store(self, tensor: int, values: Any) -> None:
        found = self._graph.tensors[tensor]
        # Several tensors may share a buffer of equal constants.
        if sum(other.buffer == found.buffer for other in self._graph.tensors) > 1:
            self._model.buffers.append(schema.BufferT())
            found.buffer = len(self._model.buffers) - 1
        self._model.buffers[found.buffer].data = np.ascontiguousarray(values, "float32").view(np.uint8).ravel()


def _largest(kernel: Any, axis: int) -> Any:
    """Return the largest magnitude of each channel along an axis."""
    return np.abs(kernel).max(tuple(i for i in range(kernel.ndim) if i != axis))


def _along(scale: Any, axis: int, rank: int) -> Any:
    return scale.reshape([-1 if i == axis else 1 for i in range(rank)])
