"""Guarantees of a format: properties that are checked in every artifact."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

from export.core.artifact_graph import ArtifactGraph, Operator
from export.core.layer_names import matching
from zoo.common.errors import ParityError

# Prefix of TensorFlow operators that plain LiteRT lacks.
FLEX = "Flex"


def _integer(graph: ArtifactGraph, excluded: Collection[str]) -> Iterator[str]:
    """Every operator except casts has integer inputs and outputs."""
    for operator in graph.operators:
        if operator.real and operator.name not in excluded:
            yield f"{operator.name} ({operator.kind}) computes in floating point"


def _int8(graph: ArtifactGraph, excluded: Collection[str]) -> Iterator[str]:
    """Every operator with weights computes in integers, and its weights are int8."""
    yield from _int8_weights(graph, excluded)
    for operator in _weighted(graph, excluded):
        if operator.integer is False:
            yield f"{operator.name} ({operator.kind}) computes in floating point"


def _int8_weights(graph: ArtifactGraph, excluded: Collection[str]) -> Iterator[str]:
    """Every operator with weights has integer weights of at most 8 bits."""
    return _at_most(graph, 8, _weighted(graph, excluded))


def _int4_weights(graph: ArtifactGraph, excluded: Collection[str]) -> Iterator[str]:
    """As int8_weights, and some weights have 4 bits."""
    yield from _int8_weights(graph, excluded)
    if all(weight.bits > 4 for weight in graph.weights):
        yield "no weights have 4 bits"


def _int8_matrices(graph: ArtifactGraph, excluded: Collection[str]) -> Iterator[str]:
    """As int8_weights, except convolutions, which may have float weights."""
    return _at_most(graph, 8, [o for o in _weighted(graph, excluded) if "Conv" not in o.kind])


def _float16_weights(graph: ArtifactGraph, excluded: Collection[str]) -> Iterator[str]:
    """Every operator with weights has weights of at most 16 bits."""
    return _at_most(graph, 16, _weighted(graph, excluded))


def _at_most(graph: ArtifactGraph, bits: int, operators: Sequence[Operator]) -> Iterator[str]:
    """Yield the operators with weights of more than `bits` bits."""
    for operator in operators:
        wide = [graph.weights[i] for i in operator.kernels if graph.weights[i].bits > bits]
        if wide:
            yield f"{operator.name} ({operator.kind}) has weights in {wide[0].dtype}"
    if not any(operator.kernels for operator in graph.operators):
        yield "no operator has weights"


def _weighted(graph: ArtifactGraph, excluded: Collection[str]) -> list[Operator]:
    """Return the operators with weights, except the excluded ones."""
    return [o for o in graph.operators if o.kernels and o.integer is not None and o.name not in excluded]


GUARANTEES: Mapping[str, Callable[[ArtifactGraph, Collection[str]], Iterator[str]]] = {
    "integer": _integer,
    "int8": _int8,
    "int8_weights": _int8_weights,
    "int8_matrices": _int8_matrices,
    "int4_weights": _int4_weights,
    "float16_weights": _float16_weights,
}
# Guarantees of formats that need calibration data.
CALIBRATED = {"integer", "int8"}
# Guarantees of formats with half the size of float32; those of integers have a quarter or less.
HALVES = {"float16_weights"}


def check_guarantees(graph: ArtifactGraph, guarantees: Sequence[str], manifest: Mapping[str, Any]) -> None:
    """Check the guarantees of an artifact's format and options.

    Args:
        graph: the artifact's.
        guarantees: names of `GUARANTEES`.
        manifest: "format", "options", "metadata" and "compression" of the manifest.

    Raises:
        ParityError: a guarantee does not hold; the message names the operator.
    """
    excluded = _excluded(graph, manifest)
    broken = [(name, found) for name in guarantees for found in GUARANTEES[name](graph, excluded)]
    broken += [("standard operators", found) for found in _unsupported(graph, manifest["options"])]
    broken += [("batch", found) for found in _batches(graph, manifest["options"])]
    if broken:
        name, first = broken[0]
        more = f", and {len(broken) - 1} more" if len(broken) > 1 else ""
        raise ParityError(f"{manifest['format']} guarantees {name}. Received: {first}{more}")


def _excluded(graph: ArtifactGraph, manifest: Mapping[str, Any]) -> set[str]:
    """Return the operators that may compute in floating point: those that a compression step or the option `exclude`
    excluded from quantization, and the first operators after the columns of a table; see
    `export.backends.litert.quantize`.
    """
    facts = (manifest["compression"] or {}).get("facts", {})
    record = manifest.get("quantization") or {}
    layers, others = record.get("excluded", ()), record.get("layers", ())
    excluded = {*facts.get("float_operators", ()), *matching([o.name for o in graph.operators], layers, others)}
    if "tabular" in manifest["metadata"]:
        excluded |= {operator.name for operator in graph.operators if operator.real and not _before(graph, operator)}
    return excluded


def _before(graph: ArtifactGraph, operator: Operator) -> list[Operator]:
    """Return the operators before one, except casts of weights."""
    return [graph.operators[i] for i in operator.before if not graph.operators[i].kernels]


def _unsupported(graph: ArtifactGraph, options: Mapping[str, Any]) -> Iterator[str]:
    """Yield the operators that the format's runtime lacks; custom layers in a .keras file do not count."""
    if graph.of_layers:
        return
    for operator in graph.operators:
        if operator.unsupported and not (options.get("flex") and operator.kind.startswith(FLEX)):
            yield f"{operator.name} ({operator.kind})"


def _batches(graph: ArtifactGraph, options: Mapping[str, Any]) -> Iterator[str]:
    """Yield the inputs with another batch size than the option `batch`; 0 or None stands for a dynamic one."""
    if "batch" not in options:
        return
    expected = options["batch"] or None
    for value in graph.inputs:
        if value.shape[:1] != (expected,):
            yield f"{value.name} with the shape {list(value.shape)}, where batch={options['batch']}"
