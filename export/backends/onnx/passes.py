"""Passes over ONNX graphs: what tf2onnx and the quantizer leave to be desired."""

from __future__ import annotations

import math
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from zoo.common.errors import UnsupportedExport
from zoo.common.lazy import LazyModule, np

if TYPE_CHECKING:
    import numpy as _np
    from onnx import ModelProto, NodeProto

onnx = LazyModule("onnx")

STANDARD_DOMAINS = ("", "ai.onnx")
WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "MatMul")
SMALL = 1 << 12  # bytes of a constant that shape inference may want to read
LARGE = 1 << 18  # values of a weight that is worth leaving out for a while


def restore_weights(model: ModelProto, weights: Mapping[str, Any]) -> None:
    """Turn the inputs that stand for weights into initializers; unused ones go.

    Args:
        model: a graph.
        weights: arrays or variables by name; one after the other is copied, so that memory holds few of them twice.
    """
    used = {name for node in model.graph.node for name in node.input}
    _keep(model.graph.input, lambda tensor: tensor.name not in weights)
    for name in (name for name in weights if name in used):
        _store(model.graph.initializer.add(), name, np.asarray(weights[name]))


def _store(tensor: Any, name: str, array: _np.ndarray) -> None:
    """Fill a tensor of a graph in its place: what is appended would be copied."""
    tensor.name, tensor.data_type = name, onnx.helper.np_dtype_to_tensor_dtype(array.dtype)
    tensor.dims.extend(array.shape)
    tensor.raw_data = array.tobytes()


def wait_for(model: ModelProto, weights: Mapping[str, Any]) -> list[str]:
    """Return the names of large weights that matrix products alone read: passes that fold constants let them be."""
    graph, readers = model.graph, {}
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    # A batch normalization behind it goes into the weights.
    normal = any(node.op_type == "BatchNormalization" for node in graph.node)
    large = [name for name, weight in weights.items() if math.prod(weight.shape) > LARGE and not normal]
    return [name for name in large if all(node.op_type == "MatMul" for node in readers.get(name, ()))]


def lean(model: ModelProto) -> ModelProto:
    """Return a copy whose large weights are inputs: what reads types and shapes alone need not copy them."""
    made = onnx.ModelProto()
    _copy(model, made, leave="graph")
    _copy(model.graph, made.graph, leave="initializer")
    for tensor in model.graph.initializer:
        if len(tensor.raw_data) > SMALL:
            made.graph.input.append(onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
        else:
            made.graph.initializer.append(tensor)
    return made


def _copy(given: Any, target: Any, leave: str) -> None:
    """Copy the fields of a message but for one."""
    for field, value in given.ListFields():
        if field.name == leave:
            continue
        if isinstance(value, (str, bytes, int, float)):
            setattr(target, field.name, value)
        else:
            getattr(target, field.name).MergeFrom(value)


def _keep(field: Any, wanted: Callable[[Any], bool]) -> None:
    """Delete from a repeated field what is not wanted; nothing is copied."""
    for place in reversed(range(len(field))):
        if not wanted(field[place]):
            del field[place]


def _replace(field: Any, values: Iterable[Any]) -> None:
    """Give a repeated field other values."""
    del field[:]
    field.extend(values)


def check(model: ModelProto) -> None:
    """Raise UnsupportedExport if the model is not valid ONNX of standard operators, or its shapes contradict."""
    unsupported = sorted({f"{n.domain}.{n.op_type}" for n in model.graph.node if n.domain not in STANDARD_DOMAINS})
    if unsupported:
        raise UnsupportedExport(
            f"ONNX needs standard operators only. Received: operators={', '.join(unsupported)}. "
            "Write the layer with operators that ONNX has."
        )
    try:
        onnx.checker.check_model(lean(model), full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise UnsupportedExport(
            f"The model does not convert to valid ONNX. Received: {str(error).splitlines()[0]}. "
            "Write the layer with operators that ONNX has."
        ) from error


def raise_opset(model: ModelProto, opset: int) -> ModelProto:
    """Return the model in a newer operator set.

    Raises:
        UnsupportedExport: onnx cannot convert an operator.
    """
    now = next(entry.version for entry in model.opset_import if entry.domain in STANDARD_DOMAINS)
    if opset == now:
        return model
    inputs = [tensor.name for tensor in model.graph.input]
    try:
        made = onnx.version_converter.convert_version(lean(model), opset)
    except RuntimeError as error:
        raise UnsupportedExport(
            f"ONNX's own converter cannot bring this model to that operator set. Received: opset={opset}: "
            f"{' '.join(str(error).split())[:200]}. Use opset={now}."
        ) from error
    _keep(made.graph.input, lambda tensor: tensor.name in inputs)
    made.graph.initializer.extend(tensor for tensor in model.graph.initializer if len(tensor.raw_data) > SMALL)
    made.ir_version = max(model.ir_version, onnx.helper.find_min_ir_version_for(made.opset_import))
    return made


def name_nodes(model: ModelProto) -> None:
    """Give every node a name of its own."""
    for i, node in enumerate(model.graph.node):
        node.name = f"{node.op_type}_{i}"


def pool_channels_first(model: ModelProto, images: set[str]) -> None:
    """Write means of images (tensors of four axes) over height and width as GlobalAveragePool."""
    # A mean over NHWC axes stops ONNX Runtime from moving transposes past it, and has no int8 kernel.
    nodes = []
    for node in model.graph.node:
        given = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        spatial = node.op_type == "ReduceMean" and given["axes"] == [1, 2] and node.input[0] in images
        nodes.extend(_global_pool(node, bool(given.get("keepdims", 1))) if spatial else [node])
    _replace(model.graph.node, nodes)


def _global_pool(node: NodeProto, keep: bool) -> list[NodeProto]:
    """Return the nodes that replace a mean over height and width; `keep` keeps both axes, of size 1."""
    (x,), (y,), make = node.input, node.output, onnx.helper.make_node
    last = {"op_type": "Transpose", "perm": [0, 2, 3, 1]} if keep else {"op_type": "Flatten", "axis": 1}
    return [
        make("Transpose", [x], [f"{y}/nchw"], f"{y}/transpose", perm=[0, 3, 1, 2]),
        make("GlobalAveragePool", [f"{y}/nchw"], [f"{y}/pooled"], f"{y}/pool"),
        make(inputs=[f"{y}/pooled"], outputs=[y], name=f"{y}/last", **last),
    ]


def flatten_plainly(model: ModelProto, shapes: Mapping[str, Sequence[int]]) -> None:
    """Write the reshaping of each example into one row as Flatten, which computes no shape.

    Args:
        model: a graph.
        shapes: those of its tensors by name, -1 where a size is free.
    """
    for node in model.graph.node:
        if node.op_type != "Reshape":
            continue
        given, made = (list(shapes.get(name, ())) for name in (node.input[0], node.output[0]))
        if len(given) > 2 and len(made) == 2 and min(given[1:]) > 0 and math.prod(given[1:]) == made[1]:
            node.CopyFrom(onnx.helper.make_node("Flatten", node.input[:1], node.output, node.name, axis=1))
    drop_unread(model)


def drop_unread(model: ModelProto) -> None:
    """Remove the nodes whose outputs nobody reads, and what only they read."""
    read = {tensor.name for tensor in model.graph.output}
    kept = []
    for node in reversed(model.graph.node):
        if not read.isdisjoint(node.output):
            read.update(node.input)
            kept.append(node)
    _replace(model.graph.node, kept[::-1])


def name_batch(model: ModelProto, axis: str = "batch", size: int = 0, weights: Container[str] = ()) -> None:
    """Name the first axis of outputs and of inputs that stand for no weights, or fix its size if there is one."""
    inputs = (tensor for tensor in model.graph.input if tensor.name not in weights)
    for tensor in (*inputs, *model.graph.output):
        first = tensor.type.tensor_type.shape.dim[0]
        if size:
            first.dim_value = size
        else:
            first.dim_param = axis


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
    _keep(model.graph.initializer, lambda tensor: tensor.name in used)
