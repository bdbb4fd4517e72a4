"""TensorFlow operators that tf2onnx lacks, written with others before the conversion."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from zoo.common.lazy import tf


def lower(graph: Any) -> None:
    """Replace operators of a tf.compat.v1.GraphDef, which is changed; outputs keep their names."""
    sources = {node.name: (node.op, tuple(node.input)) for node in graph.node}
    for node in [node for node in graph.node if node.op in LOWERED]:
        LOWERED[node.op](_Writer(graph, node), node, sources)


class _Writer:
    """Adds operators next to the one that they replace."""

    def __init__(self, graph: Any, node: Any) -> None:
        self._graph, self._node = graph, node
        self.dtype = node.attr["T"].type
        self.one = self._add("one", "Const", ())
        self.one.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(1.0, tf.DType(self.dtype)))

    def _add(self, name: str, kind: str, inputs: tuple[str, ...]) -> Any:
        key = "dtype" if kind == "Const" else "T"
        added = self._graph.node.add(name=f"{self._node.name}/{name}", op=kind, input=inputs)
        added.attr[key].type = self.dtype
        return added

    def add(self, name: str, kind: str, *inputs: str) -> str:
        """Return the name of a new operator."""
        return self._add(name, kind, inputs).name

    def replace(self, kind: str, *inputs: str) -> None:
        """Make the operator another one with other inputs."""
        self._node.op = kind
        del self._node.input[:]
        self._node.input.extend(inputs)


def _erfc(writer: _Writer, node: Any, sources: Mapping[str, tuple[str, tuple[str, ...]]]) -> None:
    """Write erfc(x) = 1 - erf(x); and erfc(c (-x)) = 1 + erf(c x), as runtimes fuse it in an exact GELU."""
    value = node.input[0]
    kind, inputs = sources.get(value, ("", ()))
    first, operands = sources.get(inputs[0], ("", ())) if inputs else ("", ())
    if kind == "Mul" and first == "Neg":
        scaled = writer.add("scaled", "Mul", operands[0], inputs[1])
        writer.replace("AddV2", writer.add("erf", "Erf", scaled), writer.one.name)
    else:
        writer.replace("Sub", writer.one.name, writer.add("erf", "Erf", value))


def _log1p(writer: _Writer, node: Any, _: Any) -> None:
    writer.replace("Log", writer.add("plus", "AddV2", node.input[0], writer.one.name))


def _expm1(writer: _Writer, node: Any, _: Any) -> None:
    writer.replace("Sub", writer.add("exp", "Exp", node.input[0]), writer.one.name)


LOWERED: Mapping[str, Callable[[_Writer, Any, Any], None]] = {"Erfc": _erfc, "Expm1": _expm1, "Log1p": _log1p}
