"""The TensorFlow operators that a model runs at inference."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Any

from zoo.common import compat
from zoo.common.lazy import keras, tf


def operators(model: Any) -> list[tuple[str, str]]:
    """Return the operators that a model runs at inference, each with the name of its layer."""
    specs = [tf.TensorSpec((None, *tensor.shape[1:]), tensor.dtype) for tensor in model.inputs]

    def predict(*values: Any) -> Any:
        # Keras flattens dictionaries in the order of `model.inputs`.
        return model(keras.tree.pack_sequence_as(model.input, values), training=False)

    graph = tf.function(predict, autograph=False).get_concrete_function(*specs).graph.as_graph_def()
    nodes = [*graph.node, *(node for function in graph.library.function for node in function.node_def)]
    layers = {layer.name for layer in compat.flatten_layers(model, include_self=False)}
    return list(dict.fromkeys((node.op, _layer(node.name, layers)) for node in nodes))


def _layer(name: str, layers: Collection[str]) -> str:
    """Return the layer of a node: the innermost scope with a layer's name, with or without Keras' number."""
    scopes = name.split("/")
    for scope in reversed(scopes):
        for layer in (re.sub(r"_\d+$", "", scope), scope):
            if layer in layers:
                return layer
    return scopes[0]
