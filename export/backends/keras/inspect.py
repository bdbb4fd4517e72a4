"""Reads the layers and weights of a .keras file without building the model or importing its layers."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from export.core.artifact_graph import ArtifactGraph, Operator, Value, Weight
from zoo.common.errors import DataError
from zoo.common.lazy import LazyModule, np

h5py = LazyModule("h5py")

CONFIG, WEIGHTS = "config.json", "model.weights.h5"
# Keras does not compress: a file that unpacks to much more than its size is not from Keras.
UNPACKED, SLACK, CONFIG_BYTES = 20, 1 << 20, 64 << 20
WEIGHTED = ("Conv", "Dense", "Attention", "LSTM", "GRU", "Embedding")
REGISTERED, OWN = "registered_name", "keras"


def read(path: Path) -> ArtifactGraph:
    """Return the graph of a file; raises DataError, or an error of the parser, if it is no .keras file."""
    with zipfile.ZipFile(path) as file:
        sizes = {entry.filename: entry.file_size for entry in file.infolist()}
        if sum(sizes.values()) > UNPACKED * path.stat().st_size + SLACK or sizes.get(CONFIG, 0) > CONFIG_BYTES:
            raise DataError("it unpacks to much more than Keras writes")
        config = json.loads(file.read(CONFIG))
        layers = list(_layers(config))
        weights = list(_weights(file.read(WEIGHTS))) if WEIGHTS in sizes else []
    outer = config.get("config", {}).get("layers", ())
    inputs = [_input(layer) for layer in outer if layer.get("class_name") == "InputLayer"]
    operators = [_operator(layer) for layer in layers if layer.get("class_name") != "InputLayer"]
    if not operators:
        raise DataError("it has no layers")
    return ArtifactGraph("keras", operators, weights, inputs, [], of_layers=True)


def _layers(config: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the configurations of the layers of a model and of nested models."""
    for layer in config.get("config", {}).get("layers", ()):
        if "layers" in layer.get("config", {}):
            yield from _layers(layer)
        else:
            yield layer


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
    """Yield the stored variables; raises DataError for external or virtual datasets, which Keras does not write."""
    with h5py.File(io.BytesIO(content), "r") as file:
        nodes: list[Any] = []
        file.visititems(lambda _, node: nodes.append(node) if isinstance(node, h5py.Dataset) else None)
        for node in nodes:
            if node.dtype.kind not in "fiu" or "/optimizer/" in f"{node.name}/":
                continue
            if node.external or node.is_virtual or node.nbytes > len(content):
                raise DataError(f"the values of {node.name} are not in the file")
            array = np.asarray(node)
            yield Weight(node.name.strip("/"), array.dtype.name, array.shape, array)
