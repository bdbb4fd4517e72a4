"""What is known to fail in converters, looked for in the network before anything is converted, with what mends it."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from zoo.common.errors import UnsupportedExport
from zoo.common.lazy import tf

if TYPE_CHECKING:
    from export.core.format import Wanted
    from export.source.source import Source

# Operators of TensorFlow that draw random numbers.
RANDOM = re.compile(r"Random|Multinomial|TruncatedNormal")
LISTS = "TensorListReserve"  # what recurrent layers keep their steps in

Rule = Callable[["Source", "Wanted"], Iterator[str]]


def check(source: Source, wanted: Wanted) -> None:
    """Raise UnsupportedExport for a network that a format cannot have, with the reason and what mends it.

    Args:
        source: the network.
        wanted: the format with its options.
    """
    for rule in (_free_sizes, _random, *wanted.format.rules):
        for reason in rule(source, wanted):
            raise UnsupportedExport(f"{source.metadata['model']} does not export to {wanted.format.name}: {reason}")


def _free_sizes(source: Source, _: Wanted) -> Iterator[str]:
    """Sizes beside the batch that are free: phones and calibration want fixed ones."""
    for tensor in source.model.inputs:
        if None in tensor.shape[1:]:
            yield (
                f"every size but the batch must be fixed. Received: {tensor.name} of shape {tuple(tensor.shape)}. "
                "Build it with input_shape="
            )


def _random(source: Source, _: Wanted) -> Iterator[str]:
    """Layers that draw random numbers when asked for an answer."""
    for kind, layer in source.operators:
        if RANDOM.search(kind):
            yield (
                f"it must give one answer to one input. Received: layer {layer!r}, which draws random numbers "
                f"({kind}). Let the layer do so only when called with training=True"
            )


def lacking(table: Mapping[str, str], unless: str = "") -> Rule:
    """Return a rule for operators of TensorFlow that a converter, or its runtime, has nothing for.

    Args:
        table: what mends it, by operator.
        unless: the option of the format that lets them in; "" for none.
    """

    def rule(source: Source, wanted: Wanted) -> Iterator[str]:
        for kind, layer in source.operators:
            if kind in table and not getattr(wanted.options, unless or "none", False):
                yield f"it has no such operator. Received: layer {layer!r} with {kind}. {table[kind]}"

    return rule


def operators(model: Any) -> list[tuple[str, str]]:
    """Return the operators that a network runs when asked for an answer, each with the name of its layer."""
    specs = [tf.TensorSpec((None, *tensor.shape[1:]), tensor.dtype, tensor.name) for tensor in model.inputs]
    several = isinstance(model.input, dict)

    def answer(*values: Any) -> Any:
        given = dict(zip((spec.name for spec in specs), values, strict=True)) if several else values[0]
        return model(given, training=False)

    graph = tf.function(answer, autograph=False).get_concrete_function(*specs).graph.as_graph_def()
    nodes = [*graph.node, *(node for function in graph.library.function for node in function.node_def)]
    known = {layer.name for layer in model._flatten_layers(include_self=False)}
    return list(dict.fromkeys((node.op, _layer(node.name, known)) for node in nodes))


def _layer(name: str, known: Collection[str]) -> str:
    """Return the layer that a node belongs to: the innermost scope called like one, maybe with a number of Keras'."""
    scopes = name.split("/")
    for scope in reversed(scopes):
        for layer in (re.sub(r"_\d+$", "", scope), scope):
            if layer in known:
                return layer
    return scopes[0]
