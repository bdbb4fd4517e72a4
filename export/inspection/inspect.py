"""What an artifact is, read from its file and never run: operators, weights, shapes and sizes, whoever wrote it."""

from __future__ import annotations

import collections
import dataclasses
import importlib
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from export.core.artifact_graph import ArtifactGraph, joined
from export.core.manifest import BESIDE, NAME
from zoo.common.errors import DataError, RunError, ZooError
from zoo.common.files import read_json

# The module that reads a kind of file, by the file's ending.
READERS = {".tflite": "litert", ".onnx": "onnx", ".keras": "keras", ".xml": "openvino"}
MODEL = "saved_model.pb"
# What may lie beside: samples, manifests, and values that a model keeps outside its file.
PASSED = {".npz", ".json", ".data", ".bin"}
LEVEL, BLOCK = 6, 1 << 20


@dataclasses.dataclass(frozen=True)
class Inspection:
    """What was found.

    Args:
        stored: what stands in the artifact.
        files: the files that ship.
    """

    stored: ArtifactGraph
    files: tuple[Path, ...]

    def to_json(self) -> dict[str, Any]:
        """Return it as `zoo inspect --json` prints it.

        Returns:
            kind; bytes and gzip, raw and compressed size of the files; operators, their number by name; weights, the
            number of values by dtype; int8_weights, the share of them in integers of at most 8 bits; int8_operators,
            the share of the operators that compute which do so in integers; float_islands, the names of those that do
            not where others do; foreign, the operators that the format's own runtime lacks; inputs and outputs, each
            with name, shape (None where a size is free) and dtype; opset; sparsity, the share of zeros by layer, and
            sparse, over all of them.
        """
        stored = self.stored
        weights: collections.Counter[str] = collections.Counter()
        for weight in stored.weights:
            weights[weight.dtype] += weight.size
        small = sum(weight.size for weight in stored.weights if weight.bits <= 8)
        computing = [operator.integer for operator in stored.operators if operator.integer is not None]
        zeros = {name: (weight.zeros, weight.size) for name, weight in stored.layers().items()}
        return {
            "kind": stored.kind,
            "bytes": sum(file.stat().st_size for file in self.files),
            "gzip": sum(map(gzipped, self.files)),
            "operators": dict(sorted(collections.Counter(operator.kind for operator in stored.operators).items())),
            "weights": dict(sorted(weights.items())),
            "int8_weights": _share(small, weights.total()),
            "int8_operators": _share(computing.count(True), len(computing)),
            "float_islands": stored.float_fallback(),
            "foreign": sorted({operator.kind for operator in stored.operators if operator.unsupported}),
            "inputs": [value.to_json() for value in stored.inputs],
            "outputs": [value.to_json() for value in stored.outputs],
            "opset": stored.opset,
            "sparsity": {name: _share(*counts) for name, counts in zeros.items()},
            "sparse": _share(*map(sum, zip(*zeros.values(), strict=True))) if zeros else 0.0,
        }


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 0.0


def inspect(path: Path) -> dict[str, Any]:
    """Return what an artifact is; see `Inspection.to_json`.

    Args:
        path: a .tflite, .onnx or .keras file, OpenVINO's .xml, a SavedModel folder, or a folder of ours.

    Raises:
        DataError: it is none of these, or cannot be read.
    """
    return look(path).to_json()


def look(path: Path) -> Inspection:
    """Read an artifact; see `inspect`."""
    try:
        models = _models(path)
        parts = {model.stem: _reader(model).read(model) for model in models}
        files = tuple(dict.fromkeys(file for model in models for file in _files(model)))
        return Inspection(joined(parts), files)
    except DataError as error:
        raise DataError(f"Expected a model that can be read. Received: {str(path)!r}: {error}") from error
    except ZooError:
        raise
    except Exception as error:
        # Parsers of foreign files raise whatever they meet; the line names it.
        reason = " ".join(str(error).split())[:160] or type(error).__name__
        raise DataError(
            f"Expected a model that can be read. Received: {str(path)!r}, which is cut off, altered or of another kind "
            f"({type(error).__name__}: {reason})"
        ) from error


def knows(path: Path) -> bool:
    """Tell whether a file, or all files of a folder, are of a kind that can be read."""
    if path.is_dir() and not (path / MODEL).is_file():
        return {file.suffix for file in path.rglob("*") if file.is_file()} - PASSED <= READERS.keys()
    return path.is_dir() or path.suffix in READERS


def _models(path: Path) -> list[Path]:
    """Return the files or the folder that readers take."""
    if not path.exists():
        raise DataError("there is nothing")
    if path.is_file() or (path / MODEL).is_file():
        return [path]
    shipped = _shipped(path)
    if shipped is not None and shipped != path:
        return _models(shipped)
    found = sorted(file for file in path.iterdir() if file.suffix in READERS)
    if not found or len({file.suffix for file in found}) > 1:
        raise DataError(f"a folder must hold {MODEL}, or files of one kind of {', '.join(READERS)}")
    return found


def _shipped(folder: Path) -> Path | None:
    """Return what the manifest in a folder calls the artifact; None if there is none, or it is not in the folder."""
    if not (folder / NAME).is_file():
        return None
    try:
        name = read_json(folder / NAME)["artifact"]
    except (RunError, KeyError, TypeError):
        return None
    place = folder / name if isinstance(name, str) else folder
    return place if place.resolve().is_relative_to(folder.resolve()) and place.exists() else None


def _reader(model: Path) -> Any:
    """Return the module that reads a file."""
    kind = "tensorflow" if model.is_dir() else READERS.get(model.suffix)
    if kind is None:
        raise DataError(f"its name must end in one of {', '.join(READERS)}, or it must be the folder of a SavedModel")
    return importlib.import_module(f"export.backends.{kind}.inspect")


def _files(model: Path) -> Iterator[Path]:
    """Yield the files that belong to a model: those of its folder, or its own and what lies beside it by its name."""
    if model.is_dir():
        yield from sorted(file for file in model.rglob("*") if file.is_file() and file.name not in (NAME, *BESIDE))
        return
    yield model
    for beside in (model.with_suffix(".bin"), model.with_name(f"{model.name}.data"), model.with_suffix(".data")):
        if model.suffix in (".xml", ".onnx") and beside.is_file():
            yield beside


def gzipped(file: Path) -> int:
    """Return the size of a file when it is sent compressed."""
    packer, size = zlib.compressobj(LEVEL, wbits=31), 0
    with file.open("rb") as content:
        while block := content.read(BLOCK):
            size += len(packer.compress(block))
    return size + len(packer.flush())
