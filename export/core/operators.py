"""The TensorFlow operators that a model runs."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Any

from zoo.common.lazy import tf


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
