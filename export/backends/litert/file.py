"""Reads and writes the content of .tflite files."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from export.backends.litert.metadata import NAME as TASK_METADATA
from export.backends.litert.metadata import labels_archive, task_metadata
from export.backends.litert.runtime import METADATA
from export.core.compat import flatbuffer_utils, schema
from zoo.common.errors import UnsupportedExport
from zoo.common.lazy import np

CASTS = {"QUANTIZE", "DEQUANTIZE"}  # around operators that stay float32


def read(content: bytes) -> Any:
    """Return a file's content as an object of the schema."""
    return flatbuffer_utils.read_model_from_bytearray(bytearray(content))


def pack(model: Any) -> bytearray:
    """Return the content of a file."""
    for buffer in model.buffers:
        if isinstance(buffer.data, (bytes, bytearray)):
            buffer.data = np.frombuffer(buffer.data, np.uint8)  # flatbuffers packs bytes one by one, in Python
    return flatbuffer_utils.convert_object_to_bytearray(model)


def finish(content: bytes, metadata: dict[str, Any], path: Path) -> None:
    """Write a file with our metadata and the Task library's, and with tensors named after the signatures."""
    model = read(content)
    _attach(model, METADATA, json.dumps(metadata).encode())
    tasks = task_metadata(metadata)
    if tasks:
        _attach(model, TASK_METADATA, tasks)
    _name_tensors(model)
    packed = pack(model)
    path.write_bytes(packed + labels_archive(metadata, len(packed)))


def _attach(model: Any, name: bytes, content: bytes) -> None:
    """Put a metadata buffer into a file; replaces the one that a quantized file has from its float file."""
    entry = next((entry for entry in model.metadata or [] if entry.name == name), None)
    if entry is None:
        entry = schema.MetadataT(name, len(model.buffers))
        model.buffers.append(schema.BufferT())
        model.metadata = [*(model.metadata or []), entry]
    model.buffers[entry.buffer].data = np.frombuffer(content, np.uint8)


def _name_tensors(model: Any) -> None:
    """Name inputs and outputs after their signatures; with several signatures, prefix all names with the signature's.

    The quantizer identifies tensors by name only.
    """
    several = len(model.signatureDefs) > 1
    for signature in model.signatureDefs:
        graph, key = model.subgraphs[signature.subgraphIndex], text_of(signature.signatureKey)
        names = {item.tensorIndex: text_of(item.name) for item in (*signature.inputs, *signature.outputs)}
        for index, tensor in enumerate(graph.tensors):
            name = names.get(index, name_of(tensor))
            tensor.name = name if not several or name.startswith(f"{key}/") else f"{key}/{name}"


def name_of(tensor: Any) -> str:
    """Return a tensor's name."""
    return text_of(tensor.name)


def text_of(value: Any) -> str:
    """Return bytes or text as text."""
    return value.decode() if isinstance(value, bytes) else value


def operator_name(model: Any, operator: Any) -> str:
    """Return the type of an operator."""
    return flatbuffer_utils.opcode_to_name(model, operator.opcodeIndex)


def outputs_of(content: bytes, name: str) -> tuple[str, ...]:
    """Return the names of the outputs of the operators that read the tensor `name`."""
    model = read(content)
    return tuple(
        name_of(graph.tensors[operator.outputs[0]])
        for graph in model.subgraphs
        for operator in graph.operators
        if any(i >= 0 and name_of(graph.tensors[i]) == name for i in operator.inputs)
    )


def operators_of(content: bytes) -> list[str]:
    """Return the names of all operators, which are those of their first outputs."""
    model = read(content)
    return [name_of(graph.tensors[o.outputs[0]]) for graph in model.subgraphs for o in graph.operators]


def tensors_of(content: bytes, kinds: Sequence[str]) -> set[str]:
    """Return the names of the inputs and outputs of operators of some types."""
    model = read(content)
    return {
        name_of(graph.tensors[i])
        for graph in model.subgraphs
        for operator in graph.operators
        if operator_name(model, operator) in kinds
        for i in (*operator.inputs, *operator.outputs)
    }


def refuse_float(content: bytes, excluded: Sequence[str] = (), *, name: str = "tflite_int8") -> None:
    """Raise UnsupportedExport if an operator computes in float32, except those with excluded outputs."""
    model = read(content)
    floats: dict[str, str] = {}  # the first operator of each type, by its output
    for graph in model.subgraphs:
        for operator in graph.operators:
            used = [graph.tensors[i] for i in (*operator.inputs, *operator.outputs) if i >= 0]
            if any(name_of(tensor) in excluded for tensor in used) and operator_name(model, operator) in CASTS:
                continue
            if any(name_of(graph.tensors[i]) in excluded for i in operator.outputs):
                continue
            if any(tensor.type == schema.TensorType.FLOAT32 for tensor in used):
                floats.setdefault(operator_name(model, operator), name_of(graph.tensors[operator.outputs[0]]))
    if floats:
        named = [f"{kind} of {output}" for kind, output in floats.items() if kind not in CASTS] or list(floats)
        raise UnsupportedExport(
            f"{name} needs operators that LiteRT Quantizer makes integer. "
            f"Received: operators={', '.join(sorted(named))}. Use tflite_dynamic or other layers."
        )
