"""Passes over ONNX graphs: what tf2onnx and the quantizer leave to be desired."""

from __future__ import annotations

from typing import TYPE_CHECKING

from zoo._errors import UnsupportedExport
from zoo._lazy import LazyModule, np

if TYPE_CHECKING:
    import numpy as _np
    from onnx import ModelProto, NodeProto

onnx = LazyModule("onnx")

STANDARD_DOMAINS = ("", "ai.onnx")
WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "MatMul")


def restore_weights(model: ModelProto, weights: dict[str, _np.ndarray]) -> None:
    """Turn the inputs that stand for weights into initializers; unused ones go."""
    used = {name for node in model.graph.node for name in node.input}
    inputs = [tensor for tensor in model.graph.input if tensor.name not in weights]
    del model.graph.input[:]
    model.graph.input.extend(inputs)
    model.graph.initializer.extend(
        onnx.numpy_helper.from_array(array, name) for name, array in weights.items() if name in used
    )


def check(model: ModelProto, full: bool = False) -> None:
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


def pool_channels_first(model: ModelProto, images: set[str]) -> None:
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


def name_batch(model: ModelProto) -> None:
    """Name the first axis of inputs and outputs."""
    for tensor in (*model.graph.input, *model.graph.output):
        tensor.type.tensor_type.shape.dim[0].dim_param = "batch"


def convolve_batch_norms(model: ModelProto) -> None:
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


def normalization(model: ModelProto) -> list[str]:
    """Return the names of the nodes before the first layers with weights."""
    # They scale raw values: int8 would round there twice more and save no time.
    constants = {tensor.name for tensor in model.graph.initializer}
    raw, names = {tensor.name for tensor in model.graph.input}, []
    for node in model.graph.node:
        if node.op_type not in WEIGHTED and raw.issuperset(set(node.input) - constants - {""}):
            names.append(node.name)
            raw.update(node.output)
    return names


def products(model: ModelProto) -> list[str]:
    """Return the names of the matrix products of two activations."""
    constants = {tensor.name for tensor in model.graph.initializer}
    return [node.name for node in model.graph.node if node.op_type == "MatMul" and constants.isdisjoint(node.input)]


def keep_logits_float(model: ModelProto) -> None:
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


def drop_unused(model: ModelProto) -> None:
    """Remove the initializers that no node reads."""
    used = {name for node in model.graph.node for name in node.input}
    kept = [tensor for tensor in model.graph.initializer if tensor.name in used]
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)
