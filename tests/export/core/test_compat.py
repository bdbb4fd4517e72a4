"""Canaries for private upstream APIs: each test names the symbol that an upgrade has removed or changed."""

from __future__ import annotations

import importlib
import inspect
import os
import subprocess
import sys

import pytest

from export.core import compat


def symbol(path: str):
    """Return the object at `module:attribute.attribute`; fails with its name if it is gone."""
    module, _, attributes = path.partition(":")
    try:
        found = importlib.import_module(module)
        for name in filter(None, attributes.split(".")):
            found = getattr(found, name)
    except (ImportError, AttributeError) as error:
        pytest.fail(f"{path} is gone; export/core/compat.py needs another route: {error}")
    return found


def parameters(path: str) -> set[str]:
    """Return the names of a function's parameters."""
    return set(inspect.signature(symbol(path)).parameters)


@pytest.mark.parametrize("name", [
    "read_model_from_bytearray", "convert_object_to_bytearray", "opcode_to_name",
])  # fmt: skip
def test_flatbuffer_utils(name):
    """ai_edge_litert.tools.flatbuffer_utils, for reading and writing .tflite files."""
    assert callable(symbol(f"ai_edge_litert.tools.flatbuffer_utils:{name}"))
    assert callable(getattr(compat.flatbuffer_utils, name))


@pytest.mark.parametrize("name", [
    "Model.GetRootAs", "OperatorT", "OperatorCodeT", "MetadataT", "BufferT", "TensorType.INT8", "BuiltinOperator.SUB",
    "BuiltinOptions.MulOptions", "MulOptionsT",
])  # fmt: skip
def test_schema(name):
    """ai_edge_litert.schema_py_generated, the schema of .tflite files."""
    symbol(f"ai_edge_litert.schema_py_generated:{name}")


def test_calibrator():
    """litert_quantizer.calibrator.Calibrator, which takes a function that updates ranges."""
    path = "litert_quantizer.calibrator:Calibrator"
    assert {"num_threads", "mode", "qsv_update_func"} <= parameters(path)
    assert callable(symbol(f"{path}.calibrate"))
    assert callable(symbol(f"{path}.get_model_qsvs"))
    symbol("litert_quantizer.calibrator:CalibrationMode.CALIBRATION_PROFILER_BASED")


def test_min_max_update():
    """litert_quantizer.utils.qsv_utils.min_max_update keeps the widest range."""
    update = symbol("litert_quantizer.utils.qsv_utils:min_max_update")
    merged = update({"min": -1.0, "max": 2.0}, {"min": -3.0, "max": 1.0})
    assert (float(merged["min"]), float(merged["max"])) == (-3.0, 2.0)


def test_recipe_manager():
    """litert_quantizer.recipe_manager.RecipeManager loads a recipe."""
    assert callable(symbol("litert_quantizer.recipe_manager:RecipeManager.load_quantization_recipe"))


def test_onnx_float16():
    """onnxruntime.transformers.float16.convert_float_to_float16."""
    path = "onnxruntime.transformers.float16:convert_float_to_float16"
    assert {"keep_io_types", "node_block_list"} <= parameters(path)


def test_ignored_patterns():
    """nncf.openvino.quantization.ignored_patterns has a pattern for squeeze-and-excitation, and gets it back."""
    registry = symbol("nncf.openvino.quantization.ignored_patterns:OPENVINO_IGNORED_PATTERNS.registry_dict")
    name = symbol("nncf.openvino.quantization.ignored_patterns:IgnoredPatternNames.SE_BLOCK")
    assert name in registry
    with compat.nncf_quantizes_squeeze_and_excitation():
        assert name not in registry
    assert name in registry


def test_tf2onnx():
    """tf2onnx.tfonnx.process_tf_graph and tf2onnx.optimizer.optimize_graph convert a graph without optimizers."""
    assert {"opset", "input_names", "output_names", "tensors_to_rename"} <= parameters(
        "tf2onnx.tfonnx:process_tf_graph"
    )
    assert "optimizers" in parameters("tf2onnx.optimizer:optimize_graph")


def test_converter_error():
    """tensorflow.lite.python.convert_phase.ConverterError is what tf.lite.TFLiteConverter raises."""
    symbol("tensorflow.lite.python.convert_phase:ConverterError")
    assert issubclass(compat.converter_error(), Exception)


def test_protobuf_messages():
    """tensorflow.core.protobuf.saved_model_pb2, fingerprint_pb2 and trackable_object_graph_pb2."""
    symbol("tensorflow.core.protobuf.saved_model_pb2:SavedModel")
    symbol("tensorflow.core.protobuf.fingerprint_pb2:FingerprintDef")
    assert hasattr(compat.fingerprint_message(), "uuid")
    symbol("tensorflow.core.protobuf.trackable_object_graph_pb2:TrackableObjectGraph")
    assert hasattr(compat.saved_model_message(), "meta_graphs")
    assert hasattr(compat.object_graph_message(), "nodes")


def test_a_missing_symbol_is_named():
    """The control: a symbol that is gone fails with its name."""
    with pytest.raises(pytest.fail.Exception, match=r"tensorflow\.lite:Gone is gone"):
        symbol("tensorflow.lite:Gone")


def test_the_first_import_of_tensorflow_is_quiet():
    """A message of TensorFlow is needed before anything else of it; its log is not the user's business."""
    code = "from export.core import compat; compat.saved_model_message()"
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True, timeout=120
    )
    assert (done.stdout, done.stderr) == ("", "")
