"""The guarantees of formats, checked in the operators and weights of model files."""

from __future__ import annotations

import contextlib

import numpy as np
import pytest

import export
from export.backends.litert import file as litert
from export.core.artifact_graph import ArtifactGraph, Operator
from export.core.format import formats
from export.core.guarantees import GUARANTEES, check_guarantees
from export.inspection.inspect import inspect, read_artifact
from zoo.common.errors import BadOption, ParityError


def manifest_of(**more):
    """The part of a manifest that `check_guarantees` reads."""
    return {"format": "it", "options": {}, "metadata": {}, "compression": None, **more}


def broken(path, *guarantees, **more):
    """The error of the guarantees that a file breaks, "" if it breaks none."""
    try:
        check_guarantees(read_artifact(path).graph, guarantees, manifest_of(**more))
    except ParityError as error:
        return str(error)
    return ""


def packed(model, path):
    """The content of a .tflite file, with the labels appended to another."""
    content = path.read_bytes()
    return bytes(litert.pack(model)) + content[content.rfind(b"PK\x03\x04") :]


def test_a_float_file_breaks_int8_guarantees(artifacts):
    """A float file in place of an int8 one breaks every guarantee."""
    path = artifacts["tflite"].path
    for guarantee in GUARANTEES:
        assert broken(path, guarantee), guarantee
    assert "convolution" in broken(artifacts["onnx"].path, "int8")
    assert not broken(artifacts["tflite_int8"].path, "integer", "int8", "int8_weights")
    assert not broken(artifacts["onnx_int8"].path, "int8")
    assert "weights in float32" in broken(artifacts["onnx_dynamic"].path, "int8_weights")
    assert "computes in floating point" in broken(artifacts["tflite_dynamic"].path, "integer")


def test_one_float_convolution_is_named(artifacts, tmp_path):
    """An ONNX file with float32 weights in the third convolution."""
    import onnx

    model = onnx.load(artifacts["onnx_int8"].path)
    node = [node for node in model.graph.node if node.op_type == "Conv"][2]
    made = next(other for other in model.graph.node if node.input[1] in other.output)
    shape = next(tensor.dims for tensor in model.graph.initializer if tensor.name == made.input[0])
    kernel = onnx.numpy_helper.from_array(np.ones(tuple(shape), "float32"), "restored")
    model.graph.initializer.append(kernel)
    node.input[1] = "restored"
    onnx.save(model, tmp_path / "model.onnx")
    assert node.name in broken(tmp_path / "model.onnx", "int8")
    assert inspect(tmp_path / "model.onnx").float_fallback.count(node.name) == 1


def test_one_float_operator_of_a_tflite_is_named(artifacts, tmp_path):
    """A float tensor between two integer ones; an operator that a compression step excluded is no error."""
    model = litert.read(artifacts["tflite_int8"].path.read_bytes())
    graph = model.subgraphs[0]
    operator = [o for o in graph.operators if litert.operator_name(model, o) == "CONV_2D"][3]
    tensor = graph.tensors[operator.outputs[0]]
    tensor.type = litert.schema.TensorType.FLOAT32
    path = tmp_path / "model.tflite"
    path.write_bytes(packed(model, artifacts["tflite_int8"].path))
    name = litert.name_of(tensor)
    assert name in broken(path, "integer")
    readers = [litert.name_of(graph.tensors[o.outputs[0]]) for o in graph.operators if operator.outputs[0] in o.inputs]
    excluded = {"facts": {"float_operators": [name, *readers]}}
    assert not broken(path, "integer", compression=excluded)


def test_unsupported_operators_and_wrong_batches_are_errors(artifacts, tmp_path):
    """An operator of another domain, and a batch other than the requested one."""
    import onnx

    model = onnx.load(artifacts["onnx"].path)
    model.graph.node[-1].domain = "com.else"
    onnx.save(model, tmp_path / "model.onnx")
    assert inspect(tmp_path / "model.onnx").unsupported == ("com.else.Gemm",)
    assert "com.else.Gemm" in broken(tmp_path / "model.onnx")
    path = artifacts["tflite"].path
    assert not broken(path, options={"batch": 1})
    assert "batch=4" in broken(path, options={"batch": 4})
    assert "batch=0" in broken(path, options={"batch": 0})
    assert not broken(artifacts["onnx"].path, options={"batch": 0})


def test_flex_operators_need_an_option(artifacts, tmp_path):
    """A custom operator is unsupported; a TensorFlow operator is allowed with flex=true."""
    model = litert.read(artifacts["tflite"].path.read_bytes())
    code = model.operatorCodes[model.subgraphs[0].operators[-1].opcodeIndex]
    for name, allowed in (("FlexErf", True), ("Mine", False)):
        code.builtinCode = code.deprecatedBuiltinCode = litert.schema.BuiltinOperator.CUSTOM
        code.customCode = name
        (tmp_path / "model.tflite").write_bytes(packed(model, artifacts["tflite"].path))
        assert inspect(tmp_path / "model.tflite").unsupported == (name,)
        assert name in broken(tmp_path / "model.tflite")
        assert (not broken(tmp_path / "model.tflite", options={"flex": True})) is allowed


def test_every_guarantee_has_a_check():
    """Every int8 format has a guarantee; an unknown guarantee is refused."""
    with pytest.raises(BadOption, match=r"guarantees=.'int3'"):
        export.register_format("their_guarantee", summary="", guarantees=("int3",))
    for name in formats.names(exclude="their_*"):
        assert set(formats[name].guarantees) <= GUARANTEES.keys(), name
        assert formats[name].guarantees or not any(word in name for word in ("int", "dynamic", "fp16")), name


@pytest.mark.parametrize(("last", "metadata", "complaint"), [
    ("third", {"tabular": {}}, ""),
    ("third", {}, "first"),
    ("second", {"tabular": {}}, "second"),
])  # fmt: skip
def test_rows_of_a_table_may_enter_as_float(last, metadata, complaint):
    """The first layer of a model for tables, and no layer after it."""
    operators = {
        "first": Operator("FULLY_CONNECTED", "first", False, True),
        "cast": Operator("QUANTIZE", "cast", None, False, (), (0,)),
        "second": Operator("FULLY_CONNECTED", "second", False, True, (), (1,)),
        "third": Operator("FULLY_CONNECTED", "third", True, False, (), (1,)),
    }
    found = ArtifactGraph("tflite", [operators[name] for name in ("first", "cast", last)], [], [], [])
    with pytest.raises(ParityError, match=complaint) if complaint else contextlib.nullcontext():
        check_guarantees(found, ["integer"], manifest_of(metadata=metadata))
