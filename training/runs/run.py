"""The run directory; no other module knows its files.

runs/<recipe>/<time>-<4 hex>/
  recipe.json env.json metrics.jsonl diagnostics.jsonl tensorboard/ checkpoints/ model.keras compressed/ exports/
  report.html report.json
  text.json    the text config with its vocabulary, for text
  data.json    the summary of the data, statistics of the training split, the columns of a table, skipped images
  files.json   the files of the data by split, with their sizes and digests, for data of your own
  pruned.json  written when a study prunes the run; resuming removes it
  logits.npz   for a run on JAX: logits of some examples, to verify its rebuild on TensorFlow
  done.json    written last; a run without it is unfinished
"""

from __future__ import annotations

import contextlib
import json
import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from training.recipe.recipe import Recipe, with_located_paths, with_paths
from training.runs.environment import environment
from training.runs.folder import check_free, locked, new_path
from training.runs.schemas import Environment, Epoch, ExtendedRecipeFile, Files, Result, Statistics, Step
from zoo.common.digests import digest
from zoo.common.errors import BadOption, RunError
from zoo.common.files import finite, whole_folder, write_bytes, write_json
from zoo.common.lazy import keras
from zoo.common.portable_paths import locate, portable
from zoo.reading.files import Refusal, check_inside, open_own, reading, reason_of
from zoo.reading.json_files import read_json, read_json_lines
from zoo.reading.schema import fit
from zoo.specs.text import TextConfig

VERSION = 1
# Files that done.json has the digests of.
DIGESTED = ("model.keras", "text.json", "data.json")
# The key of statistics that has a file of its own.
FILES, FILES_LIMIT = "files", 512 << 20  # bytes
REFUSAL = Refusal(advice="Restore the file, or train again.")
FILES_REFUSAL = Refusal(advice="Restore the file, or remove it to read the data as it is now.")


def _stored(recipe: Recipe, place: Path) -> dict[str, Any]:
    """Return a recipe as the recipe.json of a run has it: its values, and which of them are paths."""
    changed, keys = with_paths(recipe, lambda path: portable(path, place))
    return {"recipe": changed.to_json(), "paths": keys}


class Run:
    """A run directory.

    Attributes:
        path: the directory.
        recipe: its recipe.
        writes: whether this process writes to it.
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
        statistics: Mapping[str, Any] | None = None,
    ) -> Run:
        """Create a run directory atomically.

        Args:
            recipe: its recipe.
            path: the directory; `runs/<recipe>/<time>-<4 hex>` by default.
            text: the text config with its complete vocabulary, for text.
            statistics: other statistics of the training split; see
                `training.data.pipeline.opening.training_statistics`.

        Raises:
            RunError: `path` exists already, or cannot be written.
        """
        check_free(path)
        place = Path(os.path.abspath(path or new_path("runs", recipe.name)))
        with whole_folder(place) as folder:
            write_json(folder / "recipe.json", {"version": VERSION, **_stored(recipe, place)})
            write_json(folder / "env.json", {**environment(), "backend": keras.backend.backend()})
            if text:
                write_json(folder / "text.json", text.to_json())
            if statistics:
                write_json(folder / "data.json", {key: value for key, value in statistics.items() if key != FILES})
            if statistics and FILES in statistics:
                # Without indents: there may be a million files.
                content = {**statistics[FILES], "root": portable(statistics[FILES]["root"], place)}
                write_bytes(folder / "files.json", json.dumps(content, ensure_ascii=True).encode())
        return cls(place, recipe)

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Run:
        """Open a run directory.

        Raises:
            RunError: the directory is missing or damaged, or has another version.
        """
        place = Path(path)
        if not (place / "recipe.json").is_file():
            raise RunError(
                f"Expected a run directory (with a recipe.json). Received: run={str(place)!r}. "
                "Runs are in runs/<recipe>/<time>; create one with: zoo train RECIPE"
            )
        check_inside(place)
        content = read_json(place / "recipe.json", dict)
        version = content.get("version")
        if version != VERSION:
            raise RunError(
                f"Expected a run directory of version {VERSION}. Received: {place} of version {version}. "
                "Use the zoo version that wrote it, or train again."
            )
        with reading(place / "recipe.json"):
            fit(content, ExtendedRecipeFile)
        try:
            with reading(place / "recipe.json"):
                recipe = Recipe.from_json(content["recipe"])
                return cls(place, with_located_paths(recipe, content.get("paths", []), place))
        except BadOption as error:
            raise RunError(f"Expected a valid recipe.json. Received: run={str(place)!r}: {error}") from error

    @property
    def model_path(self) -> Path:
        """The trained model, in the Keras format."""
        return self.path / "model.keras"

    @property
    def logits_path(self) -> Path:
        """Reference logits of some examples, of a run on another backend than TensorFlow."""
        return self.path / "logits.npz"

    @property
    def exports(self) -> Path:
        """The folder of artifacts."""
        return self.path / "exports"

    @property
    def compressed(self) -> Path:
        """The folder of compression steps, one folder each."""
        return self.path / "compressed"

    @property
    def checkpoints(self) -> Path:
        """The folder of checkpoints."""
        return self.path / "checkpoints"

    @property
    def tensorboard(self) -> Path:
        """The folder of TensorBoard event files."""
        return self.path / "tensorboard"

    @property
    def finished(self) -> bool:
        """Whether training is finished and the model is saved."""
        return (self.path / "done.json").is_file()

    def result(self) -> dict[str, Any]:
        """Return the content of done.json: metrics of the test split, labels, preprocessing, durations.

        Raises:
            RunError: the run is unfinished.
        """
        if not os.path.lexists(self.path / "done.json"):
            raise RunError(
                f"Expected a finished run. Received: run={str(self.path)!r}, which has no done.json. "
                f"Run: zoo train --resume {self.path}"
            )
        return read_json(self.path / "done.json", Result, REFUSAL)

    def finish(self, result: dict[str, Any]) -> None:
        """Write done.json, which marks the run as finished, with the digests of what its model and data depend on."""
        files = {name: digest(self.path / name) for name in DIGESTED if (self.path / name).is_file()}
        write_json(self.path / "done.json", {"version": VERSION, **result, "files": files}, parents=False)
        (self.path / "pruned.json").unlink(missing_ok=True)

    def check_files(self) -> None:
        """Raise RunError unless the model and what describes its data are those of the training.

        Digests find damage and edits; who writes the files can write their digests too.
        """
        stored = self.result().get("files", {})
        for name in (name for name in DIGESTED if name in stored):
            with reading(self.path / name, REFUSAL):
                if digest(self.path / name) != stored[name]:
                    raise ValueError("it was changed after the training")

    def extend(self, recipe: Recipe) -> Run:
        """Give the run a recipe with more epochs, and mark it as unfinished; returns it with this recipe."""
        stored = read_json(self.path / "recipe.json", ExtendedRecipeFile)
        # A process that is killed in between leaves a run that finishes again.
        (self.path / "done.json").unlink(missing_ok=True)
        before = [*stored.get("epochs_before", []), self.recipe.epochs]
        write_json(self.path / "recipe.json", {**stored, **_stored(recipe, self.path), "epochs_before": before})
        return type(self)(self.path, recipe)

    def text(self) -> TextConfig | None:
        """Return the text config of the run, None for other data than text.

        Raises:
            RunError: the file cannot be read.
        """
        path = self.path / "text.json"
        if not path.is_file():
            return None
        try:
            return TextConfig.from_json(read_json(path, dict))
        except BadOption as error:
            raise RunError(f"Expected a valid text.json. Received: run={str(self.path)!r}: {error}") from error

    def statistics(self) -> dict[str, Any] | None:
        """Return the stored statistics of the training split, None if there are none."""
        path = self.path / "data.json"
        return read_json(path, Statistics, REFUSAL) if os.path.lexists(path) else None

    def store_statistics(self, statistics: Mapping[str, Any]) -> None:
        """Store other statistics of the training split, such as with images that are not read any more."""
        write_json(self.path / "data.json", dict(statistics), parents=False)

    def files(self) -> dict[str, Any] | None:
        """Return the stored files of the data, see `training.data.readers.changes`; None if there are none."""
        path = self.path / "files.json"
        if not os.path.lexists(path):
            return None
        content = read_json(path, Files, FILES_REFUSAL, limit=FILES_LIMIT)
        with reading(path, FILES_REFUSAL):
            return {**content, "root": str(locate(content["root"], self.path))}

    def environment(self) -> dict[str, Any]:
        """Return the content of env.json: the machine and installed versions."""
        return read_json(self.path / "env.json", Environment, REFUSAL)

    def check_backend(self) -> None:
        """Raise RunError for another Keras backend than the run's: it draws other random numbers."""
        stored, backend = self.environment().get("backend", "tensorflow"), keras.backend.backend()
        if stored != backend:
            raise RunError(
                f"Expected the Keras backend of the run, {stored}. Received: run={str(self.path)!r}, "
                f"KERAS_BACKEND={backend}. Set KERAS_BACKEND={stored}."
            )

    def metrics(self) -> list[dict[str, Any]]:
        """Return one row for each epoch, without a truncated last line; raises RunError for a damaged file."""
        path = self.path / "metrics.jsonl"
        rows = read_json_lines(path, Epoch)
        for key, value in (entry for row in rows for entry in row.items()):
            if not isinstance(value, (int, float, type(None))):
                raise RunError(f"Expected a file of numbers. Received: {path} with {key}={value!r}. It was changed.")
        # JSON has no NaN.
        return [{key: math.nan if value is None else value for key, value in row.items()} for row in rows]

    def add_metrics(self, row: dict[str, Any]) -> None:
        """Add the row of an epoch; replace rows of this and later epochs, from before a resume.

        Raises:
            RunError: the run was removed during its training.
        """
        if not (self.path / "recipe.json").is_file():
            raise RunError(
                f"Expected the run to stay until its training ends. Received: run={str(self.path)!r}, which was "
                "removed meanwhile. Train again."
            )
        rows = [r for r in self.metrics() if r["epoch"] < row["epoch"]]
        lines = "".join(json.dumps(finite(r)) + "\n" for r in [*rows, row])
        write_bytes(self.path / "metrics.jsonl", lines.encode(), parents=False)

    def diagnostics(self) -> list[dict[str, Any]]:
        """Return the measured steps in order; see `training.monitor.step_monitor`. A failure is a row with "failed"."""
        rows: list[dict[str, Any]] = []
        for row in read_json_lines(self.path / "diagnostics.jsonl", Step):
            # A resumed run repeats the steps of a killed process after its last checkpoint.
            while rows and rows[-1]["step"] >= row["step"]:
                rows.pop()
            rows.append(row)
        return rows

    def add_diagnostics(self, row: dict[str, Any]) -> None:
        """Add the measurements of a step; "step" counts over the whole training from 1."""
        try:
            with open_own(self.path / "diagnostics.jsonl") as file:
                whole = not file.tell() or (file.seek(-1, os.SEEK_END), file.read())[1] == b"\n"
                file.write(b"" if whole else b"\n")
                file.write(json.dumps(finite(row), allow_nan=False).encode() + b"\n")
        except OSError as error:
            raise RunError(
                f"Expected a writable file. Received: {self.path / 'diagnostics.jsonl'}: {reason_of(error)}. "
                "Free disk space, or change the permissions."
            ) from error

    @property
    def pruned(self) -> dict[str, Any] | None:
        """The epoch and metric at which a study pruned the run; None if it did not."""
        path = self.path / "pruned.json"
        return read_json(path, dict) if path.is_file() else None

    def prune(self, row: dict[str, Any]) -> None:
        """Mark the run as pruned after the epoch of a row."""
        write_json(self.path / "pruned.json", row, parents=False)

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Lock the run for this process; another process gets RunError. The lock ends with the process.

        Raises:
            RunError: another process has the lock, or the directory has links that lead out of it.
        """
        check_inside(self.path)
        with locked(
            self.path,
            f"Expected no other command that trains or exports this run. Received: run={str(self.path)!r}, "
            "which is locked.",
        ):
            self._remove_partial_files()
            yield

    def _remove_partial_files(self) -> None:
        """Remove the partial files of a killed process."""
        for path in (*self.path.glob(".writing-*"), *self.checkpoints.glob(".writing-*")):
            path.unlink(missing_ok=True)
