"""Checks a .tflite file before its content is used: sizes, indices, and the order of its graphs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from export.core.compat import schema
from zoo.common.errors import DataError
from zoo.common.graphs import check_calls
from zoo.common.lazy import np

OFFSET_BYTES = 4  # of one entry of a list in a flatbuffer
# The fields of an operator's options that name other graphs, by the ends of their names.
CALLS = ("subgraphIndex", "SubgraphIndex", "SubgraphIndices", "subgraph")
SUBGRAPHS = "graphs"
OPERATORS = 50_000  # which flatbuffers reads in about 5 s
RANK = 64  # dimensions of an array in NumPy
SLACK = 1 << 16  # bytes of names that a writer may share


class Whole(bytearray):
    """A file's content that raises DataError on slices beyond its end, which flatbuffers would cut off silently.

    Names and buffers that many entries share are copied once for each; the copies may be as large as the file.
    """

    def __init__(self, content: bytes) -> None:
        super().__init__(content)
        self._left = len(content) + SLACK

    def __getitem__(self, key: Any) -> Any:
        """Return a byte or a complete slice."""
        if isinstance(key, slice) and key.stop is not None and key.stop > len(self):
            raise DataError("it is cut off")
        found = super().__getitem__(key)
        if isinstance(key, slice):
            self._left -= len(found)
            if self._left < 0:
                raise DataError("its parts share content, so that it unpacks to more than its size")
        return found


def check_sizes(content: Whole) -> None:
    """Raise DataError if a file lacks a buffer, or its lists have more entries than it has room for.

    The latter happens if they share content.
    """
    model, size = schema.Model.GetRootAs(content, 0), len(content)
    _check_counts(size, model.SubgraphsLength())
    graphs = [model.Subgraphs(place) for place in range(model.SubgraphsLength())]
    counts = [model.BuffersLength(), model.OperatorCodesLength(), model.SignatureDefsLength(), model.MetadataLength()]
    counts += [count for graph in graphs for count in (graph.OperatorsLength(), graph.TensorsLength())]
    _check_counts(size, *counts)
    operators = [graph.Operators(place) for graph in graphs for place in range(graph.OperatorsLength())]
    if len(operators) > OPERATORS:
        raise DataError(f"it has {len(operators):,} operators, and at most {OPERATORS:,} are read")
    counts += [count for one in operators for count in (one.InputsLength(), one.OutputsLength())]
    tensors = [graph.Tensors(place) for graph in graphs for place in range(graph.TensorsLength())]
    _in_range((tensor.Buffer() for tensor in tensors), model.BuffersLength(), "buffers", "a tensor")
    counts += [count for one in tensors for count in (one.ShapeLength(), one.ShapeSignatureLength())]
    counts += [sparsity.DimMetadataLength() for sparsity in (tensor.Sparsity() for tensor in tensors) if sparsity]
    signatures = [model.SignatureDefs(place) for place in range(model.SignatureDefsLength())]
    counts += [count for one in signatures for count in (one.InputsLength(), one.OutputsLength())]
    _check_counts(size, *counts)


def _check_counts(size: int, *counts: int) -> None:
    """Raise DataError if lists of these lengths do not fit into a file."""
    if sum(counts) * OFFSET_BYTES > size:
        raise DataError("its parts share content, so that it unpacks to more than its size")


def check_graphs(model: Any) -> None:
    """Check all graphs of a file.

    Args:
        model: its content.

    Raises:
        DataError: an index is outside its list, a size is negative, an operator reads what no earlier one computes,
            two operators compute one tensor, or a graph calls itself.
    """
    if not model.subgraphs:
        raise DataError("it has no graphs")
    for number, graph in enumerate(model.subgraphs):
        _check_graph(model, graph, f"graph {number}")
    calls = {number: set(_called(graph)) for number, graph in enumerate(model.subgraphs)}
    for called in calls.values():
        _in_range(called, len(model.subgraphs), SUBGRAPHS, "an operator")
    check_calls(calls, "graph")
    for signature in model.signatureDefs or []:
        _in_range([signature.subgraphIndex], len(model.subgraphs), SUBGRAPHS, "a signature")
        tensors = model.subgraphs[signature.subgraphIndex].tensors or []
        for items in (signature.inputs or [], signature.outputs or []):
            _in_range([item.tensorIndex for item in items], len(tensors), "tensors", "a signature")


def _check_graph(model: Any, graph: Any, name: str) -> None:
    tensors, operators = graph.tensors or [], graph.operators or []
    _in_range([o.opcodeIndex for o in operators], len(model.operatorCodes or []), "operator codes", name)
    for tensor in tensors:
        _check_shape(tensor, name)
    inputs, outputs = (listed(side) for side in (graph.inputs, graph.outputs))
    _in_range([*inputs, *outputs], len(tensors), "tensors", name)
    known = [_is_stored(model, tensor) for tensor in tensors]
    for place in inputs:
        known[place] = True
    made = [False] * len(tensors)
    for number, operator in enumerate(operators):
        _check_operator(operator, known, made, f"operator {number} of {name}")
    missing = [place for place in outputs if not known[place]]
    if missing:
        raise DataError(f"no operator of {name} computes its output, tensor {missing[0]}")


def _check_operator(operator: Any, known: list[bool], made: list[bool], name: str) -> None:
    """Check the tensors of an operator, and note those that it computes."""
    inputs, outputs = ([i for i in listed(side) if i != -1] for side in (operator.inputs, operator.outputs))
    _in_range([*inputs, *outputs], len(known), "tensors", name)
    missing = [place for place in inputs if not known[place]]
    if missing:
        raise DataError(f"{name} reads tensor {missing[0]}, which no earlier operator computes")
    for place in outputs:
        if made[place]:
            raise DataError(f"{name} computes tensor {place}, as an earlier operator does")
        made[place] = known[place] = True


def _is_stored(model: Any, tensor: Any) -> bool:
    """Return whether a tensor has a value without an operator: a constant, a variable, or nothing at all."""
    data = model.buffers[tensor.buffer].data
    return (data is not None and len(data) > 0) or bool(tensor.isVariable) or 0 in listed(tensor.shape)


def _check_shape(tensor: Any, name: str) -> None:
    sizes = [*listed(tensor.shape), *(size for size in listed(tensor.shapeSignature) if size != -1)]
    if len(sizes) > 2 * RANK:
        raise DataError(f"a tensor of {name} has {len(sizes)} sizes")
    if any(size < 0 for size in sizes):
        raise DataError(f"a tensor of {name} has the negative size {min(sizes)}")


def _called(graph: Any) -> Iterator[int]:
    """Yield the numbers of the graphs that the operators of a graph call."""
    for operator in graph.operators or []:
        for options in (operator.builtinOptions, operator.builtinOptions2):
            for key, value in vars(options).items() if options is not None else ():
                if key.endswith(CALLS):
                    yield from (int(each) for each in np.atleast_1d(value)) if value is not None else ()


def _in_range(places: Iterable[int], count: int, kind: str, name: str) -> None:
    """Raise DataError if an index is outside a list."""
    outside = next((place for place in places if not 0 <= place < count), None)
    if outside is not None:
        raise DataError(f"{name} names number {outside} of {count} {kind}")


def listed(values: Any) -> Sequence[int]:
    """Return a vector of a flatbuffer as integers; an absent one is empty."""
    return [] if values is None else [int(value) for value in values]
