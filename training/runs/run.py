"""The run directory: the only file that knows its files.

runs/<recipe>/<time>-<4 hex>/
  recipe.json env.json metrics.jsonl diagnostics.jsonl tensorboard/ checkpoints/ model.keras compressed/ exports/
  report.html report.json
  text.json    the vocabulary, where the data is text
  data.json    what else the training split taught: statistics, the columns of a table
  pruned.json  where a study gave the run up; resuming it takes the mark away
  logits.npz   of a run on JAX: what its network says to some examples, which its rebuild on TensorFlow has to repeat
  done.json    written last; a run without it is unfinished
"""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import platform
import secrets
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from training.recipe.recipe import Recipe
from zoo.common.errors import BadOption, RunError
from zoo.common.files import finite, read_json, whole_folder, write_bytes, write_json
from zoo.common.lazy import keras
from zoo.specs.text import TextConfig

VERSION = 1


class Run:
    """A run directory.

    Attributes:
        path: the directory.
        recipe: the recipe it trains.
        writes: whether this process writes there.
    """

    writes = True

    def __init__(self, path: Path, recipe: Recipe) -> None:
        self.path = path
        self.recipe = recipe

    @classmethod
    def create(
        cls,
        recipe: Recipe,
        path: str | os.PathLike[str] | None = None,
        text: TextConfig | None = None,
        learnt: Mapping[str, Any] | None = None,
    ) -> Run:
        """Make a new run directory, whole or not at all.

        Args:
            recipe: what it will train.
            path: where; `runs/<recipe>/<time>-<4 hex>` by default.
            text: the text contract, its vocabulary complete, where the data is text.
            learnt: what else the training split taught; see `training.data.pipeline.opening.training_statistics`.

        Raises:
            RunError: there is something at `path` already, or it cannot be written.
        """
        check_free(path)
        place = Path(os.path.abspath(path or new_path("runs", recipe.name)))
        with whole_folder(place) as beside:
            write_json(beside / "recipe.json", {"version": VERSION, "recipe": recipe.to_json()})
            write_json(beside / "env.json", {**environment(), "backend": keras.backend.backend()})
            if text:
                write_json(beside / "text.json", text.to_json())
            if learnt:
                write_json(beside / "data.json", dict(learnt))
        return cls(place, recipe)

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Run:
        """Open a run directory.

        Raises:
            RunError: there is none, it is damaged, or it was written by another version of the layout.
        """
        place = Path(path)
        if not (place / "recipe.json").is_file():
            raise RunError(
                f"Expected a run directory (with a recipe.json). Received: run={str(place)!r}. "
                "Runs lie in runs/<recipe>/<time>; make one with: zoo train RECIPE"
            )
        content = read_json(place / "recipe.json")
        version = content.get("version") if isinstance(content, dict) else None
        if version != VERSION:
            raise RunError(
                f"This zoo reads run directories of version {VERSION}. Received: {place} of version {version}. "
                "Use the zoo that wrote it, or train again."
            )
        try:
            return cls(place, Recipe.from_json(content.get("recipe")))
        except BadOption as error:
            raise RunError(f"The recipe of {place} cannot be read: {error}") from error

    @property
    def model_path(self) -> Path:
        """The trained model, in Keras' own format."""
        return self.path / "model.keras"

    @property
    def logits_path(self) -> Path:
        """What the network of a run on another backend than TensorFlow says to some examples."""
        return self.path / "logits.npz"

    @property
    def exports(self) -> Path:
        """The folder of artifacts."""
        return self.path / "exports"

    @property
    def compressed(self) -> Path:
        """The folder of the steps of compressions, one folder each."""
        return self.path / "compressed"

    @property
    def checkpoints(self) -> Path:
        """The folder of checkpoints."""
        return self.path / "checkpoints"

    @property
    def tensorboard(self) -> Path:
        """The folder of TensorBoard's event files."""
        return self.path / "tensorboard"

    @property
    def finished(self) -> bool:
        """Whether training has ended and the model is there."""
        return (self.path / "done.json").is_file()

    def result(self) -> dict[str, Any]:
        """Return what done.json says: metrics of the test split, labels, preprocessing, durations.

        Raises:
            RunError: the run is unfinished.
        """
        if not self.finished:
            raise RunError(
                f"Expected a finished run. Received: run={str(self.path)!r}, which has no done.json. "
                f"Finish it by: zoo train --resume {self.path}"
            )
        return read_json(self.path / "done.json")

    def finish(self, result: dict[str, Any]) -> None:
        """Write done.json, which makes the run a finished one."""
        write_json(self.path / "done.json", {"version": VERSION, **result})
        (self.path / "pruned.json").unlink(missing_ok=True)

    def text(self) -> TextConfig | None:
        """Return the text contract that the run began with, None where its data is no text.

        Raises:
            RunError: the file cannot be read.
        """
        path = self.path / "text.json"
        if not path.is_file():
            return None
        try:
            return TextConfig.from_json(read_json(path))
        except BadOption as error:
            raise RunError(f"The vocabulary of {self.path} cannot be read: {error}") from error

    def learnt(self) -> dict[str, Any] | None:
        """Return what else the training split taught when the run began, None where nothing was learnt."""
        path = self.path / "data.json"
        return read_json(path) if path.is_file() else None

    def environment(self) -> dict[str, Any]:
        """Return what env.json says of the machine and the versions."""
        return read_json(self.path / "env.json")

    def check_backend(self) -> None:
        """Raise RunError unless Keras runs on what the run began with: others draw other numbers."""
        began, here = self.environment().get("backend", "tensorflow"), keras.backend.backend()
        if began != here:
            raise RunError(
                f"A run goes on with the backend of Keras that it began with, {began}. Received: "
                f"run={str(self.path)!r}, KERAS_BACKEND={here}. Set KERAS_BACKEND={began}."
            )

    def metrics(self) -> list[dict[str, Any]]:
        """Return one row an epoch; a last line that was cut off is left out."""
        return _read_lines(self.path / "metrics.jsonl")

    def add_metrics(self, row: dict[str, Any]) -> None:
        """Add the row of an epoch; rows of this epoch or later, from before a resume, give way."""
        kept = [r for r in self.metrics() if r["epoch"] < row["epoch"]]
        write_bytes(self.path / "metrics.jsonl", "".join(json.dumps(r) + "\n" for r in [*kept, row]).encode())

    def diagnostics(self) -> list[dict[str, Any]]:
        """Return what was measured at steps, in order; see `training.monitor.watch`. A failure is a row with "failed"."""
        rows: list[dict[str, Any]] = []
        for row in _read_lines(self.path / "diagnostics.jsonl"):
            # What a killed process measured after its last checkpoint is measured again after a resume.
            while rows and rows[-1]["step"] >= row["step"]:
                rows.pop()
            rows.append(row)
        return rows

    def add_diagnostics(self, row: dict[str, Any]) -> None:
        """Add what was measured at a step, with its "step" counted over the whole training from 1."""
        try:
            with open(self.path / "diagnostics.jsonl", "a+b") as file:
                whole = not file.tell() or (file.seek(-1, os.SEEK_END), file.read())[1] == b"\n"
                file.write(b"" if whole else b"\n")
                file.write(json.dumps(finite(row), allow_nan=False).encode() + b"\n")
        except OSError as error:
            raise RunError(f"Could not write {self.path / 'diagnostics.jsonl'}: {error.strerror}. Make room.") from error

    @property
    def pruned(self) -> dict[str, Any] | None:
        """What a study said when it gave the run up: its epoch and figures; None if it did not."""
        path = self.path / "pruned.json"
        return read_json(path) if path.is_file() else None

    def prune(self, row: dict[str, Any]) -> None:
        """Mark the run as given up after the epoch of a row."""
        write_json(self.path / "pruned.json", row)

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the run for this process; a second one is refused. The lock goes with the process, however it ends."""
        with locked(self.path, f"Another process is training in this run. Received: run={str(self.path)!r}."):
            self._sweep()
            yield

    def _sweep(self) -> None:
        """Remove what a killed process was writing."""
        for left in (*self.path.glob(".writing-*"), *self.checkpoints.glob(".writing-*")):
            left.unlink(missing_ok=True)


def _read_lines(path: Path) -> list[dict[str, Any]]:
    """Return the rows of a file of JSON lines; those that were cut off are left out."""
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else []:
        with contextlib.suppress(json.JSONDecodeError):
            rows.append(json.loads(line))
    return rows


@contextlib.contextmanager
def locked(folder: Path, refusal: str) -> Iterator[None]:
    """Hold a folder for this process, or raise RunError that begins with `refusal`."""
    # fcntl is missing on Windows only, where nothing else here is supported either.
    import fcntl

    with open(folder / ".lock", "a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RunError(f"{refusal} Wait for it, or stop it.") from None
        yield


def check_free(path: str | os.PathLike[str] | None) -> None:
    """Raise RunError if a new run cannot be made at `path` because something is there."""
    if path and Path(path).exists() and (not Path(path).is_dir() or any(Path(path).iterdir())):
        raise RunError(
            f"A new run needs a folder that is not there yet. Received: run={str(path)!r}, which holds something. "
            f"If it is an unfinished run, go on with it by: zoo train --resume {path}"
        )


def new_path(folder: str, name: str) -> Path:
    """Return `<folder>/<name>/<time>-<4 hex>`."""
    now = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
    return Path(folder) / name / f"{now}-{secrets.token_hex(2)}"


def environment() -> dict[str, Any]:
    """Return what the machine and the installed versions are."""
    from importlib.metadata import PackageNotFoundError, version

    versions = {}
    for package in (
        "tensorflow",
        "keras",
        "numpy",
        "ai-edge-litert",
        "litert-quantizer",
        "onnx",
        "onnxruntime",
        "tf2onnx",
    ):
        with contextlib.suppress(PackageNotFoundError):
            versions[package] = version(package)
    return {
        "created": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "system": platform.platform(),
        "processor": processor(),
        "cores": os.cpu_count(),
        "versions": versions,
    }


def processor() -> str:
    """Return the processor's name, as Linux tells it, else what Python knows."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
