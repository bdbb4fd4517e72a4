"""Metadata of .tflite files for the Task library and Android Studio, with the labels in an appended zip archive.

The tables follow metadata_schema.fbs, version 1.1, github.com/tensorflow/tflite-support. Its writer, tflite-support,
does not install on the Python versions that TensorFlow needs.
"""

from __future__ import annotations

import dataclasses
import io
import zipfile
from collections.abc import Mapping, Sequence
from typing import Any

from zoo.common.lazy import LazyModule

flatbuffers = LazyModule("flatbuffers")

NAME = b"TFLITE_METADATA"
IDENTIFIER, VERSION = b"M001", "1.1.0"  # of the schema
LABELS = "labels.txt"
AXIS_LABELS = 2  # AssociatedFileType
FEATURES, IMAGE = 1, 2  # ContentProperties
NORMALIZATION = 1  # ProcessUnitOptions
COLORS = {3: 1, 1: 2}  # ColorSpaceType by channels: RGB, GRAYSCALE
# Descriptions of the outputs, by task; sequence-to-sequence models and those for several targets have no such metadata.
OUTPUTS = {
    "classify": "One logit for each label; softmax converts them to probabilities.",
    "multilabel": "One logit for each label; sigmoid converts them to probabilities.",
    "tag": "For each token one logit for each label; softmax converts them to probabilities.",
    "embed": "One vector, for the comparison with others.",
    "regress": "One value for each label, in the data's units.",
}


@dataclasses.dataclass(frozen=True)
class Scalar:
    """A number in a table.

    Args:
        kind: its flatbuffers type: "Int8", "Uint8" or "Uint32".
        value: the number.
    """

    kind: str
    value: int


def task_metadata(metadata: Mapping[str, Any]) -> bytes | None:
    """Return the metadata of a file with one input and one output.

    Args:
        metadata: the model's, see `export.core.metadata.model_metadata`.

    Returns:
        The content of the buffer; None for sequence-to-sequence models and those for several targets, which the Task
        library does not support.
    """
    if metadata["task"] not in OUTPUTS:
        return None
    labels = {0: LABELS, 1: "One label a line, in the order of the output.", 2: Scalar("Int8", AXIS_LABELS)}
    graph = {2: [_input(metadata)], 3: [_output(metadata, labels)]}
    tables = {0: metadata["model"], 1: f"{metadata['task']}, from zoo", 3: [graph], 7: VERSION}
    builder = flatbuffers.Builder(1024)
    builder.Finish(_place(builder, tables), file_identifier=IDENTIFIER)
    return bytes(builder.Output())


def _input(metadata: Mapping[str, Any]) -> dict[int, Any]:
    """Return the TensorMetadata of the input."""
    if metadata["input"] != "image":
        description = "Raw values; the model normalizes them." if metadata["dtype"] == "float32" else "Token ids."
        return {0: metadata["input"], 1: description, 3: _content(FEATURES, {})}
    height, width, channels = metadata["shape"]
    size = {0: Scalar("Uint32", width), 1: Scalar("Uint32", height)}
    image = {0: Scalar("Int8", COLORS.get(channels, 0)), 1: size}
    # The model normalizes: it takes pixels as they are.
    normalization = {0: Scalar("Uint8", NORMALIZATION), 1: {0: [0.0], 1: [1.0]}}
    return {
        0: metadata["input"],
        1: "Pixels from 0 to 255; the model normalizes them.",
        3: _content(IMAGE, image),
        4: [normalization],
        5: {0: [255.0], 1: [0.0]},
    }


def _output(metadata: Mapping[str, Any], labels: dict[int, Any]) -> dict[int, Any]:
    """Return the TensorMetadata of the output."""
    return {0: metadata["output"], 1: OUTPUTS[metadata["task"]], 3: _content(FEATURES, {}), 6: [labels]}


def _content(kind: int, properties: dict[int, Any]) -> dict[int, Any]:
    return {0: Scalar("Uint8", kind), 1: properties}


def _place(builder: Any, value: Any) -> int:
    """Write a text, a list or a table {field number: value}, nested values first; return its offset."""
    if isinstance(value, str):
        return builder.CreateString(value)
    if isinstance(value, list):
        return _vector(builder, value)
    places = {field: _place(builder, inner) for field, inner in value.items() if not isinstance(inner, Scalar)}
    builder.StartObject(max(value, default=-1) + 1)
    for field, inner in value.items():
        if isinstance(inner, Scalar):
            getattr(builder, f"Prepend{inner.kind}Slot")(field, inner.value, 0)
        else:
            builder.PrependUOffsetTRelativeSlot(field, places[field], 0)
    return builder.EndObject()


def _vector(builder: Any, values: Sequence[Any]) -> int:
    """Write a list of numbers, or of tables."""
    numbers = all(isinstance(value, float) for value in values)
    items = values if numbers else [_place(builder, value) for value in values]
    builder.StartVector(4, len(items), 4)
    for value in reversed(items):
        (builder.PrependFloat32 if numbers else builder.PrependUOffsetTRelative)(value)
    return builder.EndVector()


def labels_archive(metadata: Mapping[str, Any], before: int) -> bytes:
    """Return the zip archive that follows the file, empty without labels.

    Args:
        metadata: the model's.
        before: bytes of the file; offsets in the archive count from its beginning, as the Task library needs.
    """
    if metadata["task"] not in OUTPUTS:
        return b""
    lines = "".join(f"{' '.join(str(label).split())}\n" for label in metadata["labels"])
    file = io.BytesIO(b"\0" * before)
    # Not compressed, because it is read in place; with a fixed date, so that the same labels give the same bytes.
    with zipfile.ZipFile(file, "a", zipfile.ZIP_STORED) as archive:
        archive.writestr(zipfile.ZipInfo(LABELS, (1980, 1, 1, 0, 0, 0)), lines)
    return file.getvalue()[before:]
