"""What a report is about: the artifacts of a run, or those in a folder that belong to no run."""

from __future__ import annotations

import collections
import dataclasses
import gzip
from collections.abc import Sequence
from pathlib import Path

from export.core.manifest import BESIDE, NAME, read_manifest
from export.pipeline import Artifact
from training.runs.run import Run
from zoo.common.errors import BadOption


@dataclasses.dataclass(frozen=True)
class Subject:
    """A run, or a folder of artifacts.

    Args:
        path: where it lies; the report goes there.
        run: the run; None where a registered model was exported without one.
        artifacts: each as it was written, in the order of their names.
        name: what tells it from the others, "" if there are none.
    """

    path: Path
    run: Run | None
    artifacts: tuple[Artifact, ...]
    name: str = ""

    @property
    def model(self) -> str:
        """Name of the network."""
        if self.run:
            return self.run.recipe.model.name
        return next((a.manifest["metadata"].get("model") or "" for a in self.artifacts), "")

    def label(self, artifact: Artifact) -> str:
        """Return what an artifact is called beside those of the others."""
        return f"{self.name}: {artifact.name}" if self.name else artifact.name


def open_subjects(places: Sequence[Run | Path]) -> list[Subject]:
    """Open runs and folders of artifacts, each once.

    Raises:
        RunError: one is neither, or is a run that is unfinished.
        ParityError: an artifact is not as it was written.
        BadOption: none is given.
    """
    if not places:
        raise BadOption("Expected one or more runs, or folders of artifacts. Received: none")
    found = {subject.path.resolve(): subject for subject in map(_open, places)}
    subjects = list(found.values())
    if len(subjects) == 1:
        return subjects
    return [dataclasses.replace(s, name=n) for s, n in zip(subjects, _names(subjects), strict=True)]


def _open(place: Run | Path) -> Subject:
    """Open a run by its recipe.json, any other folder by the manifests in it."""
    if isinstance(place, Path) and not (place / "recipe.json").is_file() and _folders(place):
        return Subject(place, None, _read(place))
    run = place if isinstance(place, Run) else Run.open(place)
    run.result()
    return Subject(run.path, run, _read(run.exports))


def _folders(place: Path) -> list[Path]:
    """Return the folders of artifacts in a folder."""
    return sorted(path.parent for path in place.glob(f"*/{NAME}") if not path.parent.name.startswith("."))


def _read(place: Path) -> tuple[Artifact, ...]:
    """Read the manifests and check every file against them."""
    manifests = [(folder, read_manifest(folder)) for folder in _folders(place)]
    return tuple(Artifact(folder / manifest["artifact"], manifest) for folder, manifest in manifests)


def _names(subjects: Sequence[Subject]) -> list[str]:
    """Return the shortest ends of their paths that tell them apart; a run's is its recipe where that does."""
    recipes = [subject.run.recipe.name if subject.run else subject.path.name for subject in subjects]
    ends = [subject.path.resolve().parts for subject in subjects]
    ways = [recipes, *(["/".join(end[-n:]) for end in ends] for n in range(1, max(map(len, ends)) + 1))]
    return next(names for names in ways if max(collections.Counter(names).values()) == 1)


def gzipped(artifact: Artifact) -> int:
    """Return the bytes of an artifact when it is sent compressed."""
    told = (artifact.manifest.get("inspection") or {}).get("gzip")
    if told:
        return told
    files = (artifact.folder / name for name in artifact.manifest["files"] if name not in BESIDE)
    return sum(len(gzip.compress(file.read_bytes(), 6)) for file in files)
