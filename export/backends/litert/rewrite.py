"""Operators of a float32 .tflite file written as others that have kernels where these have none."""

from __future__ import annotations

import copy
from typing import Any

from export.backends.litert.file import name_of, operator_name, pack, read, schema

SQUARED = "SQUARED_DIFFERENCE"


def multiply_differences(content: bytes) -> bytes:
    """Return a file whose squared differences, as in layer normalization, are differences times themselves."""
    model = read(content)
    for graph in model.subgraphs:
        operators = []
        for operator in graph.operators:
            found = operator_name(model, operator) == SQUARED
            operators += _as_product(model, graph, operator) if found else [operator]
        graph.operators = operators
    return bytes(pack(model))


def _as_product(model: Any, graph: Any, operator: Any) -> list[Any]:
    """Return the operators that stand for a squared difference."""
    (out,) = operator.outputs
    difference = copy.deepcopy(graph.tensors[out])
    difference.name = f"{name_of(difference)}/difference".encode()
    graph.tensors.append(difference)
    place = len(graph.tensors) - 1
    return [
        _operator(model, "Sub", list(operator.inputs), place),
        _operator(model, "Mul", [place, place], out),
    ]


def _operator(model: Any, kind: str, given: list[int], out: int) -> Any:
    """Return an operator without activation."""
    made = schema.OperatorT()
    made.opcodeIndex, made.inputs, made.outputs = opcode(model, kind.upper()), given, [out]
    made.builtinOptionsType = getattr(schema.BuiltinOptions, f"{kind}Options")
    made.builtinOptions = getattr(schema, f"{kind}OptionsT")()
    return made


def opcode(model: Any, kind: str, version: int = 1) -> int:
    """Return the place of an operator among those that a file names, where it is added if it is missing."""
    code = getattr(schema.BuiltinOperator, kind)
    found = [i for i, entry in enumerate(model.operatorCodes) if entry.builtinCode == code]
    if not found:
        entry = schema.OperatorCodeT()
        entry.builtinCode = entry.deprecatedBuiltinCode = code
        entry.version = version
        model.operatorCodes.append(entry)
        found = [len(model.operatorCodes) - 1]
    return found[0]
