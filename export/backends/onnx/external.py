"""External data of ONNX files: weights in a separate file, above two gigabytes, in the model's own folder only."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import TYPE_CHECKING, Any

from zoo.common.errors import RunError
from zoo.common.lazy import LazyModule
from zoo.reading.data_files import read_graph

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto, NodeProto, TensorProto

onnx = LazyModule("onnx")

LIMIT = (2 << 30) - (16 << 20)  # bytes of weights; protobuf's limit is two gigabytes for the whole file
SUFFIX = ".data"
STANDARD = ("", "ai.onnx", "ai.onnx.ml")


def is_external(model: ModelProto, requested: bool = False) -> bool:
    """Return whether the weights of a model must be, or are requested to be, outside its file."""
    return requested or sum(len(tensor.raw_data) for tensor in model.graph.initializer) >= LIMIT


def save(model: ModelProto, path: Path, external: bool = False) -> None:
    """Write a model; its weights go to PATH.data if they are too large for one file, or if `external` is set."""
    data = path.with_name(path.name + SUFFIX)
    data.unlink(missing_ok=True)  # onnx would append to it
    if is_external(model, external):
        onnx.save(model, str(path), save_as_external_data=True, location=data.name, size_threshold=1024)
    else:
        onnx.save(model, str(path))


def read(path: Path) -> ModelProto:
    """Return a model without its external weights, after checking their location.

    Raises:
        RunError: the file cannot be read, or names data outside its own folder.
    """
    try:
        model = onnx.load_model_from_string(read_graph(path))
    except Exception as error:
        # protobuf and onnx raise their own exception types for other files.
        reason = " ".join(str(error).split())[:200]
        raise RunError(f"Expected a readable ONNX file. Received: {path}: {reason}. Export again.") from error
    if not model.graph.node:
        raise RunError(f"Expected an ONNX file with a graph. Received: {path} without nodes. Export again.")
    for location in sorted({_location(tensor) for tensor in _tensors_of(model)} - {None}):
        _check_location(location, path)
    return model


def check_domains(model: ModelProto, path: Path) -> None:
    """Raise RunError for an operator that is neither one of ONNX nor a function in the file."""
    own = {(function.domain, function.name) for function in model.functions}
    for node in _nodes_of(model):
        if node.domain not in STANDARD and (node.domain, node.op_type) not in own:
            raise RunError(
                f"An ONNX file must use ONNX's own operators. Received: {path} with the operator "
                f"{node.domain[:100]}.{node.op_type[:100]}. It was not loaded: such an operator runs code from "
                "elsewhere. Get the model from a source that you trust."
            )


def _nodes_of(model: ModelProto) -> Iterator[NodeProto]:
    """Yield every node of a model: those of its graph, functions and training info, and of the graphs in them."""
    waiting = [model.graph.node, *(function.node for function in model.functions)]
    waiting += [graph.node for info in model.training_info for graph in (info.initialization, info.algorithm)]
    while waiting:
        for node in waiting.pop():
            yield node
            waiting.extend(graph.node for attribute in node.attribute for graph in (attribute.g, *attribute.graphs))


def _check_location(location: str, path: Path) -> None:
    """Raise RunError unless a location is a file in the folder of a model, symbolic links followed."""
    folder = path.parent.resolve()
    absolute = PurePosixPath(location).is_absolute() or bool(PureWindowsPath(location).anchor)
    above = ".." in PureWindowsPath(location).parts or ".." in PurePosixPath(location).parts
    inside = location and not absolute and not above and (folder / location).resolve().is_relative_to(folder)
    if not inside:
        raise RunError(
            f"The external data of an ONNX file must be in the file's folder. Received: {path} with "
            f"location={location!r}. Do not load this file: it would read other files."
        )
    if not (folder / location).is_file():
        raise RunError(f"Expected the external data of an ONNX file. Received: {path} without {location!r} next to it.")


def _location(tensor: TensorProto) -> str | None:
    """Return the location of a tensor's external data, None if it is in the file."""
    if tensor.data_location != onnx.TensorProto.EXTERNAL:
        # Some readers check the entries only.
        return next((entry.value for entry in tensor.external_data if entry.key == "location"), None)
    return next((entry.value for entry in tensor.external_data if entry.key == "location"), "")


def _tensors_of(model: ModelProto) -> Iterator[TensorProto]:
    """Yield every tensor of a model: initializers, attributes, functions and training info."""
    yield from _of_graph(model.graph)
    for function in model.functions:
        yield from _of_nodes(function.node)
        for attribute in function.attribute_proto:
            yield from _of_attribute(attribute)
    for training in model.training_info:
        yield from (*_of_graph(training.initialization), *_of_graph(training.algorithm))


def _of_graph(graph: GraphProto) -> Iterator[TensorProto]:
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    yield from _of_nodes(graph.node)


def _of_nodes(nodes: Any) -> Iterator[TensorProto]:
    for node in nodes:
        for attribute in node.attribute:
            yield from _of_attribute(attribute)


def _of_attribute(attribute: Any) -> Iterator[TensorProto]:
    """Yield the tensors of an attribute, and of the graphs in it."""
    yield from (attribute.t, *attribute.tensors)
    for sparse in (attribute.sparse_tensor, *attribute.sparse_tensors):
        yield from (sparse.values, sparse.indices)
    for graph in (attribute.g, *attribute.graphs):
        yield from _of_graph(graph)
