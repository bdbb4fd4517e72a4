"""What is exported: the network of a finished run, or one of the registry with weights from elsewhere."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import zoo
from export.core.format import FormatRequest, describe, name_input
from export.core.guarantees import CALIBRATED
from export.core.manifest import digest_file
from export.source.source import facts_of
from training.runs.run import Run, locked
from zoo.build import check_options
from zoo.common.errors import BadOption, DataError
from zoo.common.files import finite
from zoo.specs.registry import ModelSpec, models
from zoo.weights.sources import check_weights

RANDOM = "random"
FOLDER, FILE, NOISE = "folder", "file", "noise"  # what a model is compared on
IMAGES = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp")
IMAGENET = 1000  # classes
# What `zoo.get` takes beside the options of a family.
ASKED = ("classes", "input_shape")


class ExportJob:
    """What is exported.

    Attributes:
        spec: of its network.
        title: what messages call it.
        exports: the folder of its artifacts.
        samples: what artifacts are compared on: "test" of a run, a "folder", a "file", or seeded "noise".
    """

    spec: ModelSpec
    title: str
    exports: Path
    samples: str

    def check(self, wanted: FormatRequest) -> None:
        """Raise BadOption if a format cannot be had from it."""

    def told(self, model: str = "") -> dict[str, Any]:
        """Return the facts of the network, see `export.core.format.describe`; `model` is its name."""
        raise NotImplementedError

    def expected(self, model: str) -> dict[str, Any]:
        """Return the metadata that an artifact must carry, from what was told, not from what was converted."""
        raise NotImplementedError

    def facts(self) -> dict[str, Any]:
        """Return where the network comes from, for the manifest."""
        raise NotImplementedError

    def job(self) -> dict[str, Any]:
        """Return what the converting process opens it by, JSON-safe."""
        raise NotImplementedError

    def lock(self) -> contextlib.AbstractContextManager[None]:
        """Hold its artifacts for this process."""
        raise NotImplementedError


class RunJob(ExportJob):
    """The network of a finished run.

    Args:
        run: the run.

    Raises:
        RunError: it is not finished.
    """

    samples = "test"

    def __init__(self, run: Run) -> None:
        self.run, self._result = run, run.result()
        self.spec, self.title, self.exports = zoo.spec(run.recipe.model.name), str(run.path), run.exports

    def told(self, model: str = "") -> dict[str, Any]:
        """Return the facts of the network."""
        told, shape = facts_of(self.run), tuple(self._result["input_shape"])
        task = told.pop("task", self.spec.task)
        return describe(model, task, _given(self.spec, shape), self._result["labels"]) | told

    def expected(self, model: str) -> dict[str, Any]:
        """Return the metadata that an artifact must carry."""
        text = self.run.text()
        inside = None if text else {**self._result["preprocessing"], "inside": True}
        return self.told(model) | {"preprocessing": inside, "text": text and text.to_json()}

    def facts(self) -> dict[str, Any]:
        """Return the recipe, the name of the run and the digest of its model."""
        run = self.run
        return {"recipe": run.recipe.name, "run": run.path.name, "model_sha256": digest_file(run.model_path)}

    def job(self) -> dict[str, Any]:
        """Return the path of the run."""
        return {"run": str(self.run.path.resolve())}

    def lock(self) -> contextlib.AbstractContextManager[None]:
        """Hold the run."""
        return self.run.lock()


@dataclasses.dataclass(frozen=True)
class ModelRequest:
    """A model of the registry to export; JSON-safe.

    Args:
        name: its name.
        weights: as for `zoo.get`, or "random".
        calibrate: a folder of images, or a .npy or .csv file of examples, to calibrate and compare on; "" for none.
        options: those of `zoo.get`: classes, input_shape and the family's.
    """

    name: str
    weights: str
    calibrate: str = ""
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def spec(self) -> ModelSpec:
        """Its spec."""
        return zoo.spec(self.name)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of its input; of a network that writes, both lengths."""
        return tuple(self.options.get("input_shape") or self.spec.input_shape)

    @property
    def classes(self) -> int:
        """How many classes it has."""
        return self.options.get("classes") or self.spec.classes

    @property
    def labels(self) -> list[str]:
        """Names of the classes: ImageNet's WordNet numbers where published weights know those, else plain numbers."""
        if self.spec.task == "generate":
            return []
        published = self.weights != RANDOM and not Path(self.weights).is_file()
        if published and self.classes == IMAGENET:
            (place,) = importlib.util.find_spec("tensorflow_datasets").submodule_search_locations
            return (Path(place) / "datasets" / "imagenet2012" / "labels.txt").read_text(encoding="utf-8").split()
        return [str(number) for number in range(self.classes)]

    @property
    def samples(self) -> str:
        """What it is compared on: "folder", "file" or "noise"."""
        return NOISE if not self.calibrate else FOLDER if Path(self.calibrate).is_dir() else FILE

    def check(self) -> None:
        """Raise UnknownName, BadOption or DataError for what cannot be, as far as can be told without Keras."""
        spec = self.spec
        check_options(self.name, {key: value for key, value in self.options.items() if key not in ASKED})
        if not self.weights:
            hint = "'imagenet', " if spec.weights else ""
            raise BadOption(
                f"A model of the registry is exported with weights: {hint}a path, or 'random' for a trial. "
                f"Received: model={self.name!r} without weights. Give --weights."
            )
        if self.weights != RANDOM:
            check_weights(models[self.name], self.weights)
        if self.calibrate and not Path(self.calibrate).exists():
            raise DataError(
                "calibrate must be a folder of images, or a .npy or .csv file of examples. "
                f"Received: calibrate={self.calibrate!r}, which does not exist"
            )
        if self.samples == FOLDER:
            self.images()

    def images(self) -> list[Path]:
        """Return the images below the folder to calibrate on; raises DataError if there are none."""
        found = sorted(p for p in Path(self.calibrate).rglob("*") if p.suffix.lower() in IMAGES and p.is_file())
        if not found:
            raise DataError(
                f"A folder to calibrate on must hold images ({', '.join(IMAGES)}). "
                f"Received: calibrate={self.calibrate!r}"
            )
        return found


class RegistryJob(ExportJob):
    """A model of the registry.

    Args:
        request: which, with which weights.
        out: the folder for its artifacts.
    """

    def __init__(self, request: ModelRequest, out: Path) -> None:
        request.check()
        self.request, self.exports, self.spec, self.title = request, out, request.spec, request.name
        self.samples = request.samples

    def check(self, wanted: FormatRequest) -> None:
        """Raise BadOption for a format that is calibrated on examples without any; ids are drawn."""
        if self.samples == NOISE and not self.spec.vocabulary and CALIBRATED & set(wanted.format.guarantees):
            raise BadOption(
                f"{wanted.format.name} is calibrated on examples. Received: model={self.spec.name!r} without any. Name "
                "a folder of images such as it will see, or a .npy or .csv file, by --calibrate."
            )

    def told(self, model: str = "") -> dict[str, Any]:
        """Return the facts of the network."""
        asked = self.request
        return describe(model, self.spec.task, _given(self.spec, asked.shape), asked.labels)

    def expected(self, model: str) -> dict[str, Any]:
        """Return the metadata that an artifact must carry."""
        preprocessing = None if self.spec.vocabulary else {**self.spec.preprocessing.to_json(), "inside": True}
        return self.told(model) | {"preprocessing": preprocessing, "text": None}

    def facts(self) -> dict[str, Any]:
        """Return the model, its options, and which weights it has."""
        asked, path = self.request, Path(self.request.weights)
        digest = digest_file(path) if path.is_file() else None
        origin = {"model": asked.name, "options": finite(dict(asked.options))}
        weights = {"weights": path.name if digest else asked.weights, "weights_sha256": digest}
        return {**origin, **weights, "calibrated_on": asked.samples}

    def job(self) -> dict[str, Any]:
        """Return the request, its paths absolute."""
        asked = dataclasses.asdict(self.request)
        places = {key: str(Path(asked[key]).resolve()) for key in ("weights", "calibrate") if Path(asked[key]).exists()}
        return {"model": {**asked, **{key: place for key, place in places.items() if asked[key]}}}

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the folder of the artifacts."""
        self.exports.mkdir(parents=True, exist_ok=True)
        with locked(self.exports, f"Another process exports to this folder. Received: out={str(self.exports)!r}."):
            try:
                yield
            finally:
                if [entry.name for entry in self.exports.iterdir()] == [".lock"]:
                    # Nothing was exported, so that nothing stays.
                    (self.exports / ".lock").unlink()
                    self.exports.rmdir()


def _given(spec: ModelSpec, shape: tuple[int, ...]) -> tuple[str, str, tuple[int, ...]]:
    """Return name, dtype and shape of the input of an artifact."""
    return name_input(spec.inputs[0], shape), spec.input_dtype, shape
