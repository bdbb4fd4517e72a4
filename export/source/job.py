"""The source of an export in the parent process: a trained run, or a model of the registry with weights."""

from __future__ import annotations

import abc
import contextlib
import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import zoo
from export.core.format import FormatRequest
from export.core.guarantees import CALIBRATED
from export.core.manifest import digest_file
from export.core.metadata import input_name, model_metadata
from export.source.request import NOISE, RegistryRequest
from export.source.run_source import data_metadata
from training.runs.folder import locked
from training.runs.run import Run
from zoo.common.errors import BadOption
from zoo.common.files import finite
from zoo.common.licenses import check_license, is_noncommercial
from zoo.specs.registry import ModelSpec
from zoo.weights.names import is_weights_file, weights_path


class ExportJob(abc.ABC):
    """The source of an export.

    Attributes:
        spec: the model's spec.
        title: its name in messages.
        exports: the folder of its artifacts.
        samples: the examples that artifacts are compared on: "test" of a run, a "folder", a "file", or seeded "noise".
        private: whether artifacts have no example of the data, see `export.conversion.generated_samples`.
        here: a model that no other process can open, to be converted in this one; None for all others.
    """

    spec: ModelSpec
    title: str
    exports: Path
    samples: str
    private = False
    here: Any = None

    def check(self, request: FormatRequest) -> None:
        """Raise BadOption if the source cannot be exported to a format."""
        del request

    @abc.abstractmethod
    def metadata(self, model: str = "") -> dict[str, Any]:
        """Return the metadata of the model, see `export.core.metadata.model_metadata`; `model` is its name."""

    @abc.abstractmethod
    def expected_metadata(self, model: str, facts: Mapping[str, Any]) -> dict[str, Any]:
        """Return the metadata that an artifact must carry, computed without the converted model.

        Args:
            model: its name.
            facts: `export.source.source.SourceModel.facts`.
        """

    @abc.abstractmethod
    def provenance(self, facts: Mapping[str, Any]) -> dict[str, Any]:
        """Return where the model comes from, for the manifest."""

    @abc.abstractmethod
    def to_json(self, scratch: Path) -> dict[str, Any]:
        """Return the description that the converting process opens the source from; files of it are in `scratch`."""

    @abc.abstractmethod
    def lock(self) -> contextlib.AbstractContextManager[None]:
        """Lock the folder of the artifacts for this process."""


class FolderJob(ExportJob):
    """A source of artifacts that have a folder of their own."""

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Lock the folder of the artifacts."""
        self.exports.mkdir(parents=True, exist_ok=True)
        with locked(self.exports, f"Another process exports to this folder. Received: out={str(self.exports)!r}."):
            try:
                yield
            finally:
                if [entry.name for entry in self.exports.iterdir()] == [".lock"]:
                    # Nothing was exported: leave no empty folder.
                    (self.exports / ".lock").unlink()
                    self.exports.rmdir()


class RunJob(ExportJob):
    """The model of a finished run.

    Args:
        run: the run.

    Raises:
        RunError: it is not finished.
    """

    samples = "test"

    def __init__(self, run: Run) -> None:
        self.run, self._result = run, run.result()
        self.spec, self.title, self.exports = zoo.spec(run.recipe.model.name), str(run.path), run.exports

    def metadata(self, model: str = "") -> dict[str, Any]:
        """Return the metadata of the model."""
        extra, shape = data_metadata(self.run), tuple(self._result["input_shape"])
        task = extra.pop("task", self.spec.task)
        return model_metadata(model, task, _signature(self.spec, shape), self._result["labels"]) | extra

    def expected_metadata(self, model: str, facts: Mapping[str, Any]) -> dict[str, Any]:
        """Return the metadata that an artifact must carry."""
        del facts
        text = self.run.text()
        preprocessing = None if text else {**self._result["preprocessing"], "inside": True}
        return self.metadata(model) | {"preprocessing": preprocessing, "text": text and text.to_json()}

    def provenance(self, facts: Mapping[str, Any]) -> dict[str, Any]:
        """Return the recipe, the run, the digest of its model, and its metrics in the precision that it trained in."""
        del facts
        run, result = self.run, self._result
        return {
            "recipe": run.recipe.name,
            "run": run.path.name,
            "model_sha256": digest_file(run.model_path),
            "precision": result["precision"],
            "split": result["test"]["split"],
            "examples": result["test"]["examples"],
            "metrics": {name: v for name, v in result["test"].items() if isinstance(v, float)},
            **(_weights_facts(self._pretrained()) if self.run.recipe.model.weights else {}),
        }

    def check(self, request: FormatRequest) -> None:
        """Raise BadOption for a run that started from weights whose license needs an acceptance."""
        del request
        check_license(self._pretrained().get("license"), f"run={self.title!r} from {self.run.recipe.model.weights!r}")

    def _pretrained(self) -> dict[str, Any]:
        """Return the info of the weights that the training started from; empty without any."""
        return (self.run.statistics() or {}).get("pretrained") or {}

    def to_json(self, scratch: Path) -> dict[str, Any]:
        """Return the path of the run."""
        del scratch
        return {"run": str(self.run.path.resolve())}

    def lock(self) -> contextlib.AbstractContextManager[None]:
        """Lock the run."""
        return self.run.lock()


class RegistryJob(FolderJob):
    """A model of the registry.

    Args:
        request: the model, its weights and examples.
        out: the folder for its artifacts.
    """

    def __init__(self, request: RegistryRequest, out: Path) -> None:
        request.check()
        self.request, self.exports, self.spec, self.title = request, out, request.spec, request.name
        self.samples = request.samples

    def check(self, request: FormatRequest) -> None:
        """Raise BadOption for a calibrated format without examples; token ids are drawn at random."""
        if self.samples == NOISE and not self.spec.vocabulary and CALIBRATED & set(request.format.guarantees):
            raise BadOption(
                f"{request.format.name} needs calibration data. Received: model={self.spec.name!r} without any. Name "
                "a folder of typical images, or a .npy or .csv file, with --calibration."
            )

    def metadata(self, model: str = "") -> dict[str, Any]:
        """Return the metadata of the model."""
        request = self.request
        return model_metadata(model, request.task, _signature(self.spec, request.shape), request.labels)

    def expected_metadata(self, model: str, facts: Mapping[str, Any]) -> dict[str, Any]:
        """Return the metadata that an artifact must carry."""
        return self.metadata(model) | {name: facts[name] for name in ("labels", "preprocessing", "text")}

    def provenance(self, facts: Mapping[str, Any]) -> dict[str, Any]:
        """Return the model, its options, and its weights with their origin and license."""
        request, path = self.request, Path(self.request.weights)
        digest = digest_file(weights_path(request.weights)) if is_weights_file(request.weights) else None
        model = {"model": request.name, "options": finite(dict(request.options))}
        weights = {"weights": path.name if digest else request.weights, **_weights_facts(facts["info"] or {})}
        weights["weights_sha256"] = digest or weights["weights_sha256"]
        return {**model, **weights, "calibrated_on": request.samples}

    def to_json(self, scratch: Path) -> dict[str, Any]:
        """Return the request with absolute paths."""
        del scratch
        fields = dataclasses.asdict(self.request)
        paths = {key: Path(fields[key]) for key in ("weights", "calibration") if fields[key]}
        return {"model": {**fields, **{key: str(path.resolve()) for key, path in paths.items() if path.exists()}}}


def _weights_facts(info: Mapping[str, Any]) -> dict[str, Any]:
    """Return origin, commit, digest and license of weights from their info, and an acceptance that it needed."""
    facts = {f"weights_{name}": info.get(name) for name in ("origin", "revision", "license", "sha256")}
    return facts | ({"noncommercial_accepted": True} if is_noncommercial(info.get("license")) else {})


def _signature(spec: ModelSpec, shape: tuple[int, ...]) -> tuple[str, str, tuple[int, ...]]:
    """Return name, dtype and shape of an artifact's input."""
    return input_name(spec.inputs[0], shape), spec.input_dtype, shape
