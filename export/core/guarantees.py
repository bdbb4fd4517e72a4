"""What a format claims of every artifact by its name, looked up in the artifact itself."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

from export.core.artifact_graph import ArtifactGraph, Operator
from zoo.common.errors import ParityError

# Operators that only LiteRT with TensorFlow's own ones linked in has.
FLEX = "Flex"


def _integer(stored: ArtifactGraph, excluded: Collection[str]) -> Iterator[str]:
    """Every operator takes and gives integers, but for casts."""
    for operator in stored.operators:
        if operator.real and operator.name not in excluded:
            yield f"{operator.name} ({operator.kind}) computes in floating point"


def _int8(stored: ArtifactGraph, excluded: Collection[str]) -> Iterator[str]:
    """Every operator with weights computes in integers, and its weights are int8."""
    yield from _int8_weights(stored, excluded)
    for operator in _weighted(stored, excluded):
        if operator.integer is False:
            yield f"{operator.name} ({operator.kind}) computes in floating point"


def _int8_weights(stored: ArtifactGraph, excluded: Collection[str]) -> Iterator[str]:
    """The weights of every operator that multiplies by some are integers of at most 8 bits."""
    return _narrow(stored, excluded, 8, _weighted(stored, excluded))


def _int4_weights(stored: ArtifactGraph, excluded: Collection[str]) -> Iterator[str]:
    """As int8_weights, and some have 4 bits."""
    yield from _int8_weights(stored, excluded)
    if all(weight.bits > 4 for weight in stored.weights):
        yield "no weights have 4 bits"


def _int8_matrices(stored: ArtifactGraph, excluded: Collection[str]) -> Iterator[str]:
    """As int8_weights, but for convolutions, which may stay in floating point."""
    return _narrow(stored, excluded, 8, [o for o in _weighted(stored, excluded) if "Conv" not in o.kind])


def _float16_weights(stored: ArtifactGraph, excluded: Collection[str]) -> Iterator[str]:
    """The weights of every operator that multiplies by some have at most 16 bits."""
    return _narrow(stored, excluded, 16, _weighted(stored, excluded))


def _narrow(stored: ArtifactGraph, _: Collection[str], bits: int, operators: Sequence[Operator]) -> Iterator[str]:
    for operator in operators:
        wide = [stored.weights[place] for place in operator.kernels if stored.weights[place].bits > bits]
        if wide:
            yield f"{operator.name} ({operator.kind}) has weights in {wide[0].dtype}"
    if not any(operator.kernels for operator in stored.operators):
        yield "nothing multiplies by weights"


def _weighted(stored: ArtifactGraph, excluded: Collection[str]) -> list[Operator]:
    """Return the operators that multiply by weights, but those spared."""
    return [o for o in stored.operators if o.kernels and o.integer is not None and o.name not in excluded]


GUARANTEES: Mapping[str, Callable[[ArtifactGraph, Collection[str]], Iterator[str]]] = {
    "integer": _integer,
    "int8": _int8,
    "int8_weights": _int8_weights,
    "int8_matrices": _int8_matrices,
    "int4_weights": _int4_weights,
    "float16_weights": _float16_weights,
}
# What cannot be had without having seen examples.
CALIBRATED = {"integer", "int8"}


def check_guarantees(stored: ArtifactGraph, guarantees: Sequence[str], manifest: Mapping[str, Any]) -> None:
    """Compare an artifact with what its format and its options promise.

    Args:
        stored: what stands in it.
        claims: names of `GUARANTEES`.
        manifest: "format", "options", "metadata" and "compression" as they are in the manifest.

    Raises:
        ParityError: a promise does not hold; names the layer.
    """
    excluded = _spared(stored, manifest)
    broken = [(claim, found) for claim in guarantees for found in GUARANTEES[claim](stored, excluded)]
    broken += [("of standard operators", found) for found in _foreign(stored, manifest["options"])]
    broken += [("batch", found) for found in _batches(stored, manifest["options"])]
    if broken:
        claim, first = broken[0]
        more = f", and {len(broken) - 1} more" if len(broken) > 1 else ""
        raise ParityError(f"{manifest['format']} is claimed to be {claim}. Received: {first}{more}")


def _spared(stored: ArtifactGraph, manifest: Mapping[str, Any]) -> set[str]:
    """Return the operators that may compute in floating point whatever is claimed.

    Those that a step of a chain left so and named, and those that take the rows of a table; see `export.formats.tflite`.
    """
    facts = (manifest["compression"] or {}).get("facts", {})
    excluded = set(facts.get("float_operators", ()))
    if "tabular" in manifest["metadata"]:
        excluded |= {operator.name for operator in stored.operators if operator.real and not _after(stored, operator)}
    return excluded


def _after(stored: ArtifactGraph, operator: Operator) -> list[Operator]:
    """Return the operators before one, casts of weights left out."""
    return [stored.operators[place] for place in operator.before if not stored.operators[place].kernels]


def _foreign(stored: ArtifactGraph, options: Mapping[str, Any]) -> Iterator[str]:
    """Yield the operators that the format's runtime lacks; layers of others in a .keras file are no operators."""
    if stored.of_layers:
        return
    for operator in stored.operators:
        if operator.unsupported and not (options.get("flex") and operator.kind.startswith(FLEX)):
            yield f"{operator.name} ({operator.kind})"


def _batches(stored: ArtifactGraph, options: Mapping[str, Any]) -> Iterator[str]:
    """Yield the inputs whose batch is not the one asked for; 0 or None asks for a free one."""
    if "batch" not in options:
        return
    wanted = options["batch"] or None
    for value in stored.inputs:
        if value.shape[:1] != (wanted,):
            yield f"{value.name} with the shape {list(value.shape)}, where batch={options['batch']}"
