"""int8 tables of embeddings: a scale for each row, since a product reads one row at a time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from export.backends.onnx.weights import replace_field
from export.quantization.grid import LARGEST_CODE
from zoo.common.lazy import LazyModule, np

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto, TensorProto

onnx = LazyModule("onnx")

LEAST = 1 << 14  # values of a table that is worth three operators more


def quantize_tables(model: ModelProto) -> list[str]:
    """Replace the float tables that only lookups of rows read by int8 ones; return the names of the new lookups."""
    tables = {tensor.name: tensor for tensor in model.graph.initializer if _is_table(tensor)}
    for node in model.graph.node:
        axis = next((a.i for a in node.attribute if a.name == "axis"), 0)
        for place, name in enumerate(node.input):
            if name in tables and (node.op_type != "Gather" or place or axis):
                del tables[name]
    nodes = list(model.graph.node)
    replace_field(model.graph.node, [new for node in nodes for new in _lookup(model, node, tables)])
    found = [node.name for node in nodes if node.op_type == "Gather" and node.input[0] in tables]
    return [*found, *(f"{name}/scale" for name in found)]


def _is_table(tensor: TensorProto) -> bool:
    large = len(tensor.dims) == 2 and tensor.dims[0] * tensor.dims[1] >= LEAST
    return large and tensor.data_type == onnx.TensorProto.FLOAT


def _lookup(model: ModelProto, node: NodeProto, tables: dict[str, TensorProto]) -> Iterator[NodeProto]:
    """Yield a node, or what replaces its lookup: rows of codes, times the scale of each."""
    if not node.input or node.input[0] not in tables or node.op_type != "Gather":
        yield node
        return
    name, ids = node.input
    table, make = onnx.numpy_helper.to_array(tables[name]), onnx.helper.make_node
    scales = np.abs(table).max(axis=1, keepdims=True) / LARGEST_CODE
    codes = np.rint(table / np.where(scales > 0, scales, 1)).astype("int8")
    for suffix, array in (("codes", codes), ("scales", scales.astype("float32"))):
        model.graph.initializer.append(onnx.numpy_helper.from_array(array, f"{name}/{suffix}"))
    yield make("Gather", [f"{name}/codes", ids], [f"{node.name}/codes"], node.name, axis=0)
    yield make("Cast", [f"{node.name}/codes"], [f"{node.name}/rows"], f"{node.name}/cast", to=onnx.TensorProto.FLOAT)
    yield make("Gather", [f"{name}/scales", ids], [f"{node.name}/scales"], f"{node.name}/scale", axis=0)
    yield make("Mul", [f"{node.name}/rows", f"{node.name}/scales"], node.output, f"{node.name}/scaled")
