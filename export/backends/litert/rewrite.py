"""Rewrites of operators in a float32 .tflite file to operators with integer kernels."""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection
from typing import Any

from export.backends.litert.file import name_of, operator_name, pack, read
from export.core.compat import schema
from zoo.common.lazy import np

SQUARED, SQUARE, NEGATIVE, REVERSE = "SQUARED_DIFFERENCE", "SQUARE", "NEG", "REVERSE_V2"


def rewritten(content: bytes, kinds: Collection[str]) -> bytes:
    """Return a float32 file with some operators, as in normalizations, rewritten as others that compute the same.

    Args:
        content: of the file.
        kinds: "SQUARED_DIFFERENCE", which becomes SUB and MUL, "SQUARE", MUL by itself, "NEG", MUL by -1, and
            "REVERSE_V2" along one axis of fixed size, GATHER.
    """
    model, changed = read(content), False
    for graph in model.subgraphs:
        operators = []
        for operator in graph.operators:
            kind = operator_name(model, operator)
            replaced = kind in kinds and _is_float(graph, operator)
            operators += REWRITES[kind](model, graph, operator) if replaced else [operator]
            changed |= replaced
        graph.operators = operators
    return bytes(pack(model)) if changed else content


def _is_float(graph: Any, operator: Any) -> bool:
    return graph.tensors[operator.outputs[0]].type == schema.TensorType.FLOAT32


def _square(model: Any, graph: Any, operator: Any) -> list[Any]:
    """Return the operator that replaces a square."""
    del graph
    return [_operator(model, "Mul", [operator.inputs[0]] * 2, operator.outputs[0])]


def _squared_difference(model: Any, graph: Any, operator: Any) -> list[Any]:
    """Return the operators that replace a squared difference."""
    (out,) = operator.outputs
    difference = copy.deepcopy(graph.tensors[out])
    difference.name = f"{name_of(difference)}/difference".encode()
    graph.tensors.append(difference)
    index = len(graph.tensors) - 1
    return [
        _operator(model, "Sub", list(operator.inputs), index),
        _operator(model, "Mul", [index, index], out),
    ]


def _negative(model: Any, graph: Any, operator: Any) -> list[Any]:
    """Return the operator that replaces a change of sign."""
    (out,) = operator.outputs
    factor = _constant(model, graph, f"{name_of(graph.tensors[out])}/factor", np.array([-1], "float32"))
    return [_operator(model, "Mul", [operator.inputs[0], factor], out)]


def _reverse(model: Any, graph: Any, operator: Any) -> list[Any]:
    """Return the operator that replaces the reverse order along one axis, or the same if it cannot be replaced."""
    (out,), (values, axes) = operator.outputs, operator.inputs
    data = model.buffers[graph.tensors[axes].buffer].data
    known = [] if data is None else np.frombuffer(bytes(data), "int32")
    shape = graph.tensors[values].shape
    if len(known) != 1 or shape[known[0]] < 1:
        return [operator]
    places = np.arange(shape[known[0]], dtype="int32")[::-1]
    order = _constant(model, graph, f"{name_of(graph.tensors[out])}/order", places)
    gather = _operator(model, "Gather", [values, order], out)
    gather.builtinOptions.axis = int(known[0])
    return [gather]


def _constant(model: Any, graph: Any, name: str, values: Any) -> int:
    """Add a tensor with values of one axis, float32 or int32, to a graph; returns its index."""
    buffer, tensor = schema.BufferT(), schema.TensorT()
    buffer.data = np.frombuffer(values.tobytes(), "uint8")
    model.buffers.append(buffer)
    tensor.name, tensor.shape, tensor.buffer = name.encode(), list(values.shape), len(model.buffers) - 1
    tensor.type = getattr(schema.TensorType, values.dtype.name.upper())
    graph.tensors.append(tensor)
    return len(graph.tensors) - 1


REWRITES: dict[str, Callable[[Any, Any, Any], list[Any]]] = {
    SQUARED: _squared_difference,
    SQUARE: _square,
    NEGATIVE: _negative,
    REVERSE: _reverse,
}


def type_unread(content: bytes) -> bytes:
    """Return a quantized file whose SPLIT has one type in all of its outputs.

    LiteRT Quantizer leaves an output in float32 that no operator reads, such as a gate of an unrolled recurrent layer
    in its first step.
    """
    model, changed = read(content), False
    for graph in model.subgraphs:
        used = {index for operator in graph.operators for index in operator.inputs} | set(graph.outputs)
        for operator in graph.operators:
            if operator_name(model, operator) != "SPLIT":
                continue
            source = graph.tensors[operator.inputs[1]]
            for output in (graph.tensors[index] for index in operator.outputs if index not in used):
                if output.type != source.type:
                    output.type, output.quantization, changed = source.type, copy.deepcopy(source.quantization), True
    return bytes(pack(model)) if changed else content


def _operator(model: Any, kind: str, inputs: list[int], output: int) -> Any:
    """Return an operator with the defaults of its options, such as no activation."""
    operator = schema.OperatorT()
    operator.opcodeIndex, operator.inputs, operator.outputs = opcode(model, kind.upper()), inputs, [output]
    operator.builtinOptionsType = getattr(schema.BuiltinOptions, f"{kind}Options")
    operator.builtinOptions = getattr(schema, f"{kind}OptionsT")()
    return operator


def opcode(model: Any, kind: str, version: int = 1) -> int:
    """Return the index of an operator's code in a file; adds the code if it is missing."""
    code = getattr(schema.BuiltinOperator, kind)
    found = [i for i, entry in enumerate(model.operatorCodes) if entry.builtinCode == code]
    if not found:
        entry = schema.OperatorCodeT()
        entry.builtinCode = entry.deprecatedBuiltinCode = code
        entry.version = version
        model.operatorCodes.append(entry)
        found = [len(model.operatorCodes) - 1]
    return found[0]
