"""The export of a user's Keras model in the parent process: an object in memory, or a file."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from export.core.format import FormatRequest
from export.core.guarantees import CALIBRATED
from export.core.manifest import digest_file
from export.core.metadata import model_metadata
from export.source.copies import custom_classes, holds_code, importable, write_copy
from export.source.job import FolderJob
from export.source.keras_model.examples import KINDS, collect
from export.source.keras_model.keras_source import COPY, KerasRequest, write_examples
from zoo.common.errors import BadOption, DataError, did_you_mean
from zoo.reading.files import Refusal, check_regular, read_bytes, reading
from zoo.specs.registry import ModelSpec
from zoo.specs.tasks import ANY, TASKS

SUFFIXES = (".keras", ".h5")
LABEL_BYTES = 16 << 20
# Options of `export.convert` for a Keras model.
OPTIONS = ("task", "input_range", "input_shape", "custom")
ARRAYS, FILE, FOLDER, NOISE = "arrays", "file", "folder", "noise"


@dataclasses.dataclass(frozen=True)
class _Examples:
    """Examples in memory: a list of arrays, or arrays by name, and their labels."""

    inputs: Any = None
    labels: Any = None


class KerasJob(FolderJob):
    """A user's Keras model.

    Args:
        source: a built keras.Model, which is not changed; or the path of a `.keras` or `.h5` file.
        calibration: see `export.source.keras_model.examples.collect`; or a path; None for noise.
        labels: names of the classes, or the path of a file with a name a line.
        out: folder for the artifacts.
        options: see `OPTIONS`.

    Raises:
        BadOption: an option is unknown, or the model is not built.
        DataError: the examples cannot be used.
    """

    def __init__(self, source: Any, calibration: Any, labels: Any, out: Any, options: Mapping[str, Any]) -> None:
        _check_options(options)
        self._model = None if isinstance(source, Path) else source
        self._path = source if isinstance(source, Path) else None
        name = source.stem if isinstance(source, Path) else source.name
        self.spec, self.title, self.exports = ModelSpec((), 0, name=name), name, Path(out or Path("exports") / name)
        self._examples, stated = _Examples(), ""
        if isinstance(calibration, Path):
            stated = str(calibration.resolve())
        elif calibration is not None:
            self._examples = _Examples(*collect(calibration, self._count_inputs()))
        self.samples = (
            (FOLDER if Path(stated).is_dir() else FILE) if stated else ARRAYS if calibration is not None else NOISE
        )
        custom = _addresses(options.get("custom", ()))
        fields = {key: options.get(key) for key in ("input_range", "input_shape")}
        self._request = KerasRequest(
            name, str(source.resolve()) if self._path else "", custom, "", stated, _names(labels),
            options.get("task") or "", **fields,
        )  # fmt: skip
        self.here = None if self._path else self._unless_importable()

    def _count_inputs(self) -> int:
        """Return the number of inputs of a model in memory; 1 of one that does not state them, and of a file."""
        return max(1, len(getattr(self._model, "inputs", None) or ()))

    def _unless_importable(self) -> Any:
        """Return the model if it must be converted in this process; None if another one can open it."""
        model, found = self._model, importable(custom_classes(self._model))
        if found is None or holds_code(model):
            return model
        self._request = dataclasses.replace(self._request, custom={**found, **self._request.custom})
        return None

    def check(self, request: FormatRequest) -> None:
        """Raise BadOption for a calibrated format without examples and without the range of the inputs."""
        if self.samples == NOISE and self._request.input_range is None and CALIBRATED & set(request.format.guarantees):
            raise BadOption(
                f"{request.format.name} needs calibration data. Received: model={self.title!r} without any. Pass "
                f"calibration ({KINDS}), or input_range=[low, high] of float inputs to calibrate on noise."
            )

    def metadata(self, model: str = "") -> dict[str, Any]:
        """Return what is known of the metadata before the model is opened."""
        return model_metadata(model, self._request.task or ANY, ("", "float32", ()), self._request.labels)

    def expected_metadata(self, model: str, facts: Mapping[str, Any]) -> dict[str, Any]:
        """Return the metadata that an artifact must carry: those of the opened model."""
        del model
        return dict(facts["metadata"])

    def provenance(self, facts: Mapping[str, Any]) -> dict[str, Any]:
        """Return the model, the digest of its file, and what it was calibrated and compared on."""
        del facts
        stated = {"file": self._path.name, "model_sha256": digest_file(self._path)} if self._path else {}
        limits = self._request.input_range
        noise = {"noise": list(limits) if limits else "normal"} if self.samples == NOISE else {}
        return {"model": self.title, **stated, "calibrated_on": self.samples, **noise}

    def to_json(self, scratch: Path) -> dict[str, Any]:
        """Write the model and its examples to the scratch folder, and return the request for them."""
        request = self._request
        if self._examples.inputs is not None:
            place = scratch / "examples.npz"
            write_examples(self._examples.inputs, self._examples.labels, place)
            request = dataclasses.replace(request, examples=str(place.resolve()))
        if self._model is not None and self.here is None:
            place = scratch / f"source{COPY}"
            write_copy(self._model, place)
            request = dataclasses.replace(request, path=str(place.resolve()))
        return {"keras": dataclasses.asdict(request)}


def is_keras_file(source: Any) -> bool:
    """Return whether a source is the path of a Keras file."""
    return Path(source).suffix in SUFFIXES


def open_keras_job(source: Any, calibration: Any, labels: Any, out: Any, options: Mapping[str, Any]) -> KerasJob:
    """Return the job for a keras.Model or the path of its file; see `KerasJob`."""
    if isinstance(source, (str, Path)):
        source = Path(source)
        received = f"source={str(source)!r}"
        expected = "source must be an existing .keras or .h5 file"
        check_regular(source, Refusal(expected, BadOption, "Correct the path.", received))
    if isinstance(calibration, (str, Path)):
        calibration = Path(calibration)
        if not calibration.exists():
            raise DataError(f"calibration must be {KINDS}. Received: {str(calibration)!r}, which does not exist.")
    return KerasJob(source, calibration, labels, out, options)


def _check_options(options: Mapping[str, Any]) -> None:
    """Raise BadOption for an unknown option or an invalid value."""
    for name in options:
        if name not in OPTIONS:
            raise BadOption(
                f"Options of a Keras model are {', '.join(OPTIONS)}. Received: {name!r}.{did_you_mean(name, OPTIONS)}"
            )
    task, limits = options.get("task"), options.get("input_range")
    known = [name for name, kind in TASKS.items() if kind.stated]
    if task and task not in known:
        raise BadOption(f"task must be one of {', '.join(known)}. Received: task={task!r}.")
    if limits is not None and not _is_range(limits):
        raise BadOption(f"input_range must be [low, high], two numbers. Received: input_range={limits!r}.")


def _is_range(limits: Any) -> bool:
    numbers = isinstance(limits, (list, tuple)) and len(limits) == 2
    return numbers and all(isinstance(value, (int, float)) for value in limits) and limits[0] < limits[1]


def _addresses(custom: Any) -> dict[str, str]:
    """Return custom classes "module:Class" by their names."""
    if isinstance(custom, str):
        custom = [custom]
    if not all(isinstance(text, str) and text.count(":") == 1 for text in custom):
        raise BadOption(f"custom must be MODULE:CLASS. Received: custom={custom!r}.")
    return {text.rpartition(":")[2]: text for text in custom}


def _names(labels: Any) -> Sequence[str]:
    """Return the names of the classes, of a file too."""
    if labels is None:
        return ()
    if not isinstance(labels, (str, Path)):
        return tuple(map(str, labels))
    path, refusal = (
        Path(labels),
        Refusal("labels must be a text file with a name a line", DataError, "Correct the file."),
    )
    with reading(path, refusal):
        lines = read_bytes(path, LABEL_BYTES).decode("utf-8").splitlines()
    return tuple(line.strip() for line in lines if line.strip())
