"""Private APIs of converters and runtimes. No other module of `export` uses them.

`tests/export/core/test_compat.py` has a test for each symbol, which names it if an upgrade removes or changes it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from zoo.common.lazy import LazyModule

# LiteRT: the schema of .tflite files and the reader and writer of its object API; neither has a public name.
flatbuffer_utils = LazyModule("ai_edge_litert.tools.flatbuffer_utils", "ai-edge-litert")
schema = LazyModule("ai_edge_litert.schema_py_generated", "ai-edge-litert")
# LiteRT Quantizer: its public `Quantizer.calibrate` averages the ranges of examples; see `litert/calibration.py`.
calibrator = LazyModule("litert_quantizer.calibrator", "litert-quantizer")
qsv_utils = LazyModule("litert_quantizer.utils.qsv_utils", "litert-quantizer")
recipe_manager = LazyModule("litert_quantizer.recipe_manager", "litert-quantizer")
# ONNX Runtime: the float16 converter of its transformers tools.
onnx_float16 = LazyModule("onnxruntime.transformers.float16", "onnxruntime")
# NNCF: the patterns that it excludes from quantization.
_ignored_patterns = LazyModule("nncf.openvino.quantization.ignored_patterns", "nncf", "openvino")
_tf2onnx = LazyModule("tf2onnx")
# TensorFlow: messages and an exception without public names. Lazy imports are quiet: these may be the first of it.
_convert_phase = LazyModule("tensorflow.lite.python.convert_phase")
_saved_model = LazyModule("tensorflow.core.protobuf.saved_model_pb2")
_fingerprint = LazyModule("tensorflow.core.protobuf.fingerprint_pb2")
_object_graph = LazyModule("tensorflow.core.protobuf.trackable_object_graph_pb2")


def converter_error() -> type[Exception]:
    """Return the exception of `tf.lite.TFLiteConverter`, which has no public name."""
    return _convert_phase.ConverterError


def saved_model_message() -> Any:
    """Return an empty SavedModel protobuf message."""
    return _saved_model.SavedModel()


def fingerprint_message() -> Any:
    """Return an empty FingerprintDef protobuf message, of the file fingerprint.pb in a SavedModel."""
    return _fingerprint.FingerprintDef()


def object_graph_message() -> Any:
    """Return an empty TrackableObjectGraph protobuf message, which names the variables of a checkpoint."""
    return _object_graph.TrackableObjectGraph()


def tensorflow_to_onnx(
    graph: Any, opset: int, names: tuple[list[str], list[str], dict[str, str]], model: str
) -> tuple[Any, dict[str, Any]]:
    """Convert a TensorFlow graph without tf2onnx's optimizers, which the public `tf2onnx.convert` always runs.

    Args:
        graph: a tf.Graph.
        opset: the ONNX operator set.
        names: input tensors, output tensors, and new names of tensors.
        model: name of the model.

    Returns:
        An onnx.ModelProto, and the shapes of its tensors by name.
    """
    inputs, outputs, renamed = names
    converted = _tf2onnx.tfonnx.process_tf_graph(
        graph, True, opset=opset, input_names=inputs, output_names=outputs, tensors_to_rename=renamed
    )
    proto = _tf2onnx.optimizer.optimize_graph(converted, optimizers={}).make_model(model)
    return proto, {name: converted.get_shape(name) for node in converted.get_nodes() for name in node.output}


@contextlib.contextmanager
def nncf_quantizes_squeeze_and_excitation() -> Iterator[None]:
    """Let NNCF quantize the convolutions of squeeze-and-excitation, which it leaves in floating point by default."""
    registry = _ignored_patterns.OPENVINO_IGNORED_PATTERNS.registry_dict
    saved = dict(registry)
    del registry[_ignored_patterns.IgnoredPatternNames.SE_BLOCK]
    try:
        yield
    finally:
        registry.update(saved)
