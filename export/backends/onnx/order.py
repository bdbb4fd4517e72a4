"""Checks the graphs of an .onnx file, nested ones and functions included, and sorts the main one."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from zoo.common.errors import DataError
from zoo.common.graphs import check_calls, check_unique, topological_order

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto, NodeProto


class Node(NamedTuple):
    """A node of an .onnx file, read once: each access to a field of the parsed file takes as long as a call."""

    op_type: str
    name: str
    domain: str
    input: list[str]
    output: list[str]
    attribute: Any


@dataclasses.dataclass(frozen=True)
class _Body:
    """Nodes with the names that they are given and that they return."""

    nodes: Sequence[Node]
    given: Sequence[str]
    returned: Sequence[str]


def ordered_nodes(model: ModelProto) -> list[Node]:
    """Return the nodes of a model's graph in topological order.

    Raises:
        DataError: a graph or function, nested ones included, has a cycle, calls itself, lacks a value that it reads,
            or computes a value twice.
    """
    bodies = {(f.domain, f.name): _Body(_read(f.node), list(f.input), list(f.output)) for f in model.functions}
    check_unique(((f.domain, f.name) for f in model.functions), "functions named")
    check_calls({key: _called(body.nodes) for key, body in bodies.items()}, "function")
    for body in bodies.values():
        _order(body, set())
    main = _of_graph(model.graph)
    return [main.nodes[place] for place in _order(main, set())[0]]


def _read(nodes: Iterable[NodeProto]) -> list[Node]:
    return [Node(n.op_type, n.name, n.domain, list(n.input), list(n.output), n.attribute) for n in nodes]


def nested_graphs(node: Node | NodeProto) -> Iterator[GraphProto]:
    """Yield the graphs in the attributes of a node, such as the branches of an If."""
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs


def _called(nodes: Iterable[Node | NodeProto]) -> Iterator[tuple[str, str]]:
    """Yield the functions that nodes may call, nested nodes included."""
    for node in nodes:
        yield node.domain, node.op_type
        for graph in nested_graphs(node):
            yield from _called(graph.node)


def _of_graph(graph: GraphProto) -> _Body:
    check_unique((value.name for value in graph.input), "inputs named")
    stored = [*graph.initializer, *(sparse.values for sparse in graph.sparse_initializer)]
    check_unique((tensor.name for tensor in stored), "initializers named")
    given = {value.name: None for value in graph.input} | {tensor.name: None for tensor in stored}
    return _Body(_read(graph.node), list(given), [value.name for value in graph.output])


def _order(body: _Body, known: set[str]) -> tuple[list[int], set[str]]:
    """Check a graph.

    Args:
        body: the graph.
        known: the names of the graphs around it; the same afterwards.

    Returns:
        The numbers of its nodes in topological order, and the names that it reads from the graphs around it.
    """
    made = _made(body)
    own = made.keys() - known
    known |= own
    reads = [_reads(node, known) for node in body.nodes]
    lost = next((name for names in (*reads, body.returned) for name in names if name not in known), None)
    if lost is not None or not body.returned:
        raise DataError("it has no outputs" if lost is None else f"no node computes {lost[:80]!r}")
    check_unique(body.returned, "outputs named")
    known -= own
    before = [[made[name] for name in names if made.get(name, -1) >= 0] for names in reads]
    order = topological_order(before, lambda place: _title(body.nodes[place]))
    return order, set().union(body.returned, *reads) - made.keys()


def _made(body: _Body) -> dict[str, int]:
    """Return the node that computes each name; -1 for a name that is given."""
    made = dict.fromkeys(body.given, -1)
    for place, node in enumerate(body.nodes):
        for name in filter(None, node.output):
            if name in made:
                raise DataError(f"two nodes or inputs have the output {name[:80]!r}")
            made[name] = place
    return made


def _reads(node: Node, known: set[str]) -> list[str]:
    """Return the names that a node reads, also those that graphs in its attributes read from outside."""
    names = [name for name in node.input if name]
    for graph in nested_graphs(node):
        names += _order(_of_graph(graph), known)[1]
    return names


def _title(node: Node) -> str:
    return repr(node.name or next(iter(node.output), node.op_type))
