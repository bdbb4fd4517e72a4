"""ONNX, with float32 or int8 weights and activations, run in ONNX Runtime.

The conversion keeps the weights out of TensorFlow's graph: they enter it as inputs and become initializers
afterwards, because freezing and optimizing a graph copies every weight it holds several times.
"""

from __future__ import annotations

import contextlib
import json
import logging
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from export._format import Runtime, Tensor, Tolerance, register
from zoo._errors import UnsupportedExport
from zoo._lazy import LazyModule, keras, np, tf

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto

    from export._source import Source

onnx = LazyModule("onnx")
ort = LazyModule("onnxruntime")
tf2onnx = LazyModule("tf2onnx")

OPSET = 17  # the newest whose reductions state their axes as attributes, which the passes below can read
STANDARD_DOMAINS = ("", "ai.onnx")
WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "MatMul")


def write(source: Source, path: Path) -> None:
    """Write a float32 ONNX file with a free batch axis named "batch" and standard operators only.

    Args:
        source: what to export.
        path: file to write.

    Raises:
        UnsupportedExport: the model has an operator that ONNX lacks.
    """
    with _quiet("tf2onnx"):
        model = _convert(source)
    _check(model)
    _pool_channels_first(model)
    _name_batch(model)
    model = _tidy(model, path)
    _finish(model, source.metadata, path)


def write_int8(source: Source, path: Path) -> None:
    """Write an ONNX file whose weights are int8 by channel and whose activations are uint8, as Q/DQ pairs.

    Args:
        source: what to export; its `calibration` gives the ranges of the activations.
        path: file to write.

    Raises:
        UnsupportedExport: the model has an operator that ONNX lacks.
    """
    floating = source.shared("onnx")
    with _quiet(None), tempfile.TemporaryDirectory(dir=path.parent) as folder:
        _quantize(floating, Path(folder) / "int8.onnx", source)
        model = onnx.load(str(Path(folder) / "int8.onnx"))
    _keep_logits_float(model)
    _finish(model, source.metadata, path)


def _convert(source: Source) -> ModelProto:
    """Return the model as tf2onnx writes it, without its optimizers, with the weights put back."""
    function, weights = _trace(source)
    renamed = {f"{name}:0": name for name in (source.metadata["input"], *weights, source.metadata["output"])}
    *inputs, output = renamed
    with tf.Graph().as_default() as graph:
        tf.import_graph_def(function.graph.as_graph_def(), name="")
        converted = tf2onnx.tfonnx.process_tf_graph(
            graph, True, opset=OPSET, input_names=inputs, output_names=[output], tensors_to_rename=renamed
        )
    model = tf2onnx.optimizer.optimize_graph(converted, optimizers={}).make_model(source.metadata["model"])
    _restore_weights(model, weights)
    return model


def _trace(source: Source) -> tuple[Any, dict[str, np.ndarray]]:
    """Return the model as a function of its input and its weights, and the weights by input name."""
    model, name = source.model, source.metadata["input"]
    variables = {f"weight_{i}": variable for i, variable in enumerate(model.variables)}

    @tf.function(autograph=False)
    def function(inputs: Any, *weights: Any) -> Any:
        with keras.StatelessScope(state_mapping=list(zip(variables.values(), weights, strict=True))):
            return tf.identity(model(inputs, training=False), name=source.metadata["output"])

    specs = [tf.TensorSpec(v.shape, v.dtype, name=k) for k, v in variables.items()]
    image = tf.TensorSpec((None, *model.inputs[0].shape[1:]), tf.float32, name=name)
    arrays = {k: keras.ops.convert_to_numpy(v) for k, v in variables.items()}
    return function.get_concrete_function(image, *specs), arrays


def _restore_weights(model: ModelProto, weights: dict[str, np.ndarray]) -> None:
    """Turn the inputs that stand for weights into initializers; unused ones go."""
    used = {name for node in model.graph.node for name in node.input}
    inputs = [tensor for tensor in model.graph.input if tensor.name not in weights]
    del model.graph.input[:]
    model.graph.input.extend(inputs)
    model.graph.initializer.extend(
        onnx.numpy_helper.from_array(array, name) for name, array in weights.items() if name in used
    )


def _check(model: ModelProto, full: bool = False) -> None:
    """Raise UnsupportedExport if the model is not valid ONNX of standard operators."""
    foreign = sorted({f"{n.domain}.{n.op_type}" for n in model.graph.node if n.domain not in STANDARD_DOMAINS})
    if foreign:
        raise UnsupportedExport(
            f"ONNX needs standard operators only. Received: operators={', '.join(foreign)}. "
            "Write the layer with operators that ONNX has."
        )
    try:
        onnx.checker.check_model(model, full_check=full)
    except onnx.checker.ValidationError as error:
        raise UnsupportedExport(
            f"The model does not convert to valid ONNX. Received: {str(error).splitlines()[0]}. "
            "Write the layer with operators that ONNX has."
        ) from error


def _pool_channels_first(model: ModelProto) -> None:
    """Write means over height and width as GlobalAveragePool.

    A mean over NHWC axes keeps ONNX Runtime from moving the transposes of the layers before it out of the way,
    and its int8 kernel exists for GlobalAveragePool alone.
    """
    images = {t.name for t in model.graph.value_info if len(t.type.tensor_type.shape.dim) == 4}
    nodes = []
    for node in model.graph.node:
        given = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        spatial = node.op_type == "ReduceMean" and given["axes"] == [1, 2] and node.input[0] in images
        nodes.extend(_global_pool(node, bool(given.get("keepdims", 1))) if spatial else [node])
    del model.graph.node[:]
    model.graph.node.extend(nodes)


def _global_pool(node: NodeProto, keep: bool) -> list[NodeProto]:
    """Return the nodes that replace a mean over height and width; `keep` keeps both axes, of size 1."""
    (x,), (y,), make = node.input, node.output, onnx.helper.make_node
    last = {"op_type": "Transpose", "perm": [0, 2, 3, 1]} if keep else {"op_type": "Flatten", "axis": 1}
    return [
        make("Transpose", [x], [f"{y}/nchw"], f"{y}/transpose", perm=[0, 3, 1, 2]),
        make("GlobalAveragePool", [f"{y}/nchw"], [f"{y}/pooled"], f"{y}/pool"),
        make(inputs=[f"{y}/pooled"], outputs=[y], name=f"{y}/last", **last),
    ]


def _name_batch(model: ModelProto) -> None:
    """Name the first axis of inputs and outputs."""
    for tensor in (*model.graph.input, *model.graph.output):
        tensor.type.tensor_type.shape.dim[0].dim_param = "batch"


def _tidy(model: ModelProto, path: Path) -> ModelProto:
    """Return the model after ONNX Runtime's basic passes, the ones that do not depend on the hardware."""
    options = _options(None)
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(path)
    ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return onnx.load(str(path))


def _finish(model: ModelProto, metadata: dict[str, Any], path: Path) -> None:
    """Check the model and write it with the metadata, naming only the operator sets it uses."""
    opsets = [opset for opset in model.opset_import if opset.domain in STANDARD_DOMAINS]
    del model.opset_import[:]
    model.opset_import.extend(opsets)
    onnx.helper.set_model_props(model, {"zoo": json.dumps(metadata)})
    _name_batch(model)
    _check(model, full=True)
    onnx.save(model, str(path))
def _options(threads):
    options = ort.SessionOptions()
    options.log_severity_level = 3
    if threads: options.intra_op_num_threads = threads
    return options
@contextlib.contextmanager
def _quiet(name):
    logger=logging.getLogger(name); l=logger.level; logger.setLevel(logging.ERROR); yield; logger.setLevel(l)
