"""Reads the layers and weights of a .keras file without building the model or importing its layers."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from export.core.artifact_graph import ArtifactGraph, Operator, Value, Weight
from zoo.common.errors import DataError
from zoo.common.graphs import check_unique, topological_order
from zoo.common.lazy import np
from zoo.reading.keras_models import WEIGHTS, check_values, h5py, open_archive, read_config

WEIGHTED = ("Conv", "Dense", "Attention", "LSTM", "GRU", "Embedding")
TENSOR = "__keras_tensor__"
REGISTERED, OWN = "registered_name", "keras"


def read(path: Path) -> ArtifactGraph:
    """Return the graph of a file; raises DataError, or an error of the parser, if it is no .keras file."""
    with open_archive(path) as archive:
        config = read_config(archive)
        layers = list(_layers(config))
        weights = list(_weights(archive.read(WEIGHTS))) if WEIGHTS in archive.namelist() else []
    outer = config.get("config", {}).get("layers", ())
    inputs = [_input(layer) for layer in outer if layer.get("class_name") == "InputLayer"]
    operators = [_operator(layer) for layer in layers if layer.get("class_name") != "InputLayer"]
    if not operators:
        raise DataError("it has no layers")
    return ArtifactGraph("keras", operators, weights, inputs, [], of_layers=True)


def _layers(config: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the configurations of the layers of a model and of nested models."""
    waiting = [iter(_ordered(config))]
    while waiting:
        layer = next(waiting[-1], None)
        if layer is None:
            waiting.pop()
        elif "layers" in layer.get("config", {}):
            waiting.append(iter(_ordered(layer)))
        else:
            yield layer


def _ordered(config: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the layers of a model in the order of the file; raises DataError if they form a cycle."""
    layers = config.get("config", {}).get("layers", [])
    names = [layer.get("name") or layer.get("config", {}).get("name") for layer in layers]
    check_unique(filter(None, names), "layers named")
    # A shared layer has several calls, which may depend on each other.
    calls = [(name, turn) for name, layer in zip(names, layers, strict=True) for turn in range(_turns(layer))]
    places = {call: place for place, call in enumerate(calls)}
    before = [
        [places[origin] for origin in _origins(call) if origin in places]
        for layer in layers
        for call in layer.get("inbound_nodes") or ([],)
    ]
    topological_order(before, lambda place: repr(calls[place][0]))
    return layers


def _turns(layer: dict[str, Any]) -> int:
    return max(1, len(layer.get("inbound_nodes") or ()))


def _origins(call: Any) -> Iterator[tuple[str, int]]:
    """Yield the layers that a call of a layer reads, and which of their calls, as Keras 3 and Keras 2 write them."""
    waiting = [call]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict) and value.get("class_name") == TENSOR:
            name, turn, _ = value["config"]["keras_history"]
            yield str(name), int(turn)
        elif isinstance(value, dict):
            waiting.extend(value.values())
        elif isinstance(value, list) and [type(part) for part in value[:3]] == [str, int, int]:
            yield value[0], value[1]
        elif isinstance(value, list):
            waiting.extend(value)


def _operator(layer: dict[str, Any]) -> Operator:
    kind, name = str(layer["class_name"]), str(layer["config"].get("name", ""))
    unsupported = str(layer.get("module") or "").partition(".")[0] != OWN
    computes = any(word in kind for word in WEIGHTED)
    return Operator(
        f"{layer.get(REGISTERED) or kind}" if unsupported else kind,
        name,
        False if computes else None,
        True,
        unsupported=unsupported,
    )


def _input(layer: dict[str, Any]) -> Value:
    config = layer["config"]
    dtype = config.get("dtype", "float32")
    return Value(str(config.get("name")), tuple(config["batch_shape"]), dtype if isinstance(dtype, str) else "float32")


def _weights(content: bytes) -> Iterator[Weight]:
    """Yield the stored variables; raises ValueError for external or virtual values, which Keras does not write."""
    with h5py.File(io.BytesIO(content), "r") as file:
        check_values(file, len(content))
        nodes: list[Any] = []
        file.visititems(lambda _, node: nodes.append(node) if isinstance(node, h5py.Dataset) else None)
        for node in nodes:
            if node.dtype.kind not in "fiu" or "/optimizer/" in f"{node.name}/":
                continue
            array = np.asarray(node)
            yield Weight(node.name.strip("/"), array.dtype.name, array.shape, array)
