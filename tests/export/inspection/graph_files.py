"""Writes small model files by hand: graphs with cycles, ladders, long chains, and indices out of range."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np


def onnx_model(nodes: list[tuple], outputs: tuple[str, ...] = ("y",), **more: Any) -> Any:
    """An ONNX model of nodes (type, inputs, outputs, attributes)."""
    from onnx import helper

    made = [helper.make_node(kind, list(read), list(made), **dict(*options)) for kind, read, made, *options in nodes]
    inputs = [helper.make_tensor_value_info("x", 1, [1, 4])]
    returned = [helper.make_tensor_value_info(name, 1, [1, 4]) for name in outputs]
    return helper.make_model(helper.make_graph(made, "g", inputs, returned), **more)


def branch(nodes: list[tuple], output: str) -> Any:
    """A graph without inputs, for the branches of an If."""
    model = onnx_model(nodes, (output,))
    del model.graph.input[:]
    return model.graph


def tflite_model(operators: list[tuple[list[int], list[int]]], tensors: int, outputs: list[int]) -> Any:
    """A .tflite model of RELU operators (inputs, outputs) on float tensors (1, 4); tensor 0 is its input."""
    from export.core.compat import schema

    model = schema.ModelT()
    model.version, model.description = 3, "test"
    code = schema.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.RELU
    model.operatorCodes, model.buffers = [code], [schema.BufferT()]
    graph = schema.SubGraphT()
    graph.name, graph.tensors, graph.operators = "main", [], []
    for number in range(tensors):
        tensor = schema.TensorT()
        tensor.name, tensor.shape, tensor.type = f"t{number}", np.array([1, 4], "int32"), 0
        tensor.buffer = 0
        graph.tensors.append(tensor)
    for read, made in operators:
        operator = schema.OperatorT()
        operator.opcodeIndex = 0
        operator.inputs, operator.outputs = np.array(read, "int32"), np.array(made, "int32")
        graph.operators.append(operator)
    graph.inputs, graph.outputs = np.array([0], "int32"), np.array(outputs, "int32")
    model.subgraphs, model.signatureDefs, model.metadata = [graph], [], []
    return model


def write_tflite(model: Any, path: Path) -> Path:
    """Write a .tflite model."""
    from export.backends.litert import file as litert

    path.write_bytes(bytes(litert.pack(model)))
    return path


def write_saved_model(nodes: list[tuple[str, str, list[str]]], folder: Path, functions: Any = ()) -> Path:
    """Write a SavedModel of nodes (name, operator, inputs) with the output "y", and of functions (name, nodes)."""
    from export.core import compat

    content = compat.saved_model_message()
    graph = content.meta_graphs.add()
    for name, kind, read in nodes:
        _add_node(graph.graph_def.node, name, kind, read)
    for name, body in functions:
        function = graph.graph_def.library.function.add()
        function.signature.name = name
        for inner, kind, read in body:
            _add_node(function.node_def, inner, kind, read)
    signature = graph.signature_def["serving_default"]
    signature.outputs["y"].name = "y:0"
    signature.outputs["y"].dtype = 1
    folder.mkdir(exist_ok=True)
    (folder / "saved_model.pb").write_bytes(content.SerializeToString())
    return folder


def _add_node(nodes: Any, name: str, kind: str, read: list[str]) -> None:
    node = nodes.add()
    node.name, node.op = name, kind.partition(">")[0]
    node.input.extend(read)
    if ">" in kind:
        node.attr["f"].func.name = kind.partition(">")[2]


def write_openvino(layers: list[str], edges: list[tuple[int, int]], path: Path) -> Path:
    """Write an OpenVINO model of layers by type."""
    made = "".join(f'<layer id="{i}" name="l{i}" type="{kind}" version="opset1"/>' for i, kind in enumerate(layers))
    drawn = "".join(f'<edge from-layer="{a}" from-port="0" to-layer="{b}" to-port="0"/>' for a, b in edges)
    path.write_text(f'<net name="m" version="11"><layers>{made}</layers><edges>{drawn}</edges></net>')
    path.with_suffix(".bin").write_bytes(b"")
    return path


def write_keras(layers: list[dict], path: Path) -> Path:
    """Write a .keras file of layers, without weights."""
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("config.json", json.dumps({"config": {"layers": layers}}))
    return path


def keras_layer(name: str, *read: str, kind: str = "ReLU") -> dict:
    """A layer of Keras 3 that reads others."""
    tensors = [{"class_name": "__keras_tensor__", "config": {"keras_history": [other, 0, 0]}} for other in read]
    calls = [{"args": tensors, "kwargs": {}}] if read else []
    return {
        "class_name": kind,
        "name": name,
        "module": "keras.layers",
        "config": {"name": name},
        "inbound_nodes": calls,
    }
