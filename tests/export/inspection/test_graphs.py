"""Graphs of model files that never end, repeat themselves or name what is not there: one line, in linear time."""

from __future__ import annotations

import importlib.util
import itertools
import struct
import time
from pathlib import Path

import pytest

from export.inspection.inspect import inspect
from zoo.common.errors import DataError
from zoo.common.graphs import topological_order

_spec = importlib.util.spec_from_file_location("graph_files", Path(__file__).with_name("graph_files.py"))
made = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(made)

LONG = 20_000  # nodes of a chain; 100,000 take five times as long


def write_onnx(model, path):
    """Write an ONNX model without checks."""
    path.write_bytes(model.SerializeToString())
    return path


def refused(path, reason):
    """Inspect a file, which must be refused for a reason in one line."""
    with pytest.raises(DataError, match=reason) as error:
        inspect(path)
    assert "\n" not in str(error.value)
    assert str(path) in str(error.value)


def inner(nodes, output="z"):
    """An If with two branches of these nodes."""
    graph = made.branch(nodes, output)
    return ("If", ["x"], ["y"], {"then_branch": graph, "else_branch": graph})


@pytest.mark.parametrize(("nodes", "reason"), [
    ([("Identity", ["a"], ["a"]), ("Relu", ["a"], ["y"])], "cycle: 'a'"),
    ([("Relu", ["b"], ["a"]), ("Add", ["a", "x"], ["b"]), ("Relu", ["b"], ["y"])], "cycle"),
    ([("Relu", ["y"], ["w"]), inner([("Relu", ["w"], ["z"])])], "cycle"),
    ([inner([("Relu", ["z"], ["w"]), ("Relu", ["w"], ["z"])])], "cycle"),
    ([("Relu", ["nowhere"], ["y"])], "no node computes 'nowhere'"),
    ([inner([("Relu", ["nowhere"], ["z"])])], "no node computes 'nowhere'"),
    ([inner([("Relu", ["x"], ["w"])])], "no node computes 'z'"),
    ([("Relu", ["x"], ["y"]), ("Tanh", ["x"], ["y"])], "output 'y'"),
    ([("Split", ["x"], ["y", "y"])], "output 'y'"),
    ([("Relu", ["x"], ["x"]), ("Relu", ["x"], ["y"])], "output 'x'"),
])  # fmt: skip
def test_wrong_onnx_graphs_are_refused(nodes, reason, tmp_path):
    """Cycles, also through branches, values that nothing computes, and values that two nodes compute."""
    refused(write_onnx(made.onnx_model(nodes), tmp_path / "m.onnx"), reason)


def test_recursive_onnx_functions_are_refused(tmp_path):
    """A function that calls itself through another; a chain of functions is read."""
    from onnx import helper

    def functions(last):
        kinds = ["f0", "f1", "f2", last]
        return [
            helper.make_function("own", a, ["p"], ["q"], [helper.make_node(b, ["p"], ["q"], domain="own")], [])
            for a, b in itertools.pairwise(kinds)
        ]

    nodes = [("f0", ["x"], ["y"], {"domain": "own"})]
    refused(write_onnx(made.onnx_model(nodes, functions=functions("f1")), tmp_path / "m.onnx"), "cycle: the function")
    found = inspect(write_onnx(made.onnx_model(nodes, functions=functions("f9")), tmp_path / "m.onnx"))
    assert found.operators == {"own.f0": 1}


def test_any_order_and_nested_graphs_are_read(tmp_path):
    """Nodes in the wrong order, and branches at the depth that protobuf reads, are no error."""
    graph = made.branch([("Relu", ["x"], ["z"])], "z")
    for _ in range(28):
        graph = made.branch([("If", ["x"], ["z"], {"then_branch": graph})], "z")
    model = made.onnx_model([("Relu", ["z"], ["y"])])
    model.graph.node.extend(graph.node)
    assert inspect(write_onnx(model, tmp_path / "m.onnx")).operators == {"If": 28, "Relu": 2}


def test_ladders_take_linear_time(tmp_path):
    """40 levels of Split and Concat between quantizations have a trillion paths; the result is that of 2 levels."""
    found = {}
    for levels in (2, 40):
        nodes = [("DequantizeLinear", ["x", "x"], ["n0"])]
        for i in range(levels):
            nodes += [("Split", [f"n{i}"], [f"a{i}", f"b{i}"]), ("Concat", [f"a{i}", f"b{i}"], [f"n{i + 1}"])]
        nodes += [("Softmax", [f"n{levels}"], ["m0"])]
        for i in range(levels):
            nodes += [("Split", [f"m{i}"], [f"c{i}", f"d{i}"]), ("Concat", [f"c{i}", f"d{i}"], [f"m{i + 1}"])]
        nodes += [("QuantizeLinear", [f"m{levels}", "x"], ["y"])]
        begin = time.monotonic()
        found[levels] = inspect(write_onnx(made.onnx_model(nodes), tmp_path / "m.onnx")).int8_operators
        assert time.monotonic() - begin < 2
    assert found == {2: 1.0, 40: 1.0}


def test_one_float_reader_among_many_counts(tmp_path):
    """Negative control: a reader without quantization at the end of the ladder makes the operator a float one."""
    nodes = [("DequantizeLinear", ["x", "x"], ["n"]), ("Softmax", ["n"], ["m"]), ("Split", ["m"], ["a", "b"])]
    nodes += [("QuantizeLinear", ["a", "x"], ["y"]), ("Exp", ["b"], ["z"])]
    found = inspect(write_onnx(made.onnx_model(nodes, ("y", "z")), tmp_path / "m.onnx"))
    assert found.int8_operators == 0.0
    assert found.float_fallback == ()


def chains(folder, length):
    """Yield files with a chain of so many operators in each format."""
    places = range(length)
    chain = [("Relu", [f"n{i}"], [f"n{i + 1}"]) for i in places]
    nodes = [("Identity", ["x"], ["n0"]), *chain, ("Identity", [f"n{length}"], ["y"])]
    yield write_onnx(made.onnx_model(nodes), folder / "m.onnx")
    yield write_onnx(made.onnx_model([nodes[0], *chain[::-1], nodes[-1]]), folder / "reversed.onnx")
    few = length // 4  # flatbuffers reads a thousand operators in 0.1 s
    operators = [([i], [i + 1]) for i in range(few)]
    yield made.write_tflite(made.tflite_model(operators, few + 1, [few]), folder / "m.tflite")
    layers = ["ReLU"] * (length + 1)
    yield made.write_openvino(layers, [(i + 1, i) for i in places], folder / "m.xml")
    layers = [made.keras_layer("l0"), *(made.keras_layer(f"l{i + 1}", f"l{i}") for i in places)]
    yield made.write_keras(layers, folder / "m.keras")


@pytest.mark.parametrize(("length", "seconds"), [(LONG // 4, 5), pytest.param(LONG, 10, marks=pytest.mark.slow)])
def test_long_chains_take_linear_time(length, seconds, tmp_path):
    """Chains of thousands of operators in every format, sorted and reversed, each within seconds."""
    for path in chains(tmp_path, length):
        begin = time.monotonic()
        assert sum(inspect(path).operators.values()) >= length // 4
        assert time.monotonic() - begin < seconds, path


def changed(change, operators=(([0], [1]), ([1], [2])), tensors=3, outputs=(2,)):
    """A .tflite model that a function changed."""
    model = made.tflite_model(list(operators), tensors, list(outputs))
    change(model)
    return model


def set_field(*path):
    """Return a function that sets a field of a model: names and indices, then the value."""

    def change(model):
        place = model
        for part in path[:-2]:
            place = place[part] if isinstance(part, int) else getattr(place, part)
        if isinstance(path[-2], int):
            place[path[-2]] = path[-1]
        else:
            setattr(place, path[-2], path[-1])

    return change


GRAPH = ("subgraphs", 0)
WRONG_TFLITE = {
    "input": (set_field(*GRAPH, "operators", 0, "inputs", 0, 77), "names number 77 of 3 tensors"),
    "negative": (set_field(*GRAPH, "operators", 0, "inputs", 0, -5), "names number -5 of 3 tensors"),
    "output": (set_field(*GRAPH, "operators", 1, "outputs", 0, 77), "names number 77 of 3 tensors"),
    "graph output": (set_field(*GRAPH, "outputs", 0, -1), "names number -1 of 3 tensors"),
    "buffer": (set_field(*GRAPH, "tensors", 0, "buffer", 9), "names number 9 of 1 buffers"),
    "code": (set_field(*GRAPH, "operators", 0, "opcodeIndex", 9), "names number 9 of 1 operator codes"),
    "size": (set_field(*GRAPH, "tensors", 1, "shape", 1, -4), "negative size -4"),
    "cycle": (set_field(*GRAPH, "operators", 0, "inputs", 0, 1), "which no earlier operator computes"),
    "order": (set_field(*GRAPH, "operators", 0, "inputs", 0, 2), "which no earlier operator computes"),
    "twice": (set_field(*GRAPH, "operators", 1, "outputs", 0, 1), "as an earlier operator does"),
    "no graphs": (set_field("subgraphs", []), "no graphs"),
}


@pytest.mark.parametrize("name", WRONG_TFLITE)
def test_wrong_tflite_graphs_are_refused(name, tmp_path):
    """Indices out of range, negative sizes, and operators that read what comes later."""
    change, reason = WRONG_TFLITE[name]
    refused(made.write_tflite(changed(change), tmp_path / "m.tflite"), reason)


def test_correct_tflite_graphs_are_read(tmp_path):
    """Negative control, with an optional input (-1), a free size, and an empty constant."""
    import numpy as np

    def change(model):
        graph = model.subgraphs[0]
        graph.operators[0].inputs = np.array([0, -1, 3], "int32")
        graph.tensors[0].shapeSignature = np.array([-1, 4], "int32")
        graph.tensors[3].shape = np.array([0], "int32")

    found = inspect(made.write_tflite(changed(change, tensors=4), tmp_path / "m.tflite"))
    assert (found.operators, found.inputs[0].shape) == ({"RELU": 2}, (None, 4))


def test_recursive_tflite_graphs_are_refused(tmp_path):
    """A WHILE with its own graph as its body would never end in the runtime."""
    from export.core.compat import schema

    def change(model):
        options = schema.WhileOptionsT()
        options.condSubgraphIndex = options.bodySubgraphIndex = 0
        operator = model.subgraphs[0].operators[0]
        operator.builtinOptionsType, operator.builtinOptions = schema.BuiltinOptions.WhileOptions, options

    refused(made.write_tflite(changed(change), tmp_path / "m.tflite"), "cycle: the graph")


def test_too_many_operators_are_refused(tmp_path, monkeypatch):
    """Reading them would take longer than the rest of an inspection; as many as the limit are read."""
    from export.backends.litert import checks

    path = made.write_tflite(made.tflite_model([([i], [i + 1]) for i in range(20)], 21, [20]), tmp_path / "m.tflite")
    monkeypatch.setattr(checks, "OPERATORS", 20)
    assert inspect(path).operators == {"RELU": 20}
    monkeypatch.setattr(checks, "OPERATORS", 19)
    refused(path, "20 operators")


def test_shared_parts_of_a_tflite_are_refused(tmp_path):
    """A list of 300 graphs that all are the same graph of 300 operators; 300 small graphs are read."""
    from export.core.compat import schema

    model = made.tflite_model([([0], [1])], 2, [1])
    model.subgraphs *= 300
    model.subgraphs += made.tflite_model([([i], [i + 1]) for i in range(300)], 301, [300]).subgraphs
    content = bytearray(made.write_tflite(model, tmp_path / "m.tflite").read_bytes())
    assert inspect(tmp_path / "m.tflite").operators == {"RELU": 600}
    table = schema.Model.GetRootAs(content, 0)._tab
    first = table.Vector(table.Offset(8))
    large = first + 4 * 300 + struct.unpack_from("<I", content, first + 4 * 300)[0]
    for place in range(first, first + 4 * 301, 4):
        struct.pack_into("<I", content, place, large - place)
    (tmp_path / "m.tflite").write_bytes(content)
    refused(tmp_path / "m.tflite", "share content")


@pytest.mark.parametrize(("nodes", "functions", "reason"), [
    ([("a", "Relu", ["a"]), ("y", "Identity", ["a"])], [], "cycle: 'a'"),
    ([("y", "Identity", ["^b"]), ("b", "Relu", ["y:0"])], [], "cycle"),
    ([("y", "Identity", ["nowhere"])], [], "no node computes 'nowhere'"),
    ([("z", "Const", [])], [], "no node computes 'y:0'"),
    ([("y", "Const", []), ("y", "Const", [])], [], "two nodes named 'y'"),
    ([("y", "PartitionedCall>f", [])], [("f", [("z", "PartitionedCall>f", [])])], "cycle: the function 'f'"),
    ([("y", "PartitionedCall>f", [])], [("f", [("z", "Relu", ["z"])])], "cycle: 'z'"),
])  # fmt: skip
def test_wrong_saved_models_are_refused(nodes, functions, reason, tmp_path):
    """Cycles in the graph and in functions, functions that call themselves, and names that are not there."""
    refused(made.write_saved_model(nodes, tmp_path / "m", functions), reason)


def test_long_saved_models_are_read(tmp_path):
    """A loop of TensorFlow 1, which has a back edge, a long chain, and a chain of functions."""
    nodes = [("n0", "Const", []), ("again", "NextIteration", ["y"]), ("y", "Merge", [f"n{LONG}", "again"])]
    nodes += [(f"n{i + 1}", "Relu", [f"n{i}"]) for i in range(LONG)]
    calls = [("called", "PartitionedCall>f0", []), ("y2", "Identity", ["called"])]
    functions = [(f"f{i}", [("z", f"PartitionedCall>f{i + 1}", [])]) for i in range(3000)]
    functions += [("f3000", [("z", "Tanh", ["c"]), ("c", "Const", [])])]
    nodes[2][2].append("^y2")
    begin = time.monotonic()
    found = inspect(made.write_saved_model([*nodes, *calls], tmp_path / "m", functions))
    assert (found.operators["Relu"], found.operators["Tanh"]) == (LONG, 1)
    assert time.monotonic() - begin < 30  # the import of TensorFlow included


@pytest.mark.parametrize(("edges", "reason"), [
    ([(0, 0)], "cycle: layer 0"),
    ([(0, 1), (1, 0)], "cycle"),
    ([(0, 5)], "from layer 0 to layer 5"),
])  # fmt: skip
def test_wrong_openvino_graphs_are_refused(edges, reason, tmp_path):
    """Cycles, and edges to layers that are not there."""
    refused(made.write_openvino(["ReLU", "ReLU"], edges, tmp_path / "m.xml"), reason)
    assert inspect(made.write_openvino(["ReLU", "ReLU"], [(1, 0)], tmp_path / "m.xml")).operators == {"ReLU": 2}


def test_wrong_keras_graphs_are_refused(tmp_path):
    """A cycle, also inside a nested model; a layer that is called twice in a row is none."""
    cycle = [made.keras_layer("a", "b"), made.keras_layer("b", "a")]
    nested = [{"class_name": "Functional", "name": "inner", "config": {"name": "inner", "layers": cycle}}]
    for layers in (cycle, nested):
        refused(made.write_keras(layers, tmp_path / "m.keras"), "cycle: 'a'")
    shared = made.keras_layer("b", "a")
    again = made.keras_layer("b", "b")["inbound_nodes"]
    layers = [made.keras_layer("a"), shared | {"inbound_nodes": shared["inbound_nodes"] + again}]
    assert inspect(made.write_keras(layers, tmp_path / "m.keras")).operators == {"ReLU": 2}


def test_nested_keras_models_are_read_without_recursion(tmp_path):
    """200 models inside each other."""
    layers = [made.keras_layer("inside")]
    for number in range(200):
        layers = [{"class_name": "Functional", "name": f"m{number}", "config": {"layers": layers}}]
    assert inspect(made.write_keras(layers, tmp_path / "m.keras")).operators == {"ReLU": 1}


def test_topological_order_keeps_the_given_order_where_it_fits():
    """A sorted graph is unchanged; a cycle is named."""
    assert topological_order([[], [0], [0, 1], []]) == [0, 1, 2, 3]
    assert topological_order([[2], [], [1]]) == [1, 2, 0]
    with pytest.raises(DataError, match="cycle: 1"):
        topological_order([[1], [2], [1]])
