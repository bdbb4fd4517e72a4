"""An ONNX graph in float16."""

from __future__ import annotations

import graphlib
from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING

from export.backends.onnx import passes
from export.backends.onnx.runtime import session_options
from export.core.compat import onnx_float16
from export.core.quiet import quiet
from zoo.common.lazy import LazyModule, np

if TYPE_CHECKING:
    import numpy as _np
    from onnx import ModelProto

onnx = LazyModule("onnx")
ort = LazyModule("onnxruntime")

# A quarter of the largest float16: headroom for values that are not in the calibration data.
LARGEST = 65504.0 / 4
# Names of the converter's casts: of an input, and after and before an excluded node.
INPUT_CAST, TO_FLOAT16, TO_FLOAT32 = "graph_input_cast", "_cast_to_fp16_node", "_cast_to_fp32_node"


def too_large(model: ModelProto, feeds: Iterable[dict[str, _np.ndarray]]) -> set[str]:
    """Return the names of the nodes with inputs or outputs outside the float16 range.

    Args:
        model: a graph in float32.
        feeds: examples by input.
    """
    observed = onnx.ModelProto()
    observed.CopyFrom(model)
    passes.name_nodes(observed)
    inferred = onnx.shape_inference.infer_shapes(observed).graph.value_info
    between = [value for value in inferred if value.type.tensor_type.elem_type == onnx.TensorProto.FLOAT]
    observed.graph.output.extend(between)
    settings = session_options(None)
    settings.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(observed.SerializeToString(), settings, providers=["CPUExecutionProvider"])
    names = [value.name for value in between]
    large = {tensor.name for tensor in model.graph.initializer if _is_large(onnx.numpy_helper.to_array(tensor))}
    for values in feeds:
        values_by_name = zip(names, session.run(names, values), strict=True)
        large |= {name for name, value in (*values_by_name, *values.items()) if _is_large(value)}
    return {node.name for node in observed.graph.node if not large.isdisjoint((*node.input, *node.output))}


def _is_large(value: _np.ndarray) -> bool:
    """Return whether an array has values outside the float16 range; NaN counts."""
    return value.dtype == np.float32 and value.size > 0 and not np.abs(value).max() <= LARGEST


def halve(model: ModelProto, excluded: Collection[str]) -> ModelProto:
    """Return a graph in float16 with float32 inputs and outputs.

    Args:
        model: a graph in float32.
        excluded: names of nodes that stay float32.
    """
    passes.name_nodes(model)
    with quiet():
        model = onnx_float16.convert_float_to_float16(model, keep_io_types=True, node_block_list=list(excluded))
    del model.graph.value_info[:]
    _skip_casts(model)
    passes.drop_unused(model)
    _sort(model)
    return model


def _skip_casts(model: ModelProto) -> None:
    """Remove casts from float32 to float16 and back."""
    casts = [node for node in model.graph.node if node.op_type == "Cast"]
    down = {n.output[0]: n.input[0] for n in casts if n.name.startswith(INPUT_CAST) or n.name.endswith(TO_FLOAT16)}
    up = {n.output[0]: down[n.input[0]] for n in casts if n.name.endswith(TO_FLOAT32) and n.input[0] in down}
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
    """Sort the nodes topologically."""
    nodes = list(model.graph.node)
    producers = {name: i for i, node in enumerate(nodes) for name in node.output}
    before = {i: {producers[name] for name in node.input if name in producers} for i, node in enumerate(nodes)}
    order = list(graphlib.TopologicalSorter(before).static_order())
    del model.graph.node[:]
    model.graph.node.extend(nodes[i] for i in order)
