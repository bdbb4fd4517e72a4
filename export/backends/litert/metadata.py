"""Metadata of .tflite files as the Task library and Android Studio read it, with the labels in a zip archive behind.

The tables are those of metadata_schema.fbs, version 1.1, github.com/tensorflow/tflite-support; its own writer,
tflite-support, does not install on the Python versions that TensorFlow needs now.
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
# Tasks whose outputs have one name for each place of the last axis, and what the outputs are.
GIVEN = {
    "classify": "One logit for each label; softmax makes probabilities of them.",
    "multilabel": "One logit for each label; the sigmoid makes probabilities of them.",
    "tag": "For each token one logit for each label; softmax makes probabilities of them.",
    "regress": "One value for each label, in the data's own units.",
}


@dataclasses.dataclass(frozen=True)
class Scalar:
    """A number in a table.

    Args:
        kind: what flatbuffers calls its type: "Int8", "Uint8" or "Uint32".
        value: the number.
    """

    kind: str
    value: int


def task_metadata(facts: Mapping[str, Any]) -> bytes | None:
    """Return the metadata of a file with one input and one output.

    Args:
        facts: the network's, see `export.core.format.describe`.

    Returns:
        The content of the buffer; None for a network that writes sequences, which no task takes.
    """
    if facts["task"] not in GIVEN:
        return None
    labels = {0: LABELS, 1: "One label a line, in the order of the output.", 2: Scalar("Int8", AXIS_LABELS)}
    graph = {2: [_input(facts)], 3: [_output(facts, labels)]}
    tables = {0: facts["model"], 1: f"{facts['task']}, from zoo", 3: [graph], 7: VERSION}
    builder = flatbuffers.Builder(1024)
    builder.Finish(_place(builder, tables), file_identifier=IDENTIFIER)
    return bytes(builder.Output())


def _input(facts: Mapping[str, Any]) -> dict[int, Any]:
    """Return the TensorMetadata of the input."""
    if facts["input"] != "image":
        with_options = "Raw values; what scales them is inside." if facts["dtype"] == "float32" else "Token ids."
        return {0: facts["input"], 1: with_options, 3: _content(FEATURES, {})}
    height, width, channels = facts["shape"]
    size = {0: Scalar("Uint32", width), 1: Scalar("Uint32", height)}
    image = {0: Scalar("Int8", COLORS.get(channels, 0)), 1: size}
    # The artifact normalizes by itself: it takes pixels as they are.
    normalization = {0: Scalar("Uint8", NORMALIZATION), 1: {0: [0.0], 1: [1.0]}}
    return {
        0: facts["input"],
        1: "Pixels from 0 to 255; what normalizes them is inside.",
        3: _content(IMAGE, image),
        4: [normalization],
        5: {0: [255.0], 1: [0.0]},
    }


def _output(facts: Mapping[str, Any], labels: dict[int, Any]) -> dict[int, Any]:
    """Return the TensorMetadata of the output."""
    return {0: facts["output"], 1: GIVEN[facts["task"]], 3: _content(FEATURES, {}), 6: [labels]}


def _content(kind: int, properties: dict[int, Any]) -> dict[int, Any]:
    return {0: Scalar("Uint8", kind), 1: properties}


def _place(builder: Any, value: Any) -> int:
    """Write a text, a list or a table {field number: value}, what is in it first, and return where it is."""
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
    found = values if numbers else [_place(builder, value) for value in values]
    builder.StartVector(4, len(found), 4)
    for value in reversed(found):
        (builder.PrependFloat32 if numbers else builder.PrependUOffsetTRelative)(value)
    return builder.EndVector()


def labels_archive(facts: Mapping[str, Any], before: int) -> bytes:
    """Return the zip archive that follows the file, empty if there are no labels to name.

    Args:
        facts: the network's.
        before: bytes of the file; places in the archive count from its beginning, as the Task library wants.
    """
    if facts["task"] not in GIVEN:
        return b""
    lines = "".join(f"{' '.join(str(label).split())}\n" for label in facts["labels"])
    file = io.BytesIO(b"\0" * before)
    # It is read in place, so that nothing is compressed; and the same labels give the same bytes.
    with zipfile.ZipFile(file, "a", zipfile.ZIP_STORED) as archive:
        archive.writestr(zipfile.ZipInfo(LABELS, (1980, 1, 1, 0, 0, 0)), lines)
    return file.getvalue()[before:]
