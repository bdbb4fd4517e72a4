"""The content of .tflite files, read and written."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from export.backends.litert.metadata import NAME as TASKS
from export.backends.litert.metadata import labels_archive, task_metadata
from export.backends.litert.runtime import METADATA
from zoo.common.errors import UnsupportedExport
from zoo.common.lazy import LazyModule, np

flatbuffer_utils = LazyModule("ai_edge_litert.tools.flatbuffer_utils", "ai-edge-litert")
schema = LazyModule("ai_edge_litert.schema_py_generated", "ai-edge-litert")

CASTS = {"QUANTIZE", "DEQUANTIZE"}  # they stand around an operator that stayed in float32, and are no cause


def read(content: bytes) -> Any:
    """Return a file's content as an object."""
    return flatbuffer_utils.read_model_from_bytearray(bytearray(content))


def pack(model: Any) -> bytearray:
    """Return the content of a file."""
    for buffer in model.buffers:
        if isinstance(buffer.data, (bytes, bytearray)):
            buffer.data = np.frombuffer(buffer.data, np.uint8)  # bytes are packed one by one, in Python
    return flatbuffer_utils.convert_object_to_bytearray(model)


def finish(content: bytes, metadata: dict[str, Any], path: Path) -> None:
    """Write the file with metadata in it, ours and the Task library's, and its tensors named after the signatures."""
    model = read(content)
    _attach(model, METADATA, json.dumps(metadata).encode())
    told = task_metadata(metadata)
    if told:
        _attach(model, TASKS, told)
    _name_tensors(model)
    packed = pack(model)
    path.write_bytes(packed + labels_archive(metadata, len(packed)))


def _attach(model: Any, name: bytes, content: bytes) -> None:
    """Put a buffer of metadata into a file; a quantized one has those of its float one, which make room."""
    entry = next((entry for entry in model.metadata or [] if entry.name == name), None)
    if entry is None:
        entry = schema.MetadataT(name, len(model.buffers))
        model.buffers.append(schema.BufferT())
        model.metadata = [*(model.metadata or []), entry]
    model.buffers[entry.buffer].data = np.frombuffer(content, np.uint8)


def _name_tensors(model: Any) -> None:
    """Name inputs and outputs as their signatures do; where there are several, every name starts with that of its own.

    The quantizer knows tensors by name alone.
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
    """Return what the file has as bytes or text."""
    return value.decode() if isinstance(value, bytes) else value


def operator_name(model: Any, operator: Any) -> str:
    """Return what an operator is called."""
    return flatbuffer_utils.opcode_to_name(model, operator.opcodeIndex)


def outputs_of(content: bytes, name: str) -> tuple[str, ...]:
    """Return the names of what the operators give that take the tensor of this name."""
    model = read(content)
    return tuple(
        name_of(graph.tensors[operator.outputs[0]])
        for graph in model.subgraphs
        for operator in graph.operators
        if any(i >= 0 and name_of(graph.tensors[i]) == name for i in operator.inputs)
    )


def tensors_of(content: bytes, kinds: Sequence[str]) -> set[str]:
    """Return the names of what operators of some kinds take and give."""
    model = read(content)
    return {
        name_of(graph.tensors[i])
        for graph in model.subgraphs
        for operator in graph.operators
        if operator_name(model, operator) in kinds
        for i in (*operator.inputs, *operator.outputs)
    }


def refuse_float(content: bytes, excluded: Sequence[str] = (), *, name: str = "tflite_int8") -> None:
    """Raise UnsupportedExport if an operator still works on float32, but those that give the tensors spared."""
    model = read(content)
    floats = set()
    for graph in model.subgraphs:
        for operator in graph.operators:
            used = [graph.tensors[i] for i in (*operator.inputs, *operator.outputs) if i >= 0]
            if any(name_of(tensor) in excluded for tensor in used) and operator_name(model, operator) in CASTS:
                continue
            if any(name_of(graph.tensors[i]) in excluded for i in operator.outputs):
                continue
            if any(tensor.type == schema.TensorType.FLOAT32 for tensor in used):
                floats.add(operator_name(model, operator))
    if floats:
        raise UnsupportedExport(
            f"{name} needs operators that LiteRT runs in its integers. "
            f"Received: operators={', '.join(sorted(floats - CASTS) or floats)}. Use tflite_dynamic, or other layers."
        )
