"""Weights of an ONNX graph: in, out, and set aside while passes run that would copy them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from zoo.common.lazy import LazyModule, np

if TYPE_CHECKING:
    import numpy as _np
    from onnx import ModelProto

onnx = LazyModule("onnx")

SMALL = 1 << 12  # bytes of a constant that shape inference may need
LARGE = 1 << 18  # values of a weight that is worth setting aside


def restore_weights(model: ModelProto, weights: Mapping[str, Any]) -> None:
    """Replace the inputs of weights by initializers; removes unused ones.

    Args:
        model: a graph.
        weights: arrays or variables by name; copied one by one, so that few are in memory twice.
    """
    used = {name for node in model.graph.node for name in node.input}
    filter_field(model.graph.input, lambda tensor: tensor.name not in weights)
    for name in (name for name in weights if name in used):
        _store(model.graph.initializer.add(), name, np.asarray(weights[name]))


def _store(tensor: Any, name: str, array: _np.ndarray) -> None:
    """Fill a tensor of a graph in place; appending would copy it."""
    tensor.name, tensor.data_type = name, onnx.helper.np_dtype_to_tensor_dtype(array.dtype)
    tensor.dims.extend(array.shape)
    tensor.raw_data = array.tobytes()


def product_weights(model: ModelProto, weights: Mapping[str, Any]) -> list[str]:
    """Return the names of large weights that only matrix products read: constant folding does not change them."""
    graph, readers = model.graph, {}
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    # A batch normalization after it is folded into the weights.
    has_batch_norm = any(node.op_type == "BatchNormalization" for node in graph.node)
    large = [name for name, weight in weights.items() if math.prod(weight.shape) > LARGE and not has_batch_norm]
    return [name for name in large if all(node.op_type == "MatMul" for node in readers.get(name, ()))]


def without_weights(model: ModelProto) -> ModelProto:
    """Return a copy with large weights as inputs, for passes that need types and shapes only."""
    light = onnx.ModelProto()
    _copy(model, light, skip="graph")
    _copy(model.graph, light.graph, skip="initializer")
    for tensor in model.graph.initializer:
        if len(tensor.raw_data) > SMALL:
            light.graph.input.append(onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
        else:
            light.graph.initializer.append(tensor)
    return light


def _copy(source: Any, target: Any, skip: str) -> None:
    """Copy the fields of a message except one."""
    for field, value in source.ListFields():
        if field.name == skip:
            continue
        if isinstance(value, (str, bytes, int, float)):
            setattr(target, field.name, value)
        else:
            getattr(target, field.name).MergeFrom(value)


def filter_field(field: Any, keep: Callable[[Any], bool]) -> None:
    """Delete the elements of a repeated field that `keep` refuses, without copies."""
    for i in reversed(range(len(field))):
        if not keep(field[i]):
            del field[i]


def replace_field(field: Any, values: Iterable[Any]) -> None:
    """Replace the values of a repeated field."""
    del field[:]
    field.extend(values)
