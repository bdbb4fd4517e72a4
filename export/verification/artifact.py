"""An exported artifact: its files and manifest, loaded into its runtime or verified again."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from export.compression.pipeline import reverify_guarantees
from export.core.format import Backend, Format, formats
from export.core.guarantees import check_guarantees
from export.core.manifest import MASKS, NAME, SAMPLES, find_folder, read_manifest
from export.core.runtime import Runtime
from export.core.samples import read_samples
from export.inspection.inspect import read_artifact
from export.verification.parity import compare, require
from zoo.common.errors import ParityError, ZooError
from zoo.reading.files import reason_of, shortened


@dataclasses.dataclass(frozen=True)
class Artifact:
    """An exported file (or SavedModel folder) that was verified against its source model, and its manifest.

    Args:
        path: the artifact; if it has several files, the folder that also holds the manifest and the samples.
        manifest: the content of the manifest in its folder.
    """

    path: Path
    manifest: dict[str, Any]

    @property
    def format(self) -> str:
        """Name of the format."""
        return self.manifest["format"]

    @property
    def name(self) -> str:
        """Name of the folder: the format, its options, and the compression."""
        return self.folder.name

    @property
    def folder(self) -> Path:
        """The folder with the manifest."""
        return self.path.parent if self.manifest["artifact"] else self.path

    @property
    def parity(self) -> dict[str, Any]:
        """The metrics of the comparison with the source model."""
        return self.manifest["parity"]

    def to_json(self) -> dict[str, Any]:
        """Return the manifest with the artifact's path under "path"."""
        return {"path": str(self.path), **self.manifest}


def load_artifact(path: Path, threads: int | None = None) -> Runtime:
    """Load an artifact into its runtime after checking its digests; see `export.load`."""
    folder = find_folder(path)
    return _open(folder, read_manifest(folder), threads)[1]


def verify_artifact(path: Path) -> Artifact:
    """Repeat the comparison of an artifact with its source model; see `export.verify`."""
    folder = find_folder(path)
    manifest = read_manifest(folder)
    with _one_error(f"{folder} cannot be verified"):
        return _verified(folder, manifest)


def _verified(folder: Path, manifest: dict[str, Any]) -> Artifact:
    """Inspect an artifact with a checked manifest, then load and compare it: inspection runs nothing of the file."""
    found = inspect_artifact(formats[manifest["format"]], folder / _backend(manifest).file, manifest)
    _check_inspection(found, manifest["inspection"], folder)
    backend, runtime = _open(folder, manifest)
    tolerance = backend.tolerance.with_max_drop(manifest.get("max_drop"))
    parity = compare(runtime, read_samples(folder / SAMPLES), tolerance, manifest["metadata"])
    require(parity, str(folder))
    compression = manifest["compression"]
    compression = compression and reverify_guarantees(
        compression, manifest["format"], folder / backend.file, folder / MASKS
    )
    return Artifact(folder / backend.file, manifest | {"parity": parity.to_json(), "compression": compression})


@contextlib.contextmanager
def _one_error(message: str) -> Iterator[None]:
    """Turn what a runtime raises, and a manifest of other content that its digests fit, into a ParityError.

    Runtimes raise their own exception types, when they load a file and when they run it.
    """
    try:
        yield
    except ZooError:
        raise
    except Exception as error:
        raise ParityError(f"{message}: {shortened(reason_of(error))}. Export again.") from error


def inspect_artifact(fmt: Format, path: Path, manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Return the inspection of an artifact; raises ParityError if a guarantee of its format does not hold."""
    stored = read_artifact(path)
    check_guarantees(stored.graph, fmt.guarantees, manifest)
    return stored.inspect().to_json()


def _check_inspection(found: Mapping[str, Any], recorded: Mapping[str, Any], folder: Path) -> None:
    """Raise ParityError if an inspection differs from the manifest's; "gzip_bytes" varies between builds of zlib."""
    for key in found:
        if key != "gzip_bytes" and found[key] != recorded.get(key):
            raise ParityError(
                f"{key} of the artifact must be that of {folder / NAME}, {str(recorded.get(key))[:100]}. "
                f"Received: {str(found[key])[:100]}. Export again."
            )


def _backend(manifest: Mapping[str, Any]) -> Backend:
    """Return how an artifact is stored and run."""
    return formats[manifest["format"]].backend(manifest["metadata"].get("task", "classify"))


def _open(folder: Path, manifest: dict[str, Any], threads: int | None = None) -> tuple[Backend, Runtime]:
    """Load an artifact with a checked manifest; returns its backend too."""
    backend = _backend(manifest)
    with _one_error(f"The runtime of {manifest['format']} cannot load {folder}"):
        return backend, backend.load(folder / backend.file, threads=threads)
