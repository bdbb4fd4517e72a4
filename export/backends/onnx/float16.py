"""An ONNX graph in float16."""

from __future__ import annotations

import graphlib
from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING

from export.backends.onnx import passes
from export.backends.onnx.runtime import options
from export.core.quiet import quiet
from zoo.common.lazy import LazyModule, np

if TYPE_CHECKING:
    import numpy as _np
    from onnx import ModelProto

float16 = LazyModule("onnxruntime.transformers.float16", "onnxruntime")
onnx = LazyModule("onnx")
ort = LazyModule("onnxruntime")

# A fourth of the largest float16, for what calibration has not seen.
LARGEST = 65504.0 / 4
# What the converter calls its casts: of an input, of what a spared node gives, of what it reads.
ENTERS, HALVES, WIDENS = "graph_input_cast", "_cast_to_fp16_node", "_cast_to_fp32_node"


def too_large(model: ModelProto, feeds: Iterable[dict[str, _np.ndarray]]) -> set[str]:
    """Return the names of the nodes that read or give values beyond float16.

    Args:
        model: a graph in float32.
        feeds: examples by input.
    """
    watched = onnx.ModelProto()
    watched.CopyFrom(model)
    passes.name_nodes(watched)
    inferred = onnx.shape_inference.infer_shapes(watched).graph.value_info
    between = [value for value in inferred if value.type.tensor_type.elem_type == onnx.TensorProto.FLOAT]
    watched.graph.output.extend(between)
    settings = options(None)
    settings.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(watched.SerializeToString(), settings, providers=["CPUExecutionProvider"])
    names = [value.name for value in between]
    large = {tensor.name for tensor in model.graph.initializer if _is_large(onnx.numpy_helper.to_array(tensor))}
    for values in feeds:
        found = zip(names, session.run(names, values), strict=True)
        large |= {name for name, value in (*found, *values.items()) if _is_large(value)}
    return {node.name for node in watched.graph.node if not large.isdisjoint((*node.input, *node.output))}


def _is_large(value: _np.ndarray) -> bool:
    """Tell whether an array has values beyond float16; NaN counts."""
    return value.dtype == np.float32 and value.size > 0 and not np.abs(value).max() <= LARGEST


def halve(model: ModelProto, excluded: Collection[str]) -> ModelProto:
    """Return a graph in float16 with inputs and outputs as they are.

    Args:
        model: a graph in float32.
        spared: names of nodes that stay float32.
    """
    passes.name_nodes(model)
    with quiet():
        model = float16.convert_float_to_float16(model, keep_io_types=True, node_block_list=list(excluded))
    del model.graph.value_info[:]
    _skip_casts(model)
    passes.drop_unused(model)
    _sort(model)
    return model


def _skip_casts(model: ModelProto) -> None:
    """Connect what goes from float32 to float16 and back at once, and take out the casts that nobody reads then."""
    casts = [node for node in model.graph.node if node.op_type == "Cast"]
    down = {n.output[0]: n.input[0] for n in casts if n.name.startswith(ENTERS) or n.name.endswith(HALVES)}
    up = {n.output[0]: down[n.input[0]] for n in casts if n.name.endswith(WIDENS) and n.input[0] in down}
    for node in model.graph.node:
        for i, name in enumerate(node.input):
            node.input[i] = up.get(name, name)
    _drop_unread_casts(model)


def _drop_unread_casts(model: ModelProto) -> None:
    while True:
        read = {name for node in model.graph.node for name in node.input} | {o.name for o in model.graph.output}
        unread = [node for node in model.graph.node if node.op_type == "Cast" and node.output[0] not in read]
        if not unread:
            return
        for node in unread:
            model.graph.node.remove(node)


def _sort(model: ModelProto) -> None:
    """Bring the nodes into an order in which each comes after those it reads."""
    nodes = list(model.graph.node)
    makers = {name: i for i, node in enumerate(nodes) for name in node.output}
    before = {i: {makers[name] for name in node.input if name in makers} for i, node in enumerate(nodes)}
    order = list(graphlib.TopologicalSorter(before).static_order())
    del model.graph.node[:]
    model.graph.node.extend(nodes[i] for i in order)
