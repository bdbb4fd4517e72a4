"""Passes over ONNX graphs after tf2onnx and the quantizer."""

from __future__ import annotations

import math
from collections.abc import Container, Mapping, Sequence
from typing import TYPE_CHECKING

from export.backends.onnx.weights import SMALL, filter_field, replace_field, without_weights
from zoo.common.errors import UnsupportedExport
from zoo.common.lazy import LazyModule, np

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto

onnx = LazyModule("onnx")

STANDARD_DOMAINS = ("", "ai.onnx")
WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "MatMul")


def check(model: ModelProto) -> None:
    """Raise UnsupportedExport if the model is not valid ONNX of standard operators with consistent shapes."""
    unsupported = sorted({f"{n.domain}.{n.op_type}" for n in model.graph.node if n.domain not in STANDARD_DOMAINS})
    if unsupported:
        raise UnsupportedExport(
            f"ONNX supports standard operators only. Received: operators={', '.join(unsupported)}. "
            "Write the layer with operators that ONNX has."
        )
    try:
        onnx.checker.check_model(without_weights(model), full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise UnsupportedExport(
            f"The model does not convert to valid ONNX. Received: {str(error).splitlines()[0]}. "
            "Write the layer with operators that ONNX has."
        ) from error


def raise_opset(model: ModelProto, opset: int) -> ModelProto:
    """Return the model in a newer operator set; as it is if its own is as new.

    Raises:
        UnsupportedExport: onnx cannot convert an operator.
    """
    current = next(entry.version for entry in model.opset_import if entry.domain in STANDARD_DOMAINS)
    if opset <= current:
        return model
    inputs = [tensor.name for tensor in model.graph.input]
    try:
        converted = onnx.version_converter.convert_version(without_weights(model), opset)
    except RuntimeError as error:
        raise UnsupportedExport(
            f"ONNX cannot convert this model to the operator set. Received: opset={opset}: "
            f"{' '.join(str(error).split())[:200]}. Use opset={current}."
        ) from error
    filter_field(converted.graph.input, lambda tensor: tensor.name in inputs)
    converted.graph.initializer.extend(tensor for tensor in model.graph.initializer if len(tensor.raw_data) > SMALL)
    converted.ir_version = max(model.ir_version, onnx.helper.find_min_ir_version_for(converted.opset_import))
    return converted


def name_nodes(model: ModelProto) -> None:
    """Give every node a unique name."""
    for i, node in enumerate(model.graph.node):
        node.name = f"{node.op_type}_{i}"


def pool_channels_first(model: ModelProto, images: set[str]) -> None:
    """Replace means of images (tensors of four axes) over height and width by GlobalAveragePool."""
    # A mean over NHWC axes stops ONNX Runtime from moving transposes past it, and has no int8 kernel.
    nodes = []
    for node in model.graph.node:
        attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        spatial = node.op_type == "ReduceMean" and attributes["axes"] == [1, 2] and node.input[0] in images
        nodes.extend(_global_pool(node, bool(attributes.get("keepdims", 1))) if spatial else [node])
    replace_field(model.graph.node, nodes)


def _global_pool(node: NodeProto, keepdims: bool) -> list[NodeProto]:
    """Return the nodes that replace a mean over height and width."""
    (x,), (y,), make = node.input, node.output, onnx.helper.make_node
    last = {"op_type": "Transpose", "perm": [0, 2, 3, 1]} if keepdims else {"op_type": "Flatten", "axis": 1}
    return [
        make("Transpose", [x], [f"{y}/nchw"], f"{y}/transpose", perm=[0, 3, 1, 2]),
        make("GlobalAveragePool", [f"{y}/nchw"], [f"{y}/pooled"], f"{y}/pool"),
        make(inputs=[f"{y}/pooled"], outputs=[y], name=f"{y}/last", **last),
    ]


def flatten_reshapes(model: ModelProto, shapes: Mapping[str, Sequence[int]]) -> None:
    """Replace reshapes of each example into one row by Flatten, which computes no shape.

    Args:
        model: a graph.
        shapes: the shapes of its tensors by name; -1 marks a dynamic size.
    """
    for node in model.graph.node:
        if node.op_type != "Reshape":
            continue
        before, after = (list(shapes.get(name, ())) for name in (node.input[0], node.output[0]))
        if len(before) > 2 and len(after) == 2 and min(before[1:]) > 0 and math.prod(before[1:]) == after[1]:
            node.CopyFrom(onnx.helper.make_node("Flatten", node.input[:1], node.output, node.name, axis=1))
    drop_unread(model)


def drop_unread(model: ModelProto) -> None:
    """Remove nodes with unread outputs, and the nodes that only they read."""
    read = {tensor.name for tensor in model.graph.output}
    used = []
    for node in reversed(model.graph.node):
        if not read.isdisjoint(node.output):
            read.update(node.input)
            used.append(node)
    replace_field(model.graph.node, used[::-1])


def name_batch(model: ModelProto, axis: str = "batch", size: int = 0, weights: Container[str] = ()) -> None:
    """Name the batch axis of inputs (except weights) and outputs, or set its size."""
    inputs = (tensor for tensor in model.graph.input if tensor.name not in weights)
    for tensor in (*inputs, *model.graph.output):
        first = tensor.type.tensor_type.shape.dim[0]
        if size:
            first.dim_value = size
        else:
            first.dim_param = axis


def convolve_batch_norms(model: ModelProto) -> None:
    """Replace batch normalizations that are not folded by 1x1 depthwise convolutions, which have int8 kernels."""
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


def preprocessing_nodes(model: ModelProto) -> list[str]:
    """Return the names of the nodes before the first layers with weights."""
    # They normalize raw values: int8 would add two roundings and save no time.
    constants = {tensor.name for tensor in model.graph.initializer}
    raw, names = {tensor.name for tensor in model.graph.input}, []
    for node in model.graph.node:
        if node.op_type not in WEIGHTED and raw.issuperset(set(node.input) - constants - {""}):
            names.append(node.name)
            raw.update(node.output)
    return names


def activation_products(model: ModelProto) -> list[str]:
    """Return the names of the matrix products of two activations."""
    constants = {tensor.name for tensor in model.graph.initializer}
    return [node.name for node in model.graph.node if node.op_type == "MatMul" and constants.isdisjoint(node.input)]


def keep_logits_float(model: ModelProto) -> None:
    """Remove the last Q/DQ pair before each output: rounding the logits to 8 bits saves nothing."""
    for tensor in model.graph.output:
        _keep_float(model, tensor.name)


def _keep_float(model: ModelProto, output: str) -> None:
    nodes = model.graph.node
    producers = {name: node for node in nodes for name in node.output}
    dequantize = producers[output]
    quantize = producers.get(dequantize.input[0]) if dequantize.op_type == "DequantizeLinear" else None
    if quantize is None or sum(quantize.input[0] in node.input for node in nodes) > 1:
        return
    last = producers[quantize.input[0]]
    last.output[list(last.output).index(quantize.input[0])] = output
    nodes.remove(quantize)
    nodes.remove(dequantize)


def keep_weights_float(model: ModelProto) -> None:
    """Put an operator between dequantized values and the layers that read them with float weights.

    ONNX Runtime quantizes such weights when it opens a file, with one scale for a whole kernel, if the outputs are
    quantized again. A maximum of one tensor is that tensor, and no version removes it.
    """
    floats = {tensor.name for tensor in model.graph.initializer if tensor.data_type == onnx.TensorProto.FLOAT}
    dequantized = {node.output[0] for node in model.graph.node if node.op_type == "DequantizeLinear"}
    nodes = []
    for node in model.graph.node:
        if node.op_type in WEIGHTED and node.input[0] in dequantized and node.input[1] in floats:
            name = f"{node.name}/float"
            nodes.append(onnx.helper.make_node("Max", [node.input[0]], [name], name))
            node.input[0] = name
        nodes.append(node)
    replace_field(model.graph.node, nodes)


def drop_unused(model: ModelProto) -> None:
    """Remove the initializers that no node reads."""
    used = {name for node in model.graph.node for name in node.input}
    filter_field(model.graph.initializer, lambda tensor: tensor.name in used)
