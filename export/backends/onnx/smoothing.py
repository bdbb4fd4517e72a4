"""Smoothing: even out the channels that a matrix product of a transformer reads before 8 bits represent them.

Few channels of a normalization or of GELU are many times as large as the others, and one scale for all leaves those few
steps. The inputs are divided by a scale for each channel and the rows of the weights multiplied by it, which changes no
output (SmoothQuant, Xiao et al. 2022, arXiv:2211.10438).
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from export.backends.onnx.fuse import Graph
from export.backends.onnx.histograms import session_of
from export.backends.onnx.weights import replace_field
from zoo.common.lazy import LazyModule, np

if TYPE_CHECKING:
    import numpy as _np
    from onnx import ModelProto, NodeProto

onnx = LazyModule("onnx")

# Exponent of the inputs in the scales; that of the weights is one minus it. Of all-MiniLM-L6-v2's vectors of plain
# sentences the lowest cosine, in onnx_int8 after calibration on the same 23 texts, was 0.990 without, 0.991 with 0.5,
# 0.995 with 0.6, 0.998 with 0.75; after calibration on 12 of them 0.992 with 0.75.
ALPHA = 0.75
PRODUCTS = ("MatMul", "Gemm")
SMALLEST = 1e-5
# The smallest magnitude of a channel as a fraction of the mean one: a channel that calibration data does not reach, as
# of ReLU, would be multiplied so much that the first value in it leaves the others no steps.
REACHED = 0.1
BATCHES = 5  # of calibration data, spread over all of it: those of a decoder are its steps in order


def has_attention(model: ModelProto) -> bool:
    """Return whether a model is a transformer."""
    return any(node.op_type == "Softmax" for node in model.graph.node)


def smooth(model: ModelProto, feeds: Iterable[Mapping[str, Any]], folder: Path, alpha: float = ALPHA) -> None:
    """Smooth the inputs of the matrix products with constant weights.

    Args:
        model: a float model, which changes.
        feeds: calibration data, in batches by input.
        folder: for a temporary file.
        alpha: exponent of the inputs.
    """
    graph = Graph(model)
    found = products(graph)
    if not found:
        return
    peaks, inserted = _peaks(model, list(found), _spread(list(feeds)), folder), {}
    for x, nodes in found.items():
        kernels = [rows(graph, node) for node in nodes]
        largest = np.max([np.abs(kernel).max(axis=1) for kernel in kernels], axis=0)
        reached = np.maximum(peaks[x], max(SMALLEST, REACHED * float(peaks[x].mean())))
        scales = reached**alpha / np.maximum(largest, SMALLEST) ** (1 - alpha)
        scales = (scales / np.exp(np.log(scales).mean())).astype("float32")
        for node, kernel in zip(nodes, kernels, strict=True):
            _replace_weights(model, node, kernel * scales[:, None])
        norm = _norm_before(graph, x)
        if norm is not None:
            for place in range(1, len(norm.input)):
                norm.input[place] = _store(
                    model, f"{norm.name}/smooth{place}", graph.constant(norm.input[place]) / scales
                )
            continue
        factors = _store(model, f"{x}/factors", 1 / scales)
        inserted[nodes[0].name] = onnx.helper.make_node("Mul", [x, factors], [f"{x}/smooth"], f"{nodes[0].name}/smooth")
        for node in nodes:
            node.input[0] = f"{x}/smooth"
    replace_field(model.graph.node, [n for node in model.graph.node for n in (inserted.get(node.name), node) if n])


def _spread(feeds: Sequence[Mapping[str, Any]]) -> Sequence[Mapping[str, Any]]:
    """Return `BATCHES` of the batches at equal distances."""
    return [feeds[i * len(feeds) // BATCHES] for i in range(BATCHES)] if len(feeds) > BATCHES else feeds


def products(graph: Graph) -> dict[str, list[NodeProto]]:
    """Return the matrix products with constant weights by their other input."""
    found: dict[str, list[NodeProto]] = {}
    for node in graph.nodes:
        constant = graph.constant(node.input[1]) if node.op_type in PRODUCTS else None
        if constant is not None and constant.ndim == 2 and not attribute(node, "transA"):
            found.setdefault(node.input[0], []).append(node)
    return found


def attribute(node: NodeProto, name: str) -> int:
    """Return an attribute that is a whole number, 0 by default."""
    return next((a.i for a in node.attribute if a.name == name), 0)


def rows(graph: Graph, node: NodeProto) -> _np.ndarray:
    """Return the weights (inputs, outputs)."""
    weights = graph.constant(node.input[1])
    return weights.T if attribute(node, "transB") else weights


def _replace_weights(model: ModelProto, node: NodeProto, kernel: _np.ndarray) -> None:
    array = kernel.T if attribute(node, "transB") else kernel
    node.input[1] = _store(model, f"{node.name}/smooth_weights", array)


def _store(model: ModelProto, name: str, array: _np.ndarray) -> str:
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.ascontiguousarray(array, "float32"), name))
    return name


def _norm_before(graph: Graph, x: str) -> NodeProto | None:
    """Return the layer normalization that only these products read, through a reshape."""
    reshape = graph.producer(x, "Reshape")
    norm = graph.producer(reshape.input[0] if reshape else x, "LayerNormalization")
    alone = norm is not None and (graph.reader(norm.output[0], "Reshape") is reshape if reshape else False)
    return norm if alone and graph.reader(x, "Gemm") is not None else None


def _peaks(model: ModelProto, names: list[str], feeds: Iterable[Mapping[str, Any]], folder: Path) -> dict[str, Any]:
    """Return the largest magnitude of each channel of tensors, by name."""
    with tempfile.TemporaryDirectory(dir=folder) as place:
        session, found = session_of(model, names, Path(place)), dict[str, Any]()
        for name, values in _values(session, names, feeds):
            largest = np.abs(values).max(axis=tuple(range(values.ndim - 1)))
            found[name] = np.maximum(found.get(name, 0.0), largest)
        return found


def _values(session: Any, names: list[str], feeds: Iterable[Mapping[str, Any]]) -> Iterator[tuple[str, Any]]:
    for feed in feeds:
        yield from zip(names, session.run(names, dict(feed)), strict=True)
