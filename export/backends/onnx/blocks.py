"""int8 weights with a scale for each block of inputs, in operators of the standard.

ONNX Runtime computes a product with such weights as MatMulNBits, which quantizes the activations block by block too.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from export.backends.onnx.fuse import Graph
from export.backends.onnx.smoothing import products, rows
from export.backends.onnx.weights import replace_field
from export.quantization.grid import LARGEST_CODE
from zoo.common.lazy import LazyModule, np

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto

onnx = LazyModule("onnx")

OPSET = 21  # the first with blocks
ZERO = 128  # the code of 0


def quantize_blocks(model: ModelProto, block: int) -> None:
    """Quantize the constant weights of the matrix products with as many inputs as a number of blocks has.

    Args:
        model: a float model in operator set 21 or later, which changes.
        block: inputs with one scale.
    """
    graph = Graph(model)
    chosen = {node.name for nodes in products(graph).values() for node in nodes if len(rows(graph, node)) % block == 0}
    nodes = list(model.graph.node)
    changed = [new for n in nodes for new in (_product(model, graph, n, block) if n.name in chosen else [n])]
    replace_field(model.graph.node, changed)


def _product(model: ModelProto, graph: Graph, node: NodeProto, block: int) -> Iterator[NodeProto]:
    """Yield the nodes of a product with quantized weights, and of the sum with its bias."""
    kernel, name, make = rows(graph, node), node.name, onnx.helper.make_node
    blocks = kernel.reshape(-1, block, kernel.shape[1])
    scales = np.abs(blocks).max(axis=1) / LARGEST_CODE
    codes = np.rint(blocks / np.where(scales > 0, scales, 1.0)[:, None]).reshape(kernel.shape) + ZERO
    # ONNX Runtime rewrites int8 codes for x86 without VNNI, and gives them a zero point of the wrong shape.
    arrays = {"codes": codes.astype("uint8"), "scales": scales.astype("float32")}
    arrays["zeros"] = np.full(scales.shape, ZERO, "uint8")
    for suffix, array in arrays.items():
        model.graph.initializer.append(onnx.numpy_helper.from_array(array, f"{name}/{suffix}"))
    bias = node.op_type == "Gemm" and len(node.input) > 2
    output, weights = (f"{name}/product" if bias else node.output[0]), f"{name}/weights"
    given = [f"{name}/{suffix}" for suffix in arrays]
    yield make("DequantizeLinear", given, [weights], weights, axis=0, block_size=block)
    yield make("MatMul", [node.input[0], weights], [output], name)
    if bias:
        yield make("Add", [output, node.input[2]], node.output, f"{name}/bias")
