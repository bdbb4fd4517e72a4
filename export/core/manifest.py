"""The manifest of an artifact: its metadata, its verification, and digests that reveal any change."""

from __future__ import annotations

import hashlib
import stat
from pathlib import Path
from typing import Any, Literal, TypedDict

from zoo.common.errors import ParityError, RunError
from zoo.common.files import restore_replaced, to_json, write_bytes
from zoo.reading.files import Refusal, kind_of, reading
from zoo.reading.json_files import read_json
from zoo.reading.schema import fit

VERSION = 3
NAME, SAMPLES, MASKS = "manifest.json", "samples.npz", "masks.npz"
FACTS = "facts.json"  # in the scratch folder of an export: `export.source.source.SourceModel.facts`
VERIFICATION_FILES = (SAMPLES, MASKS)  # for `export.verify` only; not part of the artifact's size
REFUSAL = Refusal("Expected the manifest of an artifact", advice="Export again.")
Number = float | None


class Metadata(TypedDict, total=False):
    """What an artifact says of itself."""

    model: str
    task: Literal[
        "classify", "multilabel", "regress", "tag", "generate", "embed", "multitask", "any", "binary", "numeric"
    ]  # fmt: skip
    labels: list[str] | None
    preprocessing: dict[str, Any] | None
    text: dict[str, Any] | None
    tabular: dict[str, Any]
    outputs: list[dict[str, Any]]


class File(TypedDict):
    """A file of an artifact."""

    bytes: int
    sha256: str


class Parity(TypedDict):
    """The comparison with the source model: the entries that reports need."""

    n: int
    max: float
    mean: float
    relative: float
    agreement: Number
    accuracy: Number
    source_accuracy: Number
    tolerance: dict[str, Any]
    passed: bool
    metric: str


class Inspection(TypedDict):
    """The inspection: the entries that reports need."""

    kind: str
    bytes: int
    gzip_bytes: int
    operators: dict[str, int]
    weights: dict[str, int]


class Metric(TypedDict):
    """A metric of the model before its compression."""

    accuracy: Number


class Compression(TypedDict):
    """What compressed the source model."""

    pipeline: str
    slug: str
    before: Metric
    steps: list[dict[str, Any]]
    guarantees: dict[str, Any]
    facts: dict[str, Any]
    found: dict[str, Any]


class Manifest(TypedDict):
    """manifest.json, after its version and its digest were checked."""

    format: str
    options: dict[str, Any]
    artifact: str
    compression: Compression | None
    metadata: Metadata
    inspection: Inspection
    inputs: list[dict[str, Any]]
    outputs: list[dict[str, Any]]
    batch: int | None
    samples: str
    source: dict[str, Any]
    environment: dict[str, Any]
    parity: Parity
    files: dict[str, File]
    bytes: int
    digest: str


class FullManifest(Manifest, total=False):
    """manifest.json with the entries that it may lack."""

    max_drop: Number
    private: bool
    quantization: dict[str, Any] | None
    attempts: list[dict[str, Any]]
    required_modules: list[str]
    parts: dict[str, Any]


def digest_file(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() if hasattr(hashlib, "file_digest") else _digest(file)


def _digest(file: Any) -> str:
    """Do what hashlib.file_digest does since Python 3.11."""
    state = hashlib.sha256()
    while block := file.read(1 << 20):
        state.update(block)
    return state.hexdigest()


def list_files(folder: Path) -> dict[str, dict[str, Any]]:
    """Return size and digest of every file of an artifact except the manifest, by path within the folder.

    Raises:
        ParityError: there is a link or a special file.
    """
    files = sorted(path for path in map(_regular, folder.rglob("*")) if path is not None and path != folder / NAME)
    return {p.relative_to(folder).as_posix(): {"bytes": p.stat().st_size, "sha256": digest_file(p)} for p in files}


def _regular(path: Path) -> Path | None:
    """Return a file, None for a folder; raises ParityError for a link or a special file, which has no digest."""
    mode = path.lstat().st_mode
    kind = kind_of(mode)
    if kind and not stat.S_ISDIR(mode):
        raise ParityError(f"An artifact must have regular files alone. Received: {path}, {kind}. Export again.")
    return None if kind else path


def write_manifest(folder: Path, content: dict[str, Any]) -> dict[str, Any]:
    """Write the manifest of a complete artifact folder, with the digests of its files and its own.

    Args:
        folder: holds the artifact and its samples.
        content: JSON-safe values.

    Returns:
        The manifest as it is in the file.
    """
    files = list_files(folder)
    size = sum(f["bytes"] for name, f in files.items() if name not in VERIFICATION_FILES)
    manifest = {"version": VERSION, **content, "bytes": size, "files": files}
    manifest["digest"] = _own_digest(manifest)
    write_bytes(folder / NAME, to_json(manifest).encode())
    return manifest


def _own_digest(manifest: dict[str, Any]) -> str:
    return hashlib.sha256(to_json({k: v for k, v in manifest.items() if k != "digest"}).encode()).hexdigest()


def find_folder(path: Path) -> Path:
    """Return an artifact's folder, given the folder or the artifact in it.

    An artifact that a killed export left renamed is restored first.

    Raises:
        RunError: no manifest there.
    """
    for folder in (path, *list(path.absolute().parents)[:2]):
        restore_replaced(folder)
        if (folder / NAME).is_file():
            return folder
    raise RunError(
        f"Expected an artifact with its {NAME}. Received: {str(path)!r}. Artifacts are in RUN/exports/FORMAT; "
        "make one with: zoo export RUN --format FORMAT"
    )


def read_manifest(folder: Path) -> dict[str, Any]:
    """Return the manifest of a folder after checking it and every file against their digests.

    Raises:
        RunError: the manifest cannot be read, or has another version.
        ParityError: a file or the manifest was changed, is missing, or was added.
    """
    manifest = read_json(folder / NAME, refusal=REFUSAL)
    if not isinstance(manifest, dict) or manifest.get("version") != VERSION:
        version = manifest.get("version") if isinstance(manifest, dict) else None
        raise RunError(
            f"This zoo reads manifests of version {VERSION}. Received: {folder / NAME} of version {version}. "
            "Export again."
        )
    if manifest.get("digest") != _own_digest(manifest) or to_json(manifest).encode() != (folder / NAME).read_bytes():
        raise ParityError(f"{folder / NAME} was changed after export. Export again.")
    _check_schema(manifest, folder)
    expected, found = manifest["files"], list_files(folder)
    wrong = [f"{name} is missing" for name in expected if name not in found]
    wrong += [f"{name} was added" for name in found if name not in expected]
    wrong += [f"{name} was changed" for name in expected if name in found and found[name] != expected[name]]
    if wrong:
        raise ParityError(f"{folder} was changed after export: {'; '.join(wrong[:5])}. Export again.")
    return manifest


def _check_schema(manifest: dict[str, Any], folder: Path) -> None:
    """Raise RunError for a manifest without a required key, or with an artifact outside its folder."""
    with reading(folder / NAME, REFUSAL):
        fit(manifest, FullManifest)
    if not (folder / manifest["artifact"]).resolve().is_relative_to(folder.resolve()):
        raise RunError(
            "An artifact must be in the folder of its manifest. "
            f"Received: {folder / NAME} with artifact={manifest['artifact']!r}"
        )
