"""The subjects of a report: the artifacts of a run, or of a folder without a run."""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Sequence
from pathlib import Path

from export.core.manifest import NAME, read_manifest
from export.verification.artifact import Artifact
from training.runs.run import Run
from zoo.common.errors import BadOption
from zoo.common.files import restore_all
from zoo.reading.files import check_inside


@dataclasses.dataclass(frozen=True)
class ArtifactSet:
    """The artifacts of a run, or of a folder.

    Args:
        path: folder of the report: the run directory or the folder.
        run: the run; None for artifacts of a registry model.
        artifacts: the artifacts, in the order of their names.
        name: a name that is unique in the report; "" for a single set.
    """

    path: Path
    run: Run | None
    artifacts: tuple[Artifact, ...]
    name: str = ""

    @property
    def model(self) -> str:
        """Name of the model."""
        if self.run:
            return self.run.recipe.model.name
        return next((a.manifest["metadata"].get("model") or "" for a in self.artifacts), "")

    def label(self, artifact: Artifact) -> str:
        """Return a name for an artifact that is unique in the report."""
        return f"{self.name}: {artifact.name}" if self.name else artifact.name


def open_artifact_sets(sources: Sequence[Run | Path]) -> list[ArtifactSet]:
    """Open runs and folders of artifacts, each once.

    Raises:
        RunError: a path is neither, or the run is unfinished.
        ParityError: a file of an artifact was changed.
        BadOption: there is no source.
    """
    if not sources:
        raise BadOption("Expected one or more runs, or folders of artifacts. Received: none")
    sets = list({found.path.resolve(): found for found in map(_open, sources)}.values())
    if len(sets) == 1:
        return sets
    return [dataclasses.replace(s, name=name) for s, name in zip(sets, _unique_names(sets), strict=True)]


def _open(source: Run | Path) -> ArtifactSet:
    """Open a run by its recipe.json, any other folder by the manifests in it."""
    if isinstance(source, Path) and not (source / "recipe.json").is_file() and _artifact_folders(source):
        check_inside(source)
        return ArtifactSet(source, None, _read_artifacts(source))
    run = source if isinstance(source, Run) else Run.open(source)
    run.result()
    return ArtifactSet(run.path, run, _read_artifacts(run.exports))


def _artifact_folders(folder: Path) -> list[Path]:
    """Return the artifact folders in a folder."""
    restore_all(folder)
    return sorted(path.parent for path in folder.glob(f"*/{NAME}") if not path.parent.name.startswith("."))


def _read_artifacts(folder: Path) -> tuple[Artifact, ...]:
    """Read the manifests, and check every file against them."""
    manifests = [(path, read_manifest(path)) for path in _artifact_folders(folder)]
    return tuple(Artifact(path / manifest["artifact"], manifest) for path, manifest in manifests)


def _unique_names(sets: Sequence[ArtifactSet]) -> list[str]:
    """Return the recipes' names if they are unique, else the shortest unique ends of the paths."""
    recipes = [one.run.recipe.name if one.run else one.path.name for one in sets]
    parts = [one.path.resolve().parts for one in sets]
    candidates = [recipes, *(["/".join(p[-n:]) for p in parts] for n in range(1, max(map(len, parts)) + 1))]
    return next(names for names in candidates if max(collections.Counter(names).values()) == 1)


def gzip_bytes(artifact: Artifact) -> int:
    """Return the size of an artifact in bytes after gzip."""
    return artifact.manifest["inspection"]["gzip_bytes"]
