"""Reads the graph of .onnx files without running them, and external data from their own folder only."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from export.backends.onnx.external import STANDARD
from export.backends.onnx.external import read as read_model
from export.backends.onnx.order import nested_graphs, ordered_nodes
from export.core.artifact_graph import ArtifactGraph, Operator, Value, Weight
from zoo.common.errors import DataError
from zoo.common.lazy import LazyModule, np

onnx = LazyModule("onnx")

WEIGHTED = {"Conv", "ConvTranspose", "Gemm", "MatMul", "LSTM", "GRU", "RNN", "DeformConv"}
# Integer operators, with the indices of their weights among the inputs.
INTEGER_OPERATORS = {
    "MatMulInteger": (1,), "ConvInteger": (1,), "QLinearConv": (3, 8), "QLinearMatMul": (3,), "QGemm": (3, 6),
    "DynamicQuantizeMatMul": (1,), "MatMulIntegerToFloat": (1,), "QLinearAdd": (), "QLinearMul": (),
}  # fmt: skip
QUANTIZE, DEQUANTIZE = ("QuantizeLinear", "DynamicQuantizeLinear"), "DequantizeLinear"
CASTS = {*QUANTIZE, DEQUANTIZE, "Cast"}
MOVES = {
    "Reshape", "Transpose", "Squeeze", "Unsqueeze", "Flatten", "Identity", "Shape", "Size", "Slice", "Split", "Gather",
    "GatherND", "GatherElements", "ScatterND", "ScatterElements", "Concat", "Pad", "Expand", "Tile", "Constant",
    "ConstantOfShape", "Where", "Range", "SpaceToDepth", "DepthToSpace", "If", "Loop", "Scan",
}  # fmt: skip
# Operators that runtimes fuse into the one before.
FUSED = {"Relu", "Clip", "LeakyRelu", "Sigmoid", "Tanh", "HardSigmoid", "HardSwish"}
PASSING = FUSED | MOVES
SMALL = ("int4", "uint4", "int8", "uint8")


def read(path: Path) -> ArtifactGraph:
    """Return the graph of a file; raises DataError, or an error of the parser, if it is no ONNX file."""
    model = read_model(path)
    graph = model.graph
    if not model.opset_import:
        raise DataError("it names no operator set")
    opset = next((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), None)
    nodes = ordered_nodes(model)
    reader = _Reader(graph, nodes, path.parent)
    stored = {tensor.name for tensor in graph.initializer}
    inputs = [_value(value) for value in graph.input if value.name not in stored]
    operators = [reader.operator(place, node) for place, node in enumerate(nodes)]
    operators += [inner for node in nodes for inner in _inside(node)]
    # Kernels of convolutions are (outputs, inputs, height, width).
    return ArtifactGraph(
        "onnx", operators, reader.weights, inputs, list(map(_value, graph.output)), opset, (2, 3, 1, 0)
    )


class _Reader:
    """Collects the operators and weights of a graph.

    Args:
        graph: the graph.
        nodes: its nodes in topological order.
        folder: the file's folder, for external data.
    """

    def __init__(self, graph: Any, nodes: Sequence[Any], folder: Path) -> None:
        self._folder = folder
        self._tensors = {tensor.name: tensor for tensor in graph.initializer}
        for node in nodes:
            if node.op_type == "Constant" and node.attribute and node.attribute[0].HasField("t"):
                self._tensors[node.output[0]] = node.attribute[0].t
        self._nodes = nodes
        self._made = {name: place for place, node in enumerate(nodes) for name in node.output if name}
        self._quantized, self._rounded = _quantized(nodes), _rounded(nodes)
        self._places: dict[str, int] = {}
        self._integer: dict[int, bool | None] = {}
        self.weights: list[Weight] = []

    def operator(self, place: int, node: Any) -> Operator:
        """Return an operator with its computation; call it in the order of the nodes."""
        held = {name: self._weight(name, node) for name in self._weighty(node)}
        weighted = node.op_type in WEIGHTED or node.op_type in INTEGER_OPERATORS
        places = [p for p in held.values() if p is not None and len(self.weights[p].shape) > 1]
        kernels = tuple(places) if weighted or node.op_type == DEQUANTIZE else ()
        before = tuple(dict.fromkeys(self._made[name] for name in node.input if name in self._made))
        computes = node.op_type not in CASTS and node.op_type not in MOVES
        self._integer[place] = self._on_integers(node, kernels) if computes else None
        name = node.name or next(iter(node.output), node.op_type)
        unsupported, kind = node.domain not in STANDARD, node.op_type
        kind = f"{node.domain}.{kind}" if unsupported else kind
        return Operator(kind, name, self._integer[place], computes, kernels, before, unsupported)

    def _weighty(self, node: Any) -> list[str]:
        """Return the inputs of an operator that may be weights, possibly through a cast."""
        if node.op_type in CASTS or node.op_type == "Constant":
            return list(node.input[:1]) if node.op_type == DEQUANTIZE else []
        places = INTEGER_OPERATORS.get(node.op_type)
        names = node.input if places is None else [node.input[i] for i in places if i < len(node.input)]
        return [self._origin(name) for name in names if name]

    def _origin(self, name: str) -> str:
        """Return the constant tensor behind casts, transpositions and reshapes."""
        for _ in range(4):
            node = self._nodes[self._made[name]] if name in self._made else None
            if node is None or node.op_type not in (DEQUANTIZE, "Cast", "Transpose", "Reshape") or not node.input:
                return name
            name = node.input[0]
        return name

    def _on_integers(self, node: Any, kernels: Sequence[int]) -> bool | None:
        """Return whether an operator computes in integers; None if it only moves or compares."""
        if node.op_type in INTEGER_OPERATORS or node.op_type.startswith("QLinear"):
            return True
        flowing = [name for name in node.input if name and self._origin(name) not in self._tensors]
        stored = [name for name in node.input if name in self._tensors]
        small = all(self.weights[place].dtype in SMALL for place in kernels)
        if node.op_type in WEIGHTED and kernels:
            return small and self._quantized.issuperset(flowing)
        if node.op_type in FUSED and flowing and self._integer.get(self._made.get(flowing[0], -1)):
            return True
        if any(_dtype(self._tensors[name]) in ("int32", "int64", "bool") for name in stored) and len(stored) == 1:
            small_only = node.op_type in ("Min", "Max", "Equal", "Less", "Greater", "Not", "And", "Or")
            return None if small_only else False
        read = bool(flowing) and not stored and self._quantized.issuperset(flowing)
        return read and self._rounded.issuperset(node.output)

    def _weight(self, name: str, node: Any) -> int | None:
        """Return the index of constant weights; None for shapes, axes and computed tensors."""
        tensor = self._tensors.get(name)
        dtype = None if tensor is None else _dtype(tensor)
        cast = node.op_type == DEQUANTIZE or node.op_type in INTEGER_OPERATORS or node.op_type == "Gather"
        if dtype is None or not (dtype.startswith(("float", "bfloat")) or (dtype in (*SMALL, "int32") and cast)):
            return self._places.get(name)
        if name not in self._places:
            self._places[name] = len(self.weights)
            self.weights.append(self._array(tensor, dtype, node))
        return self._places[name]

    def _array(self, tensor: Any, dtype: str, node: Any) -> Weight:
        shape = tuple(tensor.dims)
        array = _values(tensor, self._folder).reshape(shape)
        zero, axis = 0, 0
        if node.op_type == DEQUANTIZE and len(node.input) > 2 and node.input[2] in self._tensors:
            zero = _values(self._tensors[node.input[2]], self._folder)
            axis = next((a.i for a in node.attribute if a.name == "axis"), 1)
            zero, axis = (zero, axis) if zero.ndim < 2 else (0, 0)
        return Weight(tensor.name, dtype, shape, array, zero, axis % max(1, len(shape)))


def _quantized(nodes: Sequence[Any]) -> set[str]:
    """Return the tensors that come from a dequantization, possibly through operators that move values.

    Args:
        nodes: the nodes in topological order.
    """
    found: set[str] = set()
    for node in nodes:
        moves = node.op_type in MOVES and node.input and node.input[0] in found
        if moves or node.op_type == DEQUANTIZE:
            found.update(filter(None, node.output))
    return found


def _rounded(nodes: Sequence[Any]) -> set[str]:
    """Return the tensors that are read, and by quantizations only, possibly after operators that are fused or move.

    Args:
        nodes: the nodes in topological order.
    """
    read: set[str] = set()
    otherwise: set[str] = set()
    for node in reversed(nodes):
        passes = node.op_type in PASSING and all(n in read and n not in otherwise for n in node.output)
        if not passes and node.op_type not in QUANTIZE:
            otherwise.update(node.input)
        read.update(node.input)
    return read - otherwise


def _dtype(tensor: Any) -> str:
    """Return the NumPy name of a tensor's dtype."""
    return _named(tensor.data_type)


def _named(kind: int) -> str:
    name = onnx.TensorProto.DataType.Name(kind).lower()
    return {"float": "float32", "double": "float64"}.get(name, name)


def _values(tensor: Any, folder: Path) -> Any:
    """Return the values of a constant tensor, external ones included."""
    if tensor.data_location != onnx.TensorProto.EXTERNAL:
        return onnx.numpy_helper.to_array(tensor)
    entries = {entry.key: entry.value for entry in tensor.external_data}
    dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type)
    return np.memmap(folder / entries["location"], dtype, "r", int(entries.get("offset", 0)), tuple(tensor.dims))


def _inside(node: Any) -> Iterable[Operator]:
    """Yield the operators of nested graphs, such as the branches of an If."""
    for graph in nested_graphs(node):
        for inner in graph.node:
            unsupported = inner.domain not in STANDARD
            kind = f"{inner.domain}.{inner.op_type}" if unsupported else inner.op_type
            yield Operator(kind, inner.name or inner.op_type, unsupported=unsupported)
            yield from _inside(inner)


def _value(value: Any) -> Value:
    tensor_type = value.type.tensor_type
    sizes = (size.dim_value if size.HasField("dim_value") else None for size in tensor_type.shape.dim)
    return Value(value.name, tuple(sizes), _named(tensor_type.elem_type))
