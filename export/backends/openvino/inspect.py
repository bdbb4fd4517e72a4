"""Reads the graph of an OpenVINO model: an .xml file with a .bin file next to it."""

from __future__ import annotations

import math
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

from export.core.artifact_graph import ArtifactGraph, Operator, Value, Weight
from zoo.common.errors import DataError, RunError
from zoo.common.graphs import check_unique, topological_order
from zoo.common.lazy import np
from zoo.reading.data_files import XML, read_graph

DTYPES = {
    "f64": "float64", "f32": "float32", "f16": "float16", "bf16": "bfloat16", "i64": "int64", "i32": "int32",
    "i16": "int16", "i8": "int8", "u8": "uint8", "i4": "int4", "u4": "uint4", "boolean": "bool",
    "FP32": "float32", "FP16": "float16", "I64": "int64", "I32": "int32", "I8": "int8", "U8": "uint8",
}  # fmt: skip
WEIGHTED = {"Convolution", "GroupConvolution", "ConvolutionBackpropData", "MatMul", "LSTMCell", "LSTMSequence"}
# Operators that move or cast values and compute nothing.
MOVES = {
    "Reshape", "Transpose", "Squeeze", "Unsqueeze", "ShapeOf", "Gather", "Concat", "Split", "VariadicSplit", "Pad",
    "StridedSlice", "Slice", "Broadcast", "Tile", "Convert", "FakeQuantize", "FakeConvert",
}  # fmt: skip
# Operators that output some of their input values.
PASSES_VALUES = (MOVES - {"Gather", "FakeConvert"}) | {"MaxPool", "ReLU", "Clamp"}
FUSED = {"Add", "ReLU", "Clamp", "PRelu", "Swish", "Sigmoid", "Tanh", "Gelu", "Subtract", "Multiply"}
PLUMBING = {"Const", "Parameter", "Result"}
# Operators between integer weights and the operator that reads them.
DEQUANTIZES = {"Convert", "Subtract", "Multiply", "Reshape", "FakeQuantize", "Transpose"}
STANDARD = "opset"


def read(path: Path) -> ArtifactGraph:
    """Return the graph of a file; raises DataError, or an error of the parser, if it is no OpenVINO model."""
    root = _parse(path)
    for inner in root.iter():
        if inner is not root and inner.find("./layers") is not None:
            _ordered(inner)
    layers = _ordered(root)
    if root.tag != "net" or not layers:
        raise DataError("it has no layers")
    return _Reader(root, layers, path.with_suffix(".bin")).graph()


def _ordered(graph: Any) -> dict[str, Any]:
    """Return the layers of a graph by their numbers, in topological order."""
    layers = graph.findall("./layers/layer")
    check_unique((layer.get("id") for layer in layers), "layers with the number")
    for layer in layers:
        if not layer.get("type"):
            raise DataError(f"the layer {layer.get('name') or layer.get('id')} has no type")
    places = {layer.get("id"): place for place, layer in enumerate(layers)}
    before: list[dict[int, None]] = [{} for _ in layers]
    for edge in graph.findall("./edges/edge"):
        source, target = edge.get("from-layer"), edge.get("to-layer")
        if source not in places or target not in places:
            raise DataError(f"an edge leads from layer {source} to layer {target}, and it has no such layers")
        before[places[target]][places[source]] = None
    order = topological_order(before, lambda place: f"layer {layers[place].get('id')}")
    return {layers[place].get("id"): layers[place] for place in order}


def _parse(path: Path) -> Any:
    content = read_graph(path, XML)
    if b"<!DOCTYPE" in content or b"<!ENTITY" in content:
        raise DataError("it declares entities, which OpenVINO never does")
    return ElementTree.fromstring(content)


def check_layers(path: Path) -> None:
    """Raise RunError for a file with a layer of an extension, at any depth, or with none that can be read."""
    try:
        root = _parse(path)
    except (DataError, OSError, ElementTree.ParseError) as error:
        raise RunError(f"Expected a model that OpenVINO reads. Received: {path}: {error}") from error
    for layer in root.iter("layer"):
        if not _is_standard(layer):
            raise RunError(
                f"An OpenVINO model must use OpenVINO's own layers. Received: {path} with the layer "
                f"{str(layer.get('type'))[:100]} of {str(layer.get('version'))[:100]}. It was not loaded: such a layer "
                "runs code from elsewhere. Get the model from a source that you trust."
            )


def _is_standard(layer: Any) -> bool:
    """Return whether a layer is of one of OpenVINO's operator sets."""
    return (layer.get("version") or STANDARD).startswith(STANDARD)


class _Reader:
    """Collects the operators and weights of a model.

    Args:
        root: the parsed file.
        layers: its layers by number.
        values: the .bin file.
    """

    def __init__(self, root: Any, layers: dict[Any, Any], values: Path) -> None:
        if not values.is_file():
            raise DataError(f"there is no {values.name} next to it")
        self._layers = layers
        self._content = np.memmap(values, np.uint8, "r") if values.stat().st_size else np.zeros(0, np.uint8)
        self._before: dict[Any, list[Any]] = {number: [] for number in layers}
        # In the order of the inputs; the file may have another one.
        for edge in sorted(root.findall("./edges/edge"), key=lambda edge: int(edge.get("to-port"))):
            self._before[edge.get("to-layer")].append(edge.get("from-layer"))
        self._weights: list[Weight] = []
        self._places: dict[Any, int | None] = {}
        self._origins: dict[Any, Any] = {}

    def graph(self) -> ArtifactGraph:
        """Return the graph."""
        places: dict[Any, int] = {}
        operators: list[Operator] = []
        for number, layer in self._layers.items():
            if layer.get("type") not in PLUMBING:
                operator = self._operator(number, layer, places)
                places[number] = len(operators)
                operators.append(operator)
        kinds = (("Parameter", "./output/port"), ("Result", "./input/port"))
        inputs, outputs = ([_value(x, p) for x in self._layers.values() if x.get("type") == k] for k, p in kinds)
        return ArtifactGraph("openvino", operators, self._weights, inputs, outputs, moved=(2, 3, 1, 0))

    def _operator(self, number: Any, layer: Any, places: dict[Any, int]) -> Operator:
        kind = layer.get("type")
        sources = self._before[number]
        origins = [self._origin(other) for other in sources]
        held = [self._weight(origin) for origin in origins if origin is not None]
        kernels = [p for p in held if p is not None and kind in WEIGHTED and len(self._weights[p].shape) > 1]
        before = tuple(places[other] for other in sources if other in places)
        integer = None
        if kind not in MOVES:
            flowing = [other for other, origin in zip(sources, origins, strict=True) if origin is None]
            small = all(self._weights[place].bits <= 8 for place in kernels)
            integer = bool(flowing) and small and all(map(self._rounded, flowing))
            if kind in FUSED and not integer:
                # A bias, or an activation that is fused with the layer before.
                integer = None
        unsupported = not _is_standard(layer)
        return Operator(kind, layer.get("name"), integer, kind not in MOVES, tuple(kernels), before, unsupported)

    def _origin(self, number: Any, depth: int = 8) -> Any:
        """Return the constant behind dequantizing layers; None if anything that they read is computed."""
        if number not in self._origins:
            kind, before = self._layers[number].get("type"), self._before[number]
            found = number if kind == "Const" else None
            if kind in DEQUANTIZES and before and depth:
                # A product of a constant and an activation is none of them, in whatever order.
                origins = [self._origin(other, depth - 1) for other in before]
                found = None if None in origins else origins[0]
            self._origins[number] = found
        return self._origins[number]

    def _rounded(self, number: Any) -> bool:
        """Return whether a layer outputs values quantized to 8 bits."""
        for _ in range(16):
            kind = self._layers[number].get("type")
            if kind == "FakeQuantize" or not self._before[number] or kind not in PASSES_VALUES:
                return kind == "FakeQuantize"
            number = self._before[number][0]
        return False

    def _weight(self, number: Any) -> int | None:
        """Return the index of constant weights; None for shapes and axes."""
        if number not in self._places:
            data, name = self._layers[number].find("./data"), self._layers[number].get("name")
            dtype = DTYPES.get(data.get("element_type"), data.get("element_type"))
            is_weight = dtype.startswith(("float", "bfloat")) or dtype in ("int8", "uint8", "int4", "uint4")
            self._places[number] = len(self._weights) if is_weight else None
            if is_weight:
                self._weights.append(self._array(data, dtype, name))
        return self._places[number]

    def _array(self, data: Any, dtype: str, name: str) -> Weight:
        shape = tuple(int(size) for size in (data.get("shape") or "").split(",") if size.strip())
        first, size = int(data.get("offset")), int(data.get("size"))
        if min(first, size, *shape, 0) < 0 or first + size > len(self._content):
            raise DataError(f"the values of {name} are not in the .bin file")
        content = self._content[first : first + size]
        if dtype.endswith("int4"):
            array = np.stack([content & 15, content >> 4], axis=-1).reshape(-1)[: math.prod(shape)]
        else:
            array = content.view({"bfloat16": "uint16"}.get(dtype, dtype))
        return Weight(name, dtype, shape, array.reshape(shape))


def _value(layer: Any, port: str) -> Value:
    found = layer.find(port)
    sizes = tuple(None if int(size.text) < 0 else int(size.text) for size in found.findall("dim"))
    names = (found.get("names") or layer.get("name").removesuffix("/sink_port_0")).split(",")
    return Value(names[0], sizes, DTYPES.get(found.get("precision"), str(found.get("precision"))))
