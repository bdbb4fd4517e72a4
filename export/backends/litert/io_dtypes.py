"""The dtypes of the input and output of an integer .tflite file."""

from __future__ import annotations

import copy
from typing import Any

from export.backends.litert.file import name_of, pack, read, schema
from export.backends.litert.rewrite import opcode
from zoo.common.errors import UnsupportedExport

FLOAT = "float32"
UNSIGNED = 128  # what lies between the zero points of uint8 and int8


def retype(content: bytes, given: str, out: str) -> bytes:
    """Return a file with one input and one output of other dtypes, cast by operators of its own.

    Args:
        content: a file of one signature; what is neither int8, uint8 nor int16, such as ids, stays as it is.
        given: dtype of the input.
        out: dtype of the output.

    Raises:
        UnsupportedExport: no operator makes such a dtype of what is there.
    """
    model = read(content)
    graph = model.subgraphs[0]
    if _dtype(graph, graph.inputs[0]) != given and _dtype(graph, graph.inputs[0]) in CASTS:
        inner = int(graph.inputs[0])
        outer = _add(graph, inner, given)
        graph.operators.insert(0, _cast(model, outer, inner, "QUANTIZE"))
        graph.inputs = [outer]
        _point(model, "inputs", outer)
    if _dtype(graph, graph.outputs[0]) != out and _dtype(graph, graph.outputs[0]) in CASTS:
        inner = int(graph.outputs[0])
        outer = _add(graph, inner, out)
        graph.operators.append(_cast(model, inner, outer, "DEQUANTIZE" if out == FLOAT else "QUANTIZE"))
        graph.outputs = [outer]
        _point(model, "outputs", outer)
    return bytes(pack(model))


# What each dtype of a tensor can be made of, or made to.
CASTS = {"int8": ("uint8", FLOAT), "uint8": ("int8", FLOAT), "int16": (FLOAT,)}


def _dtype(graph: Any, index: int) -> str:
    """Return the dtype of a tensor."""
    types = {value: name.lower() for name, value in vars(schema.TensorType).items() if name.isupper()}
    return types[graph.tensors[index].type]


def _add(graph: Any, index: int, dtype: str) -> int:
    """Add a tensor that holds in another dtype what one holds, under its name, and return its index."""
    inner = graph.tensors[index]
    if dtype not in CASTS[_dtype(graph, index)]:
        raise UnsupportedExport(f"LiteRT has no cast for it. Received: {_dtype(graph, index)} and {dtype}")
    outer = copy.deepcopy(inner)
    inner.name = f"{name_of(inner)}_stored".encode()
    outer.type, outer.buffer = getattr(schema.TensorType, dtype.upper()), 0
    if dtype == FLOAT:
        outer.quantization = None
    else:
        shift = UNSIGNED if dtype == "uint8" else -UNSIGNED
        outer.quantization.zeroPoint = [int(point) + shift for point in inner.quantization.zeroPoint]
    graph.tensors.append(outer)
    return len(graph.tensors) - 1


def _cast(model: Any, given: int, out: int, kind: str) -> Any:
    """Return an operator that casts a tensor to another."""
    operator = schema.OperatorT()
    # From the second version on it takes int8.
    operator.opcodeIndex, operator.inputs, operator.outputs = opcode(model, kind, 2), [given], [out]
    return operator


def _point(model: Any, side: str, index: int) -> None:
    """Let the signature name another tensor."""
    for signature in model.signatureDefs:
        (entry,) = getattr(signature, side)
        entry.tensorIndex = index
