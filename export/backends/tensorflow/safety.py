"""Inspect a SavedModel before TensorFlow loads it: loading runs its initializers, and calling it runs its functions."""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from export.backends.tensorflow.operators import CHECKPOINT, PURE, TABLE_FILE
from export.core import compat
from zoo.common.errors import DataError, RunError
from zoo.reading.data_files import read_graph
from zoo.reading.files import kind_of

CONSTANT = "Const"
FILE, FINGERPRINT = "saved_model.pb", "fingerprint.pb"


def read_message(folder: Path) -> Any:
    """Return the protobuf message of a SavedModel; raises DataError, or an error of the parser, if it is none."""
    file = folder / FILE
    if not file.is_file():
        raise DataError(f"it has no {FILE}")
    for path in folder.rglob("*"):
        kind = kind_of(path.stat().st_mode)
        if kind and not path.is_dir():
            raise DataError(f"{path.name} is {kind}")
    content = compat.saved_model_message()
    content.ParseFromString(read_graph(file))
    # TensorFlow would log a traceback, and go on.
    fingerprint = folder / FINGERPRINT
    if fingerprint.is_file():
        compat.fingerprint_message().ParseFromString(read_graph(fingerprint))
    return content


def check_operators(folder: Path) -> None:
    """Refuse a SavedModel with an operator that does more than compute, in any graph or function, used or not.

    Only the protobuf message is read: no operator runs, and TensorFlow opens no session.

    Args:
        folder: the version folder.

    Raises:
        RunError: an operator is not on the allow-list of `export.backends.tensorflow.operators`, a lookup table reads
            another file than an asset, or the model is not one of TensorFlow 2.
        DataError: it has no message, or a constant whose value has another type; the parser raises its own errors for a
            damaged one.
    """
    content = read_message(folder)
    if len(content.meta_graphs) != 1 or not content.meta_graphs[0].object_graph_def.nodes:
        # TensorFlow runs the initial operators of other models from their main graph.
        raise RunError(
            f"Expected a SavedModel of TensorFlow 2, with one graph. Received: {folder} with "
            f"{len(content.meta_graphs)} graphs. Save it with tf.saved_model.save."
        )
    graph = content.meta_graphs[0]
    functions = {function.signature.name: function for function in graph.graph_def.library.function}
    saving = _only_for_checkpoints(graph, functions)
    inner = {name for function in functions.values() for node in function.node_def for name in called_functions(node)}
    _check("the main graph", graph.graph_def.node, PURE, folder)
    for function in graph.graph_def.library.function:  # a name may occur twice
        name = function.signature.name
        allowed = CHECKPOINT if name in saving else PURE
        if any(node.op == TABLE_FILE for node in function.node_def):
            _check_table(function, graph, inner, folder)
            allowed |= {TABLE_FILE}
        _check(f"the function {name}", function.node_def, allowed, folder)


def _check(where: str, nodes: Iterable[Any], allowed: Iterable[str], folder: Path) -> None:
    """Raise RunError for the first operator that is not allowed."""
    for node in nodes:
        if node.op not in allowed:
            raise _refusal(folder, f"the operator {node.op[:100]} in {where[:200]}")
        if node.op == CONSTANT and node.attr["dtype"].type != node.attr["value"].tensor.dtype:
            # TensorFlow reads the value before it compares, and aborts the process.
            raise DataError(f"the constant {node.name[:100]!r} in {where[:200]} has a value of another type")


def _refusal(folder: Path, found: str) -> RunError:
    return RunError(
        f"A SavedModel must only compute. Received: {folder} with {found}. It was not loaded: such an operator can "
        "read or write files, or run code. Get the model from a source that you trust."
    )


def called_functions(node: Any) -> list[str]:
    """Return the names of the functions that a node calls."""
    values = node.attr.values()
    return [value.func.name for value in values if value.HasField("func")] + [
        function.name for value in values if value.HasField("list") for function in value.list.func
    ]


def _only_for_checkpoints(graph: Any, functions: Mapping[str, Any]) -> set[str]:
    """Return the functions that only the nodes of the saver call: neither a signature nor an object reaches them."""
    saver = {graph.saver_def.save_tensor_name.partition(":")[0], graph.saver_def.restore_op_name}
    by_saver, by_others = [], list(graph.object_graph_def.concrete_functions)
    for node in graph.graph_def.node:
        (by_saver if node.name in saver else by_others).extend(called_functions(node))
    return _closure(by_saver, functions) - _closure(by_others, functions)


def _closure(names: Iterable[str], functions: Mapping[str, Any]) -> set[str]:
    """Return functions and those that they call, at any depth."""
    waiting, found = list(names), set()
    while waiting:
        name = waiting.pop()
        if name in functions and name not in found:
            found.add(name)
            waiting.extend(other for node in functions[name].node_def for other in called_functions(node))
    return found


def _check_table(function: Any, graph: Any, called: Container[str], folder: Path) -> None:
    """Raise RunError unless a lookup table is read from an asset: from a captured file inside the folder of assets.

    Args:
        function: reads a table.
        graph: the graph that it is in.
        called: the functions that others call, with files of their choice.
        folder: the version folder, for the message.
    """
    name = function.signature.name
    captured = list(graph.object_graph_def.concrete_functions[name].bound_inputs) if _is_object(graph, name) else []
    arguments = [argument.name for argument in function.signature.input_arg][-len(captured) or None :]
    objects = graph.object_graph_def.nodes
    kinds = {name: objects[i].WhichOneof("kind") for name, i in zip(arguments, captured, strict=False)}
    files = {argument for argument, kind in kinds.items() if kind == "asset"}
    read = [node.input[1] for node in function.node_def if node.op == TABLE_FILE and len(node.input) > 1]
    if name in called or not read or not set(read) <= files or not all(map(_is_name, _asset_names(graph))):
        raise _refusal(folder, f"a lookup table in the function {name[:200]} that reads another file than an asset")


def _is_object(graph: Any, name: str) -> bool:
    return name in graph.object_graph_def.concrete_functions


def _asset_names(graph: Any) -> Iterator[str]:
    return (asset.filename for asset in graph.asset_file_def)


def _is_name(file: str) -> bool:
    """Return whether a path is one in the folder of assets."""
    parts = (*PurePosixPath(file).parts, *PureWindowsPath(file).parts)
    return (
        bool(file) and ".." not in parts and not PurePosixPath(file).is_absolute() and not PureWindowsPath(file).anchor
    )
