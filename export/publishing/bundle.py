"""What is pushed: the weights of a run with a config, and artifacts, each as a file of the repository."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import zoo
from export.core.manifest import NAME, find_folder, read_manifest
from export.publishing.pull import ARTIFACTS
from export.reporting.artifact_sets import ArtifactSet, open_artifact_sets
from export.verification.artifact import Artifact
from training.learning.evaluation import load_model
from training.runs.run import Run
from zoo.common.digests import digest
from zoo.common.errors import BadOption, ParityError
from zoo.common.lazy import np
from zoo.common.licenses import accepted, check_license, is_noncommercial
from zoo.specs.info import ModelInfo
from zoo.specs.tasks import task_of
from zoo.weights.configs import StoredModel, own_config
from zoo.weights.hub import CONFIG, FILE


@dataclasses.dataclass(frozen=True)
class Bundle:
    """What is pushed.

    Args:
        model: the registered name of the model.
        license: identifier of the license; None if it is not known.
        origin: where the weights came from that it was made of; None for random ones.
        artifacts: the artifacts.
        files: local files by their path in the repository.
        run: the run; None for artifacts alone.
        stored: what `config.json` states of the weights of the run; None without weights.
    """

    model: str
    license: str | None
    origin: str | None
    artifacts: tuple[Artifact, ...]
    files: Mapping[str, Path]
    run: Run | None = None
    stored: StoredModel | None = None

    @property
    def metadata(self) -> dict[str, Any]:
        """The metadata of the first artifact; empty without artifacts."""
        return self.artifacts[0].manifest["metadata"] if self.artifacts else {}


def gather(source: Run | Path, license_name: str, scratch: Path) -> Bundle:
    """Return what is pushed of a run, an artifact or a folder of artifacts.

    Args:
        source: the run, or a path.
        license_name: the user's license; "" for that of the weights.
        scratch: folder for the files that are made.

    Raises:
        BadOption: the model has several outputs, or the license contradicts that of the weights.
        RunError: there is nothing, or the run is unfinished.
        ParityError: an artifact was changed, or the weights would not give the model back.
    """
    found = _opened(source)
    files = {f"{ARTIFACTS}/{a.name}/{name}": a.folder / name for a in found.artifacts for name in _files(a)}
    if found.run is None:
        stated = found.artifacts[0].manifest["source"]
        terms = checked_license(license_name, stated.get("weights_license"))
        return Bundle(found.model, terms, stated.get("weights_origin"), found.artifacts, files)
    model = load_model(found.run)
    info = zoo.info(model)
    if info is None or isinstance(model.output, (dict, list)):
        raise BadOption(
            f"A run must have a model of the zoo with one output. Received: run={str(found.run.path)!r}. Push an "
            "artifact of it instead."
        )
    terms = checked_license(license_name, info.license)
    stored = _write_weights(model, dataclasses.replace(info, license=terms), scratch)
    files |= {name: scratch / name for name in (FILE, CONFIG)}
    files |= {"text.json": found.run.path / "text.json"} if found.run.text() else {}
    return Bundle(info.name, terms, info.origin, found.artifacts, files, found.run, stored)


def checked_license(given: str, known: str | None) -> str | None:
    """Return the license to push under.

    Raises:
        BadOption: it allows more than that of the weights, or that of the weights needs an acceptance.
    """
    check_license(known, "weights to push")
    if given and is_noncommercial(known) and not is_noncommercial(given):
        raise BadOption(
            f"license must keep that of the weights, {known}, which forbids commercial use. Received: "
            f"license={given!r}. Leave it out."
        )
    return given or known


def _opened(source: Run | Path) -> ArtifactSet:
    """Open a run, a folder of artifacts, or a single artifact."""
    is_set = isinstance(source, Run) or (source / "recipe.json").is_file() or any(source.glob(f"*/{NAME}"))
    if is_set:
        return open_artifact_sets([source])[0]
    folder = find_folder(source)
    manifest = read_manifest(folder)
    return ArtifactSet(folder, None, (Artifact(folder / manifest["artifact"], manifest),))


def _files(artifact: Artifact) -> list[str]:
    return [*artifact.manifest["files"], NAME]


def _write_weights(model: Any, info: ModelInfo, folder: Path) -> StoredModel:
    """Write the weights and the config of a model, and check that they give it back."""
    zoo.save_weights(model, folder / FILE)
    several = isinstance(model.input, dict)
    shape = tuple(x.shape[1] for x in model.inputs) if several else tuple(model.input_shape[1:])
    predicts = any(layer.name.endswith("logits") for layer in model.layers)
    classes = model.output_shape[-1] if predicts and not task_of(zoo.spec(info.name).task).generates else None
    stored = StoredModel(info, classes, shape, digest(folder / FILE))
    (folder / CONFIG).write_text(json.dumps(own_config(stored), indent=2, ensure_ascii=False), encoding="utf-8")
    with accepted():  # the user's own license too
        again = zoo.get(str(folder), dtype="float32")
    pairs = list(zip(model.get_weights(), again.get_weights(), strict=False))
    same = len(pairs) == len(model.weights) and all(np.array_equal(a, b) for a, b in pairs)
    if not same or zoo.info(again).options != info.options:
        raise ParityError(
            f"Pushed weights must give the model back. Received: {info.name}, which they do not. Push an artifact."
        )
    return stored


def target_scale(run: Run) -> dict[str, Any] | None:
    """Return mean and deviation of the targets of a regression, by which the outputs of its model are scaled."""
    return (run.statistics() or {}).get("scale")
