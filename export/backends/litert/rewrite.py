"""Rewrites of operators in a float32 .tflite file to operators with integer kernels."""

from __future__ import annotations

import copy
from typing import Any

from export.backends.litert.file import name_of, operator_name, pack, read
from export.core.compat import schema

SQUARED = "SQUARED_DIFFERENCE"


def square_by_product(content: bytes) -> bytes:
    """Return a file with squared differences, as in layer normalization, rewritten as SUB and MUL."""
    model = read(content)
    for graph in model.subgraphs:
        operators = []
        for operator in graph.operators:
            squared = operator_name(model, operator) == SQUARED
            operators += _as_product(model, graph, operator) if squared else [operator]
        graph.operators = operators
    return bytes(pack(model))


def _as_product(model: Any, graph: Any, operator: Any) -> list[Any]:
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


def _operator(model: Any, kind: str, inputs: list[int], output: int) -> Any:
    """Return an operator without activation."""
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
