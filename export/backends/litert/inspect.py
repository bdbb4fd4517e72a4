"""Reads the graph of a .tflite file."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from export.backends.litert import file as litert
from export.backends.litert.checks import Whole, check_graphs, check_sizes, listed
from export.core.artifact_graph import ArtifactGraph, Operator, Value, Weight
from export.core.compat import flatbuffer_utils, schema
from zoo.common.errors import DataError
from zoo.common.lazy import np
from zoo.reading.data_files import read_ends, read_graph

FLOATS = ("float32", "float16", "bfloat16", "float64")
# Dtypes of quantized tensors.
INTEGERS = ("int2", "int4", "int8", "uint8", "int16", "int32")
WEIGHTED = {
    "CONV_2D", "DEPTHWISE_CONV_2D", "CONV_3D", "TRANSPOSE_CONV", "CONV_3D_TRANSPOSE", "FULLY_CONNECTED", "BATCH_MATMUL",
    "LSTM", "UNIDIRECTIONAL_SEQUENCE_LSTM", "BIDIRECTIONAL_SEQUENCE_LSTM", "RNN", "UNIDIRECTIONAL_SEQUENCE_RNN", "SVDF",
}  # fmt: skip
# Operators that move values and compute nothing.
MOVES = {
    "RESHAPE", "TRANSPOSE", "SQUEEZE", "EXPAND_DIMS", "PACK", "UNPACK", "SPLIT", "SPLIT_V", "SLICE", "STRIDED_SLICE",
    "PAD", "PADV2", "MIRROR_PAD", "CONCATENATION", "GATHER", "GATHER_ND", "TILE", "BROADCAST_TO", "SHAPE", "CAST",
    "SPACE_TO_DEPTH", "DEPTH_TO_SPACE", "SPACE_TO_BATCH_ND", "BATCH_TO_SPACE_ND", "DYNAMIC_UPDATE_SLICE", "SELECT_V2",
    "SELECT", "WHERE", "FILL", "DENSIFY", "EMBEDDING_LOOKUP",
}  # fmt: skip
METADATA, TEXT = "TFLITE_METADATA", re.compile(rb"[\w.-]+\.txt")
PACKED = {"int4": 4, "uint4": 4, "int2": 2}


def read(path: Path) -> ArtifactGraph:
    """Return the graph of a file; raises DataError, or an error of the parser, if it is no .tflite file."""
    if read_ends(path, 8)[0][4:] != b"TFL3":
        raise DataError("it does not begin with the identifier TFL3")
    whole = Whole(read_graph(path))
    check_sizes(whole)
    model = flatbuffer_utils.read_model_from_bytearray(whole)
    check_graphs(model)
    _check_attached(model, path)
    reader = _Reader(model)
    for number in range(len(model.subgraphs)):
        reader.add(number)
    inputs, outputs = reader.interface()
    # Kernels of convolutions are (outputs, height, width, inputs).
    return ArtifactGraph("tflite", reader.operators, reader.weights, inputs, outputs, moved=(1, 2, 3, 0))


def _check_attached(model: Any, path: Path) -> None:
    """Raise DataError if a text file named in the metadata is not in the zip archive after the model."""
    entries = [entry for entry in model.metadata or [] if litert.text_of(entry.name) == METADATA]
    names = {name.decode() for entry in entries for name in TEXT.findall(bytes(model.buffers[entry.buffer].data))}
    attached = set()
    if names and zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as file:
            attached = set(file.namelist())
    if names - attached:
        raise DataError(f"it is cut off: {min(names - attached)} is missing from it")


class _Reader:
    """Collects operators and weights of all graphs of a file.

    Args:
        model: the file's content.
    """

    def __init__(self, model: Any) -> None:
        self._model = model
        self._types = {value: name.lower() for name, value in vars(schema.TensorType).items() if name.isupper()}
        self.operators: list[Operator] = []
        self.weights: list[Weight] = []
        # Graphs share buffers.
        self._places: dict[int, int] = {}

    def add(self, number: int) -> None:
        """Add the operators of a graph."""
        graph = self._model.subgraphs[number]
        producers: dict[int, int] = {}
        for operator in graph.operators or []:
            inputs = [int(i) for i in listed(operator.inputs) if i >= 0]
            out = [int(i) for i in listed(operator.outputs) if i >= 0]
            before = tuple(dict.fromkeys(producers[i] for i in inputs if i in producers))
            producers |= dict.fromkeys(out, len(self.operators))
            self.operators.append(self._operator(graph, operator, inputs, out, before))

    def _operator(
        self, graph: Any, operator: Any, inputs: Sequence[int], out: Sequence[int], before: tuple[int, ...]
    ) -> Operator:
        """Return an operator with its computation."""
        kind, unsupported = self._kind(operator)
        constants = {
            i: self._weight(graph.tensors[i], kind) for i in inputs if self._data(graph.tensors[i]) is not None
        }
        flowing = [self._types[graph.tensors[i].type] for i in (*inputs, *out) if i not in constants]
        real = any(dtype in FLOATS for dtype in flowing)
        kernels = [place for place in constants.values() if place is not None and kind in WEIGHTED]
        kernels += [self._through(before, kind)] if kind in WEIGHTED else []
        kernels = tuple(place for place in kernels if place is not None and len(self.weights[place].shape) > 1)
        name = litert.name_of(graph.tensors[out[0]]) if out else kind
        casts = kind in litert.CASTS
        integer = None if casts or kind in MOVES else self._integer(real, flowing, kernels)
        if kind == "DEQUANTIZE" and constants:
            kernels = tuple(place for place in constants.values() if place is not None)
        return Operator(kind, name, integer, real and not casts, kernels, before, unsupported)

    def _through(self, before: Sequence[int], kind: str) -> int | None:
        """Return the kernel of an operator that reads it through a cast."""
        for place in before:
            if self.operators[place].kind in ("DEQUANTIZE", "DENSIFY") and self.operators[place].kernels:
                return self.operators[place].kernels[0]
        return None

    def _integer(self, real: bool, flowing: Sequence[str], kernels: Sequence[int]) -> bool | None:
        """Return whether an operator computes in integers; None if it only counts or compares."""
        if real:
            # With int8 weights the runtime quantizes the input and multiplies integers.
            return bool(kernels) and all(self.weights[place].dtype in PACKED | {"int8": 8} for place in kernels)
        return True if any(dtype in ("int8", "uint8", "int16") for dtype in flowing) else None

    def _kind(self, operator: Any) -> tuple[str, bool]:
        """Return the type of an operator, and whether plain LiteRT lacks it."""
        kind = litert.operator_name(self._model, operator)
        if kind != "CUSTOM":
            return kind or "UNKNOWN", kind is None
        return litert.text_of(self._model.operatorCodes[operator.opcodeIndex].customCode) or "CUSTOM", True

    def _data(self, tensor: Any) -> Any:
        data = self._model.buffers[tensor.buffer].data
        return data if data is not None and len(data) else None

    def _weight(self, tensor: Any, kind: str) -> int | None:
        """Return the index of a constant tensor's weights; None for shapes, axes and the like."""
        dtype = self._types[tensor.type]
        scaled = tensor.quantization is not None and tensor.quantization.scale is not None
        if dtype not in FLOATS and not (dtype in INTEGERS and (scaled or kind in WEIGHTED)):
            return None
        if tensor.buffer not in self._places:
            self._places[tensor.buffer] = len(self.weights)
            self.weights.append(self._array(tensor, dtype))
        return self._places[tensor.buffer]

    def _array(self, tensor: Any, dtype: str) -> Weight:
        shape = tuple(int(size) for size in listed(tensor.shape))
        content = np.frombuffer(memoryview(self._data(tensor)), np.uint8)
        size = int(np.prod(shape, dtype=np.int64))
        if dtype in PACKED:
            array = _unpacked(content, PACKED[dtype])[:size]
        else:
            array = content.view("uint16" if dtype == "bfloat16" else dtype)
        if tensor.sparsity is None:
            array = array.reshape(shape)
        zero, axis = 0, 0
        if tensor.quantization is not None and tensor.quantization.zeroPoint is not None:
            zero, axis = np.asarray(tensor.quantization.zeroPoint), int(tensor.quantization.quantizedDimension or 0)
        if tensor.sparsity is not None:
            zero = 0
        return Weight(litert.name_of(tensor), dtype, shape, array, zero, axis)

    def interface(self) -> tuple[list[Value], list[Value]]:
        """Return inputs and outputs, prefixed by signature if there are several."""
        model = self._model
        if not model.signatureDefs:
            graph = model.subgraphs[0]
            return tuple([self._value(graph, int(i)) for i in listed(ids)] for ids in (graph.inputs, graph.outputs))
        several = len(model.signatureDefs) > 1
        found: tuple[list[Value], list[Value]] = [], []
        for signature in model.signatureDefs:
            graph = model.subgraphs[signature.subgraphIndex]
            before = f"{litert.text_of(signature.signatureKey)}/" if several else ""
            for values, items in zip(found, (signature.inputs, signature.outputs), strict=True):
                named = {f"{before}{litert.text_of(item.name)}": item.tensorIndex for item in items or []}
                values += [self._value(graph, index, name) for name, index in named.items()]
        return found

    def _value(self, graph: Any, index: int, name: str = "") -> Value:
        tensor = graph.tensors[index]
        shape = listed(tensor.shape if tensor.shapeSignature is None else tensor.shapeSignature)
        sizes = tuple(None if size < 0 else int(size) for size in shape)
        return Value(name or litert.name_of(tensor), sizes, self._types[tensor.type])


def _unpacked(content: Any, bits: int) -> Any:
    """Return the integers that share bytes, lowest bits first."""
    shifts = np.arange(0, 8, bits, dtype=np.uint8)
    return ((content[:, None] >> shifts) & ((1 << bits) - 1)).reshape(-1)
