"""Passes over the ONNX graphs of transformers before 8 bits: smoothed channels, tables of embeddings, blocks."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper, numpy_helper

from export.backends.onnx.blocks import quantize_blocks
from export.backends.onnx.inspect import read
from export.backends.onnx.smoothing import has_attention, smooth
from export.backends.onnx.tables import quantize_tables
from export.core.format import parse_format
from export.core.guarantees import GUARANTEES
from zoo.common.errors import BadOption

WIDTH, HIDDEN, VOCABULARY = 32, 48, 600
LOUD = 7  # a channel that is much larger than the others


def transformer(shared=False):
    """Embedding, layer normalization and two products; with `shared` the normalization has another reader."""
    rng = np.random.default_rng(0)
    gamma = np.where(np.arange(WIDTH) == LOUD, 60.0, 1.0)
    arrays = {
        "table": rng.normal(size=(VOCABULARY, WIDTH)) * rng.uniform(0.1, 9, (VOCABULARY, 1)),
        "gamma": gamma,
        "beta": rng.normal(size=WIDTH),
        "first": rng.normal(size=(WIDTH, HIDDEN)) / gamma[:, None],
        "bias": rng.normal(size=HIDDEN),
        "second": rng.normal(size=(HIDDEN, WIDTH)),
    }
    initializers = [numpy_helper.from_array(a.astype("float32"), name) for name, a in arrays.items()]
    initializers += [numpy_helper.from_array(np.array([-1, WIDTH]), "rows")]
    nodes = [
        helper.make_node("Gather", ["table", "ids"], ["words"], "lookup", axis=0),
        helper.make_node("LayerNormalization", ["words", "gamma", "beta"], ["normal"], "norm", axis=-1),
        helper.make_node("Reshape", ["normal", "rows"], ["flat"], "flatten"),
        helper.make_node("Gemm", ["flat", "first", "bias"], ["hidden"], "expand"),
        helper.make_node("Softmax", ["hidden"], ["weights"], "softmax"),
        helper.make_node("MatMul", ["weights", "second"], ["sums"], "project"),
        helper.make_node("Add", ["sums", "flat" if shared else "sums"], ["y"], "add"),
    ]
    ids = helper.make_tensor_value_info("ids", onnx.TensorProto.INT32, ["batch", 6])
    y = helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, None)
    graph = helper.make_graph(nodes, "small", [ids], [y], initializers)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


def token_ids():
    """Fixed ids of four texts."""
    return np.random.default_rng(1).integers(0, VOCABULARY, (4, 6)).astype("int32")


def run(model, optimized=""):
    """The output for these ids; writes the graph that ONNX Runtime computes."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    # As in sessions of export.load on x86 without VNNI.
    options.add_session_config_entry("session.x64quantprecision", "1")
    options.optimized_model_filepath = str(optimized)
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, {"ids": token_ids()})[0]


def values(model, name):
    """The values of a tensor inside a model."""
    probe = onnx.ModelProto()
    probe.CopyFrom(model)
    probe.graph.output[0].CopyFrom(helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None))
    return run(probe)


def spread(x):
    """The ratio of the largest channel to the median one."""
    largest = np.abs(x).max(axis=0)
    return largest.max() / np.median(largest)


@pytest.mark.parametrize("shared", [False, True])
def test_smoothing_evens_out_channels(shared, tmp_path):
    """The outputs stay; a normalization that nothing else reads takes the scales, other inputs are multiplied."""
    model = transformer(shared)
    expected, before, count = run(model), spread(values(model, "flat")), len(model.graph.node)
    smooth(model, [{"ids": token_ids()}], tmp_path)
    np.testing.assert_allclose(run(model), expected, rtol=1e-4, atol=1e-4)
    (product,) = (node for node in model.graph.node if node.name == "expand")
    assert before > 20
    assert spread(values(model, product.input[0])) < before / 5
    assert len(model.graph.node) == count + 1 + shared
    assert list(tmp_path.iterdir()) == []


def test_channels_that_calibration_does_not_reach_stay_small(tmp_path):
    """A channel that is zero in the calibration data is multiplied by little: other examples may reach it."""
    model = transformer()
    gamma, beta, first = (next(t for t in model.graph.initializer if t.name == n) for n in ("gamma", "beta", "first"))
    for tensor in (gamma, beta):
        array = numpy_helper.to_array(tensor).copy()
        array[3] = 0
        tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
    before = numpy_helper.to_array(first)
    smooth(model, [{"ids": token_ids()}], tmp_path)
    (product,) = (node for node in model.graph.node if node.name == "expand")
    after = next(numpy_helper.to_array(t) for t in model.graph.initializer if t.name == product.input[1])
    scales = (after / before)[:, 0]
    assert scales[3] < np.median(scales)
    assert scales[3] > 0.1 * np.median(scales)


def test_only_models_with_attention_are_transformers():
    """A softmax is the sign."""
    model = transformer()
    assert has_attention(model)
    model.graph.node[4].op_type = "Sigmoid"
    assert not has_attention(model)


def test_tables_have_a_scale_for_each_row():
    """Each row is within half a step of its own range; a table that a product reads too stays float."""
    model = transformer()
    table = next(numpy_helper.to_array(t) for t in model.graph.initializer if t.name == "table")
    assert quantize_tables(model) == ["lookup", "lookup/scale"]
    found = values(model, "words")
    steps = np.abs(table).max(axis=1)[token_ids()][..., None] / 127
    assert (np.abs(found - table[token_ids()]) <= 0.5001 * steps).all()
    assert np.abs(found - table[token_ids()]).max() > 0
    other = transformer()
    other.graph.node[5].input[1] = "table"
    assert quantize_tables(other) == []


def test_blocks_run_in_integers(tmp_path):
    """ONNX Runtime computes the products as MatMulNBits, close to float; a product without whole blocks stays."""
    model = transformer()
    expected = run(model)
    smooth(model, [{"ids": token_ids()}], tmp_path)
    quantize_blocks(model, 16)
    found = run(model, tmp_path / "optimized.onnx")
    kinds = [node.op_type for node in onnx.load(tmp_path / "optimized.onnx").graph.node]
    assert kinds.count("MatMulNBits") == 2
    assert 0 < np.abs(found - expected).max() < 0.05 * np.abs(expected).max()
    onnx.save(model, tmp_path / "model.onnx")
    assert list(GUARANTEES["int8_matrices"](read(tmp_path / "model.onnx"), ())) == []
    other = transformer()
    quantize_blocks(other, 32)
    assert [node.op_type for node in other.graph.node].count("DequantizeLinear") == 1


@pytest.mark.parametrize("text", ["block=24", "block=8", "block=-16", "block=32,reduce_range=true"])
def test_other_blocks_are_refused(text):
    """In one line."""
    with pytest.raises(BadOption, match=r"Received: block") as error:
        parse_format(f"onnx_dynamic:{text}").options.check({"task": "classify"})
    assert "\n" not in str(error.value)
