"""Nodes of an ONNX graph in the form that runtimes are fast with: layer normalization, GELU, scales of channels."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, NamedTuple

from zoo.common.lazy import LazyModule, np

if TYPE_CHECKING:
    import numpy as _np
    from onnx import ModelProto, NodeProto

onnx = LazyModule("onnx")

ROOT_2 = 2**0.5
ELEMENTWISE = ("Add", "Sub", "Mul", "Div")


class Graph:
    """A graph that can be walked both ways.

    Args:
        model: what it belongs to.
    """

    def __init__(self, model: ModelProto) -> None:
        self.nodes = list(model.graph.node)
        self._constants = {tensor.name: tensor for tensor in model.graph.initializer}
        self._makers = {name: node for node in self.nodes for name in node.output}
        self._readers: dict[str, list[NodeProto]] = {}
        for node in self.nodes:
            for name in node.input:
                self._readers.setdefault(name, []).append(node)

    def constant(self, name: str) -> _np.ndarray | None:
        """Return an initializer's value."""
        return onnx.numpy_helper.to_array(self._constants[name]) if name in self._constants else None

    def elementwise(self, name: str) -> NodeProto | None:
        """Return the node that makes a tensor from another one and a constant, if nobody else reads that tensor."""
        node = self._makers.get(name)
        alone = node is not None and node.op_type in ELEMENTWISE and len(self._readers.get(name, [])) == 1
        return node if alone and self.split(node) else None

    def maker(self, name: str, kind: str) -> NodeProto | None:
        """Return the node that makes a tensor, if it is of a kind."""
        node = self._makers.get(name)
        return node if node is not None and node.op_type == kind else None

    def reader(self, name: str, kind: str) -> NodeProto | None:
        """Return the only node that reads a tensor, if it is of a kind."""
        nodes = self._readers.get(name, [])
        return nodes[0] if len(nodes) == 1 and nodes[0].op_type == kind else None

    def split(self, node: NodeProto) -> tuple[str, str] | None:
        """Return the variable and the constant input of a sum or product."""
        a, b = node.input
        return (b, a) if a in self._constants else (a, b) if b in self._constants else None


class Norm(NamedTuple):
    """A layer normalization: its nodes in order, what it normalizes, and its weights."""

    nodes: list[NodeProto]
    x: str
    gamma: str
    beta: str
    epsilon: float


def fuse_layer_norms(model: ModelProto, ranks: Mapping[str, int]) -> None:
    """Write layer normalizations over the last axis as the operator of that name.

    Args:
        model: of operator set 17 or later.
        ranks: how many axes tensors have, by name.
    """
    graph = Graph(model)
    found = list(_norms(graph, ranks))
    gone = {name for norm in found for node in norm.nodes for name in node.output}
    made = {norm.nodes[-1].output[0]: _layer_norm(norm) for norm in found}
    nodes = [
        made.get(node.output[0], node) for node in graph.nodes if node.output[0] in made or node.output[0] not in gone
    ]
    del model.graph.node[:]
    model.graph.node.extend(nodes)


def _layer_norm(norm: Norm) -> NodeProto:
    (y,) = norm.nodes[-1].output
    inputs = [norm.x, norm.gamma, *([norm.beta] if norm.beta else [])]
    return onnx.helper.make_node("LayerNormalization", inputs, [y], y, axis=-1, epsilon=norm.epsilon)


def _norms(graph: Graph, ranks: Mapping[str, int]) -> Iterator[Norm]:
    """Yield the layer normalizations of a graph, d * rsqrt(mean(d²) + epsilon) * gamma + beta where d = x - mean(x)."""
    for root in graph.nodes:
        if root.op_type == "Reciprocal" and (before := _deviation(graph, root, ranks)):
            *nodes, epsilon = before
            mean, difference = nodes[:2]
            normal = graph.reader(root.output[0], "Mul")
            scaled = normal and graph.reader(normal.output[0], "Mul")
            weights = scaled and graph.split(scaled)
            if weights is None or difference.output[0] not in normal.input:
                continue
            nodes += [root, normal, scaled]
            shifted = graph.reader(scaled.output[0], "Add")
            offset = shifted and graph.split(shifted)
            if offset and _is_vector(graph, offset[1]):
                nodes.append(shifted)
            if _is_vector(graph, weights[1]):
                beta = offset[1] if nodes[-1] is shifted else ""
                yield Norm(nodes, mean.input[0], weights[1], beta, float(epsilon))


def _deviation(graph: Graph, root: NodeProto, ranks: Mapping[str, int]) -> tuple | None:
    """Return the nodes that lead to 1 / sqrt(mean(d²) + epsilon), and epsilon, if they are all there."""
    deviation = graph.maker(root.input[0], "Sqrt")
    total = deviation and graph.maker(deviation.input[0], "Add")
    parts = total and graph.split(total)
    variance = parts and graph.maker(parts[0], "ReduceMean")
    square = variance and graph.maker(variance.input[0], "Mul")
    difference = square and square.input[0] == square.input[1] and graph.maker(square.input[0], "Sub")
    mean = difference and graph.maker(difference.input[1], "ReduceMean")
    if not mean or mean.input[0] != difference.input[0] or not all(_over_last(n, ranks) for n in (mean, variance)):
        return None
    epsilon = graph.constant(parts[1])
    return (mean, difference, square, variance, total, deviation, epsilon) if epsilon.size == 1 else None


def _over_last(node: NodeProto, ranks: Mapping[str, int]) -> bool:
    """Tell whether a mean is over the last axis, which stays."""
    given = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
    return given.get("keepdims", 1) == 1 and given.get("axes") in ([-1], [ranks.get(node.input[0], 0) - 1])


def _is_vector(graph: Graph, name: str) -> bool:
    value = graph.constant(name)
    return value is not None and value.ndim == 1


def divide_before_erf(model: ModelProto) -> None:
    """Write erf(x * 0.7071…) as erf(x / 1.4142…), from which ONNX Runtime knows GELU."""
    graph = Graph(model)
    for node in graph.nodes:
        scaled = node.op_type == "Erf" and graph.maker(node.input[0], "Mul")
        parts = scaled and graph.split(scaled)
        factor = graph.constant(parts[1]) if parts else None
        if factor is None or factor.size != 1 or not np.isclose(factor, 1 / ROOT_2, rtol=1e-6):
            continue
        name = f"{scaled.name}/root"
        model.graph.initializer.append(onnx.numpy_helper.from_array(np.array(ROOT_2, "float32"), name))
        scaled.CopyFrom(onnx.helper.make_node("Div", [parts[0], name], scaled.output, scaled.name))


def scale_channels_first(model: ModelProto) -> None:
    """Move transpositions to channels first before the sums and products with constants that lead to them.

    Where three channels come last, runtimes compute three values at a time: of MobileNetV2 it was a tenth of all time.
    """
    graph = Graph(model)
    for node in graph.nodes:
        perm = [list(a.ints) for a in node.attribute if a.name == "perm"]
        chain = list(_elementwise(graph, node)) if node.op_type == "Transpose" and perm == [[0, 3, 1, 2]] else []
        if chain:
            _transpose_before(model, graph, node, chain)


def _elementwise(graph: Graph, transpose: NodeProto) -> Iterator[NodeProto]:
    """Yield the nodes before a transposition that treat each channel by itself, the last one first."""
    node = graph.elementwise(transpose.input[0])
    while node is not None and _by_channel(graph.constant(graph.split(node)[1])):
        yield node
        node = graph.elementwise(graph.split(node)[0])


def _by_channel(value: _np.ndarray) -> bool:
    return value.size == 1 or value.shape[-1] == value.size


def _transpose_before(model: ModelProto, graph: Graph, transpose: NodeProto, chain: list[NodeProto]) -> None:
    """Rewrite [first, …, last, transposition] as [transposition, first, …, last], each in the place of another."""
    places, nodes = [*chain[::-1], transpose], []
    before, end = graph.split(chain[-1])[0], transpose.output[0]
    nodes.append(_renamed(transpose, {transpose.input[0]: before}, f"{end}/first"))
    for i, node in enumerate(chain[::-1]):
        variable, constant = graph.split(node)
        value = graph.constant(constant)
        shaped = onnx.numpy_helper.from_array(value.reshape(-1, 1, 1) if value.size > 1 else value, f"{end}/by{i}")
        model.graph.initializer.append(shaped)
        made = end if node is chain[0] else f"{end}/{i}"
        nodes.append(_renamed(node, {variable: nodes[-1].output[0], constant: shaped.name}, made))
    for place, node in zip(places, nodes, strict=True):
        place.CopyFrom(node)


def _renamed(node: NodeProto, inputs: Mapping[str, str], output: str) -> NodeProto:
    """Return a node that reads and makes other tensors."""
    made = onnx.NodeProto()
    made.CopyFrom(node)
    made.input[:] = [inputs.get(name, name) for name in node.input]
    made.output[:] = [output]
    return made
