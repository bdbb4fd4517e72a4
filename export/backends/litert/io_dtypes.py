"""The dtypes of the input and output of an integer .tflite file."""

from __future__ import annotations

import copy
from typing import Any

from export.backends.litert.file import name_of, pack, read
from export.backends.litert.rewrite import opcode
from export.core.compat import schema
from zoo.common.errors import UnsupportedExport

FLOAT = "float32"
UNSIGNED = 128  # difference of the zero points of uint8 and int8


def retype(content: bytes, input_dtype: str, output_dtype: str) -> bytes:
    """Return a file with other dtypes of its input and outputs, by inserted casts.

    Args:
        content: a file of one signature; only int8, uint8 and int16 inputs and outputs change, ids do not.
        input_dtype: dtype of the input.
        output_dtype: dtype of the outputs.

    Raises:
        UnsupportedExport: LiteRT has no such cast.
    """
    model = read(content)
    graph = model.subgraphs[0]
    if _dtype(graph, graph.inputs[0]) != input_dtype and _dtype(graph, graph.inputs[0]) in CASTS:
        inner = int(graph.inputs[0])
        outer = _add(graph, inner, input_dtype)
        graph.operators.insert(0, _cast(model, outer, inner, "QUANTIZE"))
        graph.inputs = [outer]
        _point(model, "inputs", inner, outer)
    for place, index in enumerate(map(int, graph.outputs)):
        if _dtype(graph, index) != output_dtype and _dtype(graph, index) in CASTS:
            outer = _add(graph, index, output_dtype)
            kind = "DEQUANTIZE" if output_dtype == FLOAT else "QUANTIZE"
            graph.operators.append(_cast(model, index, outer, kind))
            graph.outputs[place] = outer
            _point(model, "outputs", index, outer)
    return bytes(pack(model))


# Casts that LiteRT has, in both directions.
CASTS = {"int8": ("uint8", FLOAT), "uint8": ("int8", FLOAT), "int16": (FLOAT,)}


def _dtype(graph: Any, index: int) -> str:
    """Return the dtype of a tensor."""
    types = {value: name.lower() for name, value in vars(schema.TensorType).items() if name.isupper()}
    return types[graph.tensors[index].type]


def _add(graph: Any, index: int, dtype: str) -> int:
    """Add a tensor with another dtype under the name of an existing one; return its index."""
    inner = graph.tensors[index]
    if dtype not in CASTS[_dtype(graph, index)]:
        casts = " or ".join(CASTS[_dtype(graph, index)])
        raise UnsupportedExport(f"LiteRT casts {_dtype(graph, index)} to {casts}. Received: dtype={dtype!r}")
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


def _cast(model: Any, source: int, target: int, kind: str) -> Any:
    """Return an operator that casts one tensor to another."""
    operator = schema.OperatorT()
    # Version 2 and later support int8.
    operator.opcodeIndex, operator.inputs, operator.outputs = opcode(model, kind, 2), [source], [target]
    return operator


def _point(model: Any, side: str, before: int, index: int) -> None:
    """Point the signature to another tensor in the place of one."""
    for signature in model.signatureDefs:
        for entry in getattr(signature, side):
            if int(entry.tensorIndex) == before:
                entry.tensorIndex = index
