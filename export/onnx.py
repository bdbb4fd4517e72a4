"""ONNX, with float32 or int8 weights and activations, run in ONNX Runtime.

The conversion keeps the weights out of TensorFlow's graph: they enter it as inputs and become initializers
afterwards, because freezing and optimizing a graph copies every weight it holds several times.
"""

from __future__ import annotations

import importlib
import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from export._format import Runtime, Tensor, Tolerance, register
from export._quiet import quiet
from zoo._errors import UnsupportedExport
from zoo._lazy import LazyModule, keras, np, tf

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto

    from export._source import Source

onnx = LazyModule("onnx")
ort = LazyModule("onnxruntime")
tf2onnx = LazyModule("tf2onnx")

OPSET = 17  # the newest whose reductions state their axes as attributes, which the passes below can read
BATCH = 32  # images a call, so that memory stays bounded however many are asked for
STANDARD_DOMAINS = ("", "ai.onnx")
# Left in float32: operators that lose accuracy in 8 bits, or whose conversions cost more than they save.
QUANTIZED = (
    "Conv", "ConvTranspose", "Gemm", "MatMul", "Add", "Mul", "Relu", "Clip", "LeakyRelu", "MaxPool", "AveragePool",
    "GlobalAveragePool", "Concat", "Pad", "Resize", "Flatten", "Reshape", "Squeeze", "Transpose",
)  # fmt: skip
WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "MatMul")


def write(source: Source, path: Path) -> None:
    """Write a float32 ONNX file with a free batch axis named "batch" and standard operators only.

    Args:
        source: what to export.
        path: file to write.

    Raises:
        UnsupportedExport: the model has an operator that ONNX lacks.
    """
    with quiet():
        model = _convert(source)
    _check(model)
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
    model = onnx.load(str(source.shared("onnx")))
    _convolve_batch_norms(model)
    _drop_unused(model)
    model = _quantize(model, source, path.parent)
    _keep_logits_float(model)
    _drop_unused(model)
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
    outputs = (name for node in converted.get_nodes() for name in node.output)
    _pool_channels_first(model, {name for name in outputs if converted.get_rank(name) == 4})
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


def _pool_channels_first(model: ModelProto, images: set[str]) -> None:
    """Write means of images (tensors of four axes) over height and width as GlobalAveragePool."""
    # A mean over NHWC axes stops ONNX Runtime from moving transposes past it, and has no int8 kernel.
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


def _options(threads: int | None) -> Any:
    """Return quiet session options."""
    options = ort.SessionOptions()
    options.log_severity_level = 3
    if threads:
        options.intra_op_num_threads = threads
    return options


def _quantize(model: ModelProto, source: Source, scratch: Path) -> ModelProto:
    """Return the model with Q/DQ pairs at the ranges seen on the calibration data."""
    tool = importlib.import_module("onnxruntime.quantization")
    # Attention loses accuracy in 8 bits and gains no time between its products, so these alone are quantized there.
    attention = any(node.op_type == "Softmax" for node in model.graph.node)
    with quiet(), tempfile.TemporaryDirectory(dir=scratch) as folder:
        floating, quantized = f"{folder}/float.onnx", f"{folder}/int8.onnx"
        onnx.save(model, floating)
        tool.quantize_static(
            floating,
            quantized,
            _reader(source.metadata["input"], source.calibration),
            quant_format=tool.QuantFormat.QDQ,
            op_types_to_quantize=list(WEIGHTED if attention else QUANTIZED),
            # uint8 with int8 is what ONNX Runtime has its fastest x86 kernels for.
            activation_type=tool.QuantType.QUInt8,
            weight_type=tool.QuantType.QInt8,
            per_channel=True,
            nodes_to_exclude=_normalization(model),
            calibrate_method=tool.CalibrationMethod.MinMax,
            extra_options={"MatMulConstBOnly": True},
        )
        return onnx.load(quantized)


def _convolve_batch_norms(model: ModelProto) -> None:
    """Write the batch normalizations that no convolution took in as 1x1 depthwise convolutions, which have int8."""
    arrays = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type != "BatchNormalization" or not arrays.keys() >= set(node.input[1:]):
            continue
        scale, offset, mean, variance = (onnx.numpy_helper.to_array(arrays[name]) for name in node.input[1:])
        epsilon = next((a.f for a in node.attribute if a.name == "epsilon"), 1e-5)
        kernel = scale / np.sqrt(variance + np.float32(epsilon))
        names = [f"{node.name}/kernel", f"{node.name}/bias"]
        values = kernel.reshape(-1, 1, 1, 1), offset - mean * kernel
        model.graph.initializer.extend(map(onnx.numpy_helper.from_array, values, names))
        node.CopyFrom(
            onnx.helper.make_node(
                "Conv", [node.input[0], *names], node.output[:1], node.name, group=kernel.size, kernel_shape=[1, 1]
            )
        )


def _reader(name: str, calibration: np.ndarray, batch: int = 8) -> Any:
    """Return a calibration reader that feeds small batches, for all activations of a batch are kept at once."""
    base = importlib.import_module("onnxruntime.quantization").CalibrationDataReader

    class Reader(base):
        def __init__(self) -> None:
            self.batches = ({name: calibration[i : i + batch]} for i in range(0, len(calibration), batch))

        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(self.batches, None)

    return Reader()


def _normalization(model: ModelProto) -> list[str]:
    """Return the names of the nodes before the first layers with weights."""
    # They scale raw values: int8 would round there twice more and save no time.
    constants = {tensor.name for tensor in model.graph.initializer}
    raw, names = {tensor.name for tensor in model.graph.input}, []
    for node in model.graph.node:
        if node.op_type not in WEIGHTED and raw.issuperset(set(node.input) - constants - {""}):
            names.append(node.name)
            raw.update(node.output)
    return names


def _keep_logits_float(model: ModelProto) -> None:
    """Take out the last Q/DQ pair: rounding the logits to 8 bits would save nothing."""
    nodes, output = model.graph.node, model.graph.output[0].name
    made_by = {name: node for node in nodes for name in node.output}
    dequantize = made_by[output]
    quantize = made_by.get(dequantize.input[0]) if dequantize.op_type == "DequantizeLinear" else None
    if quantize is None or sum(quantize.input[0] in node.input for node in nodes) > 1:
        return
    last = made_by[quantize.input[0]]
    last.output[list(last.output).index(quantize.input[0])] = output
    nodes.remove(quantize)
    nodes.remove(dequantize)


def _drop_unused(model: ModelProto) -> None:
    """Remove the initializers that no node reads."""
    used = {name for node in model.graph.node for name in node.input}
    kept = [tensor for tensor in model.graph.initializer if tensor.name in used]
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)


class OnnxRuntime(Runtime):
    """An ONNX file in ONNX Runtime on the processor.

    Args:
        path: the file.
        threads: threads within an operator, ONNX Runtime's choice by default.
    """

    def __init__(self, path: Path, threads: int | None = None) -> None:
        self._session = ort.InferenceSession(str(path), _options(threads), providers=["CPUExecutionProvider"])
        self.inputs = tuple(map(_tensor, self._session.get_inputs()))
        self.outputs = tuple(map(_tensor, self._session.get_outputs()))
        self.batch = self.inputs[0].shape[0]
        written = self._session.get_modelmeta().custom_metadata_map.get("zoo")
        self.metadata = None if written is None else json.loads(written)

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """Return float32 logits (n, classes) of raw values (n, *shape)."""
        name, images = self.inputs[0].name, np.asarray(images, np.float32)
        batches = (images[i : i + BATCH] for i in range(0, len(images), BATCH))
        return np.concatenate([self._session.run(None, {name: batch})[0] for batch in batches])

    def step(self, images: np.ndarray) -> None:
        """Run once on raw float32 values (n, *shape)."""
        self._session.run(None, {self.inputs[0].name: images})


def _tensor(described: Any) -> Tensor:
    """Return what ONNX Runtime says about an input or output; named sizes are free."""
    shape = tuple(size if isinstance(size, int) else None for size in described.shape)
    dtype = described.type.removeprefix("tensor(").removesuffix(")")
    return Tensor(described.name, shape, {"float": "float32"}.get(dtype, dtype))


register(
    "onnx",
    file="model.onnx",
    write=write,
    load=OnnxRuntime,
    tolerance=Tolerance(relative=1e-4, agreement=1.0, drop=0.0),
    summary="ONNX, float32, free batch; runs in ONNX Runtime, OpenVINO, TensorRT and others",
)
register(
    "onnx_int8",
    file="model.onnx",
    write=write_int8,
    load=OnnxRuntime,
    # The relative bound only catches a broken file; agreement and accuracy are what int8 is judged by.
    tolerance=Tolerance(relative=0.25, agreement=0.97, drop=0.006),
    summary="ONNX, int8 weights by channel and uint8 activations (Q/DQ), calibrated; float32 in and out",
)
