"""Reads the graph and the variables of a SavedModel folder without loading or running it."""

from __future__ import annotations

import collections
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from export.backends.tensorflow.safety import called_functions, read_message
from export.core import compat
from export.core.artifact_graph import ArtifactGraph, Operator, Value, Weight
from zoo.common.errors import DataError
from zoo.common.graphs import check_calls, check_unique, topological_order
from zoo.common.lazy import np, tf

SIGNATURE = "serving_default"
OBJECTS = "_CHECKPOINTABLE_OBJECT_GRAPH"
VALUE = "/.ATTRIBUTES/VARIABLE_VALUE"
WEIGHTED = {"Conv2D", "Conv3D", "DepthwiseConv2dNative", "MatMul", "BatchMatMulV2", "Einsum", "Conv2DBackpropInput"}
CALLS = {"PartitionedCall", "StatefulPartitionedCall", "While", "StatelessWhile", "If", "StatelessIf"}
BACK_EDGES = {"NextIteration", "RefNextIteration"}
# Operators that move or hold values and compute nothing.
PLUMBING = {"Const", "Identity", "IdentityN", "NoOp", "Placeholder", "ReadVariableOp", "VarHandleOp", "_Arg", "_Retval"}
PLUMBING |= CALLS


def read(path: Path) -> ArtifactGraph:
    """Return the graph of a folder; raises DataError, or an error of the parser, if it is no SavedModel."""
    content = read_message(path)
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
    check_unique((function.signature.name for function in graph.library.function), "functions named")
    nodes = _ordered(graph.node, set())
    waiting = collections.deque(nodes[name] for name in _reached(nodes, signature))
    calls: dict[str, list[str]] = {}
    found = []
    while waiting:
        node = waiting.popleft()
        for name in called_functions(node):
            if name in functions and name not in calls:
                body = functions[name]
                nodes = _ordered(body.node_def, {argument.name for argument in body.signature.input_arg})
                calls[name] = [other for inner in nodes.values() for other in called_functions(inner)]
                waiting.extend(nodes.values())
        if node.op not in PLUMBING:
            computes = node.op in WEIGHTED
            found.append(
                Operator(node.op, node.name, False if computes else None, True, unsupported=not _is_known(node.op))
            )
    check_calls(calls, "function")
    return found


def _ordered(nodes: Sequence[Any], given: set[str]) -> dict[str, Any]:
    """Return the nodes of a graph by their names, in the order of the file.

    Args:
        nodes: the nodes.
        given: the names of the arguments of a function.

    Raises:
        DataError: a name is missing or occurs twice, or the graph has a cycle without a loop operator of TensorFlow 1.
    """
    check_unique((node.name for node in nodes), "nodes named")
    places = {node.name: place for place, node in enumerate(nodes)}
    before = []
    for node in nodes:
        read = [_node_of(name) for name in node.input]
        lost = next((name for name in read if name not in places and name not in given), None)
        if lost is not None:
            raise DataError(f"no node computes {lost[:80]!r}")
        # The value of the previous turn of a loop comes from a later node.
        before.append([places[n] for n in read if n in places and nodes[places[n]].op not in BACK_EDGES])
    topological_order(before, lambda place: repr(nodes[place].name))
    return {node.name: node for node in nodes}


def _node_of(name: str) -> str:
    """Return the node of an input: "node", "node:1", "node:output:0" or "^node"."""
    return name.lstrip("^").partition(":")[0]


def _reached(nodes: Mapping[str, Any], signature: Any) -> list[str]:
    """Return the nodes of the main graph that the outputs of a signature need."""
    waiting, found = [_node_of(value.name) for value in signature.outputs.values()], {}
    while waiting:
        name = waiting.pop()
        if name in nodes and name not in found:
            found[name] = None
            waiting.extend(map(_node_of, nodes[name].input))
    lost = [value.name for value in signature.outputs.values() if _node_of(value.name) not in nodes]
    if lost:
        raise DataError(f"no node computes {lost[0][:80]!r}")
    return list(found)


def _is_known(kind: str) -> bool:
    """Return whether an operator is one of TensorFlow's; internal ones start with an underscore."""
    return kind.startswith("_") or hasattr(tf.raw_ops, kind)


def _weights(path: Path) -> list[Weight]:
    """Return the variables."""
    if not (path / "variables" / "variables.index").is_file():
        return []
    reader = tf.train.load_checkpoint(str(path / "variables" / "variables"))
    _check_declared(reader, path)
    names = _names(reader)
    weights = []
    for key in sorted(reader.get_variable_to_shape_map()):
        array = None if key == OBJECTS else reader.get_tensor(key)
        if isinstance(array, np.ndarray) and array.dtype.kind in "fiuV" and key.endswith(VALUE):
            weights.append(Weight(names.get(key) or key.removesuffix(VALUE), array.dtype.name, array.shape, array))
    return weights


def _check_declared(reader: Any, path: Path) -> None:
    """Raise DataError if the variables are declared larger than the files of their values."""
    dtypes, shapes = reader.get_variable_to_dtype_map(), reader.get_variable_to_shape_map()
    declared = sum(math.prod(shape) * max(1, dtypes[key].size) for key, shape in shapes.items())
    size = sum(file.stat().st_size for file in (path / "variables").glob("variables.data-*"))
    if declared > size:
        raise DataError(f"its variables declare {declared:,} bytes, and their files have {size:,}")


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
