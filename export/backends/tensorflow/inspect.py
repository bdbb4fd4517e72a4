"""Reads the graph and the variables of a SavedModel folder without loading or running it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from export.core import compat
from export.core.artifact_graph import ArtifactGraph, Operator, Value, Weight
from zoo.common.errors import DataError
from zoo.common.lazy import np, tf

SIGNATURE = "serving_default"
OBJECTS = "_CHECKPOINTABLE_OBJECT_GRAPH"
VALUE = "/.ATTRIBUTES/VARIABLE_VALUE"
WEIGHTED = {"Conv2D", "Conv3D", "DepthwiseConv2dNative", "MatMul", "BatchMatMulV2", "Einsum", "Conv2DBackpropInput"}
CALLS = {"PartitionedCall", "StatefulPartitionedCall", "While", "StatelessWhile", "If", "StatelessIf"}
# Operators that move or hold values and compute nothing.
PLUMBING = {"Const", "Identity", "IdentityN", "NoOp", "Placeholder", "ReadVariableOp", "VarHandleOp", "_Arg", "_Retval"}
PLUMBING |= CALLS


def read(path: Path) -> ArtifactGraph:
    """Return the graph of a folder; raises DataError, or an error of the parser, if it is no SavedModel."""
    file = path / "saved_model.pb"
    if not file.is_file():
        raise DataError("it has no saved_model.pb")
    content = compat.saved_model_message()
    content.ParseFromString(file.read_bytes())
    if not content.meta_graphs or not content.meta_graphs[0].signature_def:
        raise DataError("it has no signatures")
    graph = content.meta_graphs[0]
    signatures = {key: value for key, value in graph.signature_def.items() if value.outputs}
    if not signatures:
        raise DataError("its signatures have no outputs")
    chosen = signatures.get(SIGNATURE) or signatures[min(signatures)]
    operators = _operators(graph.graph_def, chosen)
    inputs, outputs = (_values(side) for side in (chosen.inputs, chosen.outputs))
    return ArtifactGraph("saved_model", operators, _weights(path), inputs, outputs)


def _operators(graph: Any, signature: Any) -> list[Operator]:
    """Return the operators of a signature, in no particular order; those of a function once."""
    functions = {function.signature.name: function for function in graph.library.function}
    nodes = {node.name: node for node in graph.node}
    waiting = [nodes[name] for name in _reached(nodes, signature)]
    found, seen = [], set()
    while waiting:
        node = waiting.pop(0)
        for name in _called(node):
            if name in functions and name not in seen:
                seen.add(name)
                waiting.extend(functions[name].node_def)
        if node.op not in PLUMBING:
            computes = node.op in WEIGHTED
            found.append(
                Operator(node.op, node.name, False if computes else None, True, unsupported=not _is_known(node.op))
            )
    return found


def _reached(nodes: Mapping[str, Any], signature: Any) -> list[str]:
    """Return the nodes of the main graph that the outputs of a signature need."""
    waiting, found = [value.name for value in signature.outputs.values()], {}
    while waiting:
        name = waiting.pop().lstrip("^").partition(":")[0]
        if name in nodes and name not in found:
            found[name] = None
            waiting.extend(nodes[name].input)
    return list(found)


def _called(node: Any) -> list[str]:
    """Return the functions that a node calls."""
    values = node.attr.values()
    return [value.func.name for value in values if value.HasField("func")] + [
        function.name for value in values if value.HasField("list") for function in value.list.func
    ]


def _is_known(kind: str) -> bool:
    """Return whether an operator is one of TensorFlow's; internal ones start with an underscore."""
    return kind.startswith("_") or hasattr(tf.raw_ops, kind)


def _weights(path: Path) -> list[Weight]:
    """Return the variables."""
    if not (path / "variables" / "variables.index").is_file():
        return []
    reader = tf.train.load_checkpoint(str(path / "variables" / "variables"))
    names = _names(reader)
    weights = []
    for key in sorted(reader.get_variable_to_shape_map()):
        array = None if key == OBJECTS else reader.get_tensor(key)
        if isinstance(array, np.ndarray) and array.dtype.kind in "fiuV" and key.endswith(VALUE):
            weights.append(Weight(names.get(key) or key.removesuffix(VALUE), array.dtype.name, array.shape, array))
    return weights


def _names(reader: Any) -> dict[str, str]:
    """Return the names of the variables, by their checkpoint keys."""
    if OBJECTS not in reader.get_variable_to_shape_map():
        return {}
    graph = compat.object_graph_message()
    graph.ParseFromString(reader.get_tensor(OBJECTS))
    attributes = [attribute for node in graph.nodes for attribute in node.attributes]
    return {attribute.checkpoint_key: attribute.full_name for attribute in attributes}


def _values(side: Mapping[str, Any]) -> list[Value]:
    """Return the inputs or outputs of a signature."""
    return [
        Value(name, tuple(None if d.size < 0 else d.size for d in info.tensor_shape.dim), tf.as_dtype(info.dtype).name)
        for name, info in sorted(side.items())
    ]
