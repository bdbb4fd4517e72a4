"""Inspection of a model file without running it: operators, weights, shapes and sizes."""

from __future__ import annotations

import collections
import dataclasses
import importlib
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypedDict

from export.core import manifest
from export.core.artifact_graph import ArtifactGraph, Value, joined
from zoo.common.errors import DataError, RunError, ZooError
from zoo.reading.json_files import read_json


class Named(TypedDict):
    """What is read of a manifest: the artifact in its folder."""

    artifact: str


# The backend that reads a file, by its suffix.
READERS = {".tflite": "litert", ".onnx": "onnx", ".keras": "keras", ".xml": "openvino"}
SAVED_MODEL = "saved_model.pb"
# Files next to a model: samples, manifests, and external weights.
IGNORED_SUFFIXES = {".npz", ".json", ".data", ".bin"}
GZIP_LEVEL, BLOCK_BYTES = 6, 1 << 20


@dataclasses.dataclass(frozen=True)
class Inspection:
    """What a model file contains.

    Args:
        kind: "tflite", "onnx", "saved_model", "keras" or "openvino".
        opset: version of the standard operators; None for a kind without one.
        bytes: size of the files.
        gzip_bytes: size of the files after gzip.
        operators: number of operators by type.
        weights: number of stored values by dtype.
        int8_weights: fraction of the weights in integers of at most 8 bits, 0 to 1.
        int8_operators: fraction of the computing operators that compute in integers, 0 to 1.
        float_fallback: names of the operators that compute in floating point inside a quantized model.
        unsupported: types of the operators that the format's runtime lacks.
        inputs: the model's inputs; a free dimension is None.
        outputs: the model's outputs.
        sparsity: fraction of zeros by layer, 0 to 1.
        total_sparsity: fraction of zeros over all layers, 0 to 1.
    """

    kind: str
    opset: int | None
    bytes: int
    gzip_bytes: int
    operators: dict[str, int]
    weights: dict[str, int]
    int8_weights: float
    int8_operators: float
    float_fallback: tuple[str, ...]
    unsupported: tuple[str, ...]
    inputs: tuple[Value, ...]
    outputs: tuple[Value, ...]
    sparsity: dict[str, float]
    total_sparsity: float

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON-safe values."""
        content = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return content | {
            "float_fallback": list(self.float_fallback),
            "unsupported": list(self.unsupported),
            "inputs": [value.to_json() for value in self.inputs],
            "outputs": [value.to_json() for value in self.outputs],
        }


@dataclasses.dataclass(frozen=True)
class StoredArtifact:
    """An artifact as read from its files.

    Args:
        graph: its operators and weights.
        files: the files that users deploy.
    """

    graph: ArtifactGraph
    files: tuple[Path, ...]

    def inspect(self) -> Inspection:
        """Return the summary of the artifact."""
        graph = self.graph
        dtypes: collections.Counter[str] = collections.Counter()
        for weight in graph.weights:
            dtypes[weight.dtype] += weight.size
        int8 = sum(weight.size for weight in graph.weights if weight.bits <= 8)
        computing = [operator.integer for operator in graph.operators if operator.integer is not None]
        zeros = {name: (weight.zeros, weight.size) for name, weight in graph.layers().items()}
        return Inspection(
            kind=graph.kind,
            opset=graph.opset,
            bytes=sum(file.stat().st_size for file in self.files),
            gzip_bytes=sum(map(gzip_size, self.files)),
            operators=dict(sorted(collections.Counter(operator.kind for operator in graph.operators).items())),
            weights=dict(sorted(dtypes.items())),
            int8_weights=_fraction(int8, dtypes.total()),
            int8_operators=_fraction(computing.count(True), len(computing)),
            float_fallback=tuple(graph.float_fallback()),
            unsupported=tuple(sorted({operator.kind for operator in graph.operators if operator.unsupported})),
            inputs=tuple(graph.inputs),
            outputs=tuple(graph.outputs),
            sparsity={name: _fraction(*counts) for name, counts in zeros.items()},
            total_sparsity=_fraction(*map(sum, zip(*zeros.values(), strict=True))) if zeros else 0.0,
        )


def _fraction(part: int, whole: int) -> float:
    return part / whole if whole else 0.0


def inspect(path: Path) -> Inspection:
    """Inspect a model file without running it.

    Args:
        path: a .tflite, .onnx or .keras file, OpenVINO's .xml, a SavedModel folder, or the folder of an artifact.

    Raises:
        DataError: the path is none of these, or the file cannot be read.
    """
    return read_artifact(path).inspect()


def read_artifact(path: Path) -> StoredArtifact:
    """Read the graph of a model file; see `inspect`."""
    try:
        models = _models(path)
        parts = {model.stem: _reader(model).read(model) for model in models}
        files = tuple(dict.fromkeys(file for model in models for file in _files(model)))
        return StoredArtifact(joined(parts), files)
    except DataError as error:
        raise DataError(f"Expected a readable model file. Received: path={str(path)!r}: {error}") from error
    except ZooError:
        raise
    except Exception as error:
        # Parsers of third-party files raise many classes; the message names the class.
        reason = " ".join(str(error).split())[:160] or type(error).__name__
        raise DataError(
            f"Expected a readable model file. Received: path={str(path)!r}, which is truncated, damaged or of another "
            f"kind ({type(error).__name__}: {reason})"
        ) from error


def is_readable(path: Path) -> bool:
    """Return whether a reader exists for a file, or for all files of a folder."""
    if path.is_dir() and not (path / SAVED_MODEL).is_file():
        return {file.suffix for file in path.rglob("*") if file.is_file()} - IGNORED_SUFFIXES <= READERS.keys()
    return path.is_dir() or path.suffix in READERS


def _models(path: Path) -> list[Path]:
    """Return the files, or the SavedModel folder, that the readers open."""
    if not path.exists():
        raise DataError("the path does not exist")
    if path.is_file() or (path / SAVED_MODEL).is_file():
        return [path]
    artifact = _artifact_of(path)
    if artifact is not None and artifact != path:
        return _models(artifact)
    models = sorted(file for file in path.iterdir() if file.suffix in READERS)
    if not models or len({file.suffix for file in models}) > 1:
        raise DataError(f"a folder must contain {SAVED_MODEL}, or files of one kind of {', '.join(READERS)}")
    return models


def _artifact_of(folder: Path) -> Path | None:
    """Return the artifact that the manifest of a folder names; None without one inside the folder."""
    if not (folder / manifest.NAME).is_file():
        return None
    try:
        artifact = folder / read_json(folder / manifest.NAME, Named)["artifact"]
    except RunError:
        return None
    return artifact if artifact.resolve().is_relative_to(folder.resolve()) and artifact.exists() else None


def _reader(model: Path) -> Any:
    """Return the module that reads a file."""
    kind = "tensorflow" if model.is_dir() else READERS.get(model.suffix)
    if kind is None:
        raise DataError(f"the name must end in one of {', '.join(READERS)}, or name the folder of a SavedModel")
    return importlib.import_module(f"export.backends.{kind}.inspect")


def _files(model: Path) -> Iterator[Path]:
    """Yield the files of a model: those of its folder, or the file and its external weights."""
    if model.is_dir():
        skipped = (manifest.NAME, *manifest.VERIFICATION_FILES)
        yield from sorted(file for file in model.rglob("*") if file.is_file() and file.name not in skipped)
        return
    yield model
    for weights in (model.with_suffix(".bin"), model.with_name(f"{model.name}.data"), model.with_suffix(".data")):
        if model.suffix in (".xml", ".onnx") and weights.is_file():
            yield weights


def gzip_size(file: Path) -> int:
    """Return the size of a file in bytes after gzip."""
    compressor, size = zlib.compressobj(GZIP_LEVEL, wbits=31), 0
    with file.open("rb") as content:
        while block := content.read(BLOCK_BYTES):
            size += len(compressor.compress(block))
    return size + len(compressor.flush())
