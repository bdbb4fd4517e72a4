"""The directory of a study; no other module knows its files.

studies/<recipe>/<time>-<4 hex>/
  study.json      recipe, spaces, seed and pruner
  trials.log      Optuna's journal, one line for each change
  trials/<n>/     the run of each trial
  importance.png history.png    plots of the importance of each key and of the metric by trial
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from training.recipe.recipe import Recipe
from training.runs.folder import locked, new_path
from training.runs.run import Run
from training.tuning.journal import REFUSAL, repair_journal
from training.tuning.space import Space
from zoo.common.errors import RunError
from zoo.common.files import whole_folder, write_atomic, write_json
from zoo.reading.files import check_inside, reading
from zoo.reading.json_files import read_json

VERSION = 1


class Study:
    """A study's directory.

    Attributes:
        path: the directory.
        settings: recipe, spaces, seed and pruner, JSON-safe.
    """

    def __init__(self, path: Path, settings: dict[str, Any]) -> None:
        self.path, self.settings = path, settings

    @classmethod
    def open(
        cls, path: str | os.PathLike[str] | None, recipe: Recipe, spaces: list[Space], seed: int, pruner: str
    ) -> Study:
        """Create a study, or open one with the same settings.

        Args:
            path: the directory; `studies/<recipe>/<time>-<4 hex>` if None.
            recipe: the recipe.
            spaces: the search spaces.
            seed: the seed of the sampler.
            pruner: the name of one of Optuna's pruners.

        Raises:
            RunError: the directory has other content, or a study with other settings.
        """
        place = Path(os.path.abspath(path or new_path("studies", recipe.name)))
        settings = {
            "version": VERSION,
            "recipe": recipe.to_json(),
            "spaces": [space.to_json() for space in spaces],
            "seed": seed,
            "pruner": pruner,
        }
        if (place / "study.json").is_file():
            check_inside(place)
            _check_same(place, read_json(place / "study.json", dict), settings)
        else:
            if place.exists() and (not place.is_dir() or any(place.iterdir())):
                raise RunError(
                    f"Expected an empty or missing folder for a new study. Received: study={str(place)!r}. "
                    "Choose another folder."
                )
            with whole_folder(place) as folder:
                write_json(folder / "study.json", settings)
                (folder / "trials").mkdir()
        return cls(place, settings)

    def run_path(self, number: int) -> Path:
        """Return the run directory of a trial."""
        return self.path / "trials" / f"{number:03d}"

    def run(self, number: int) -> Run | None:
        """Return the run of a trial, None before it is created."""
        path = self.run_path(number)
        return Run.open(path) if path.is_dir() else None

    @contextlib.contextmanager
    def storage(self) -> Iterator[Any]:
        """Lock the study for this process, and yield Optuna's storage.

        Raises:
            RunError: another process uses the study, or its journal is damaged.
        """
        from optuna.storages import JournalStorage
        from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock

        with locked(self.path, f"Expected no other process in this study. Received: study={str(self.path)!r}."):
            journal = self.path / "trials.log"
            repair_journal(
                journal, self.settings["recipe"]["name"], [space["key"] for space in self.settings["spaces"]]
            )
            # Lock files of a killed process; this process has the only valid lock.
            for file in self.path.glob("trials.log.lock*"):
                file.unlink()
            journal.touch()
            with reading(journal, REFUSAL):
                storage = JournalStorage(JournalFileBackend(str(journal), lock_obj=JournalFileOpenLock(str(journal))))
            yield storage

    def save_plot(self, name: str, figure: Any) -> None:
        """Save a plot as `name`.png."""
        write_atomic(self.path / f"{name}.png", lambda path: figure.savefig(path, dpi=120))


def _check_same(place: Path, have: dict[str, Any], want: dict[str, Any]) -> None:
    for key, value in want.items():
        if have.get(key) != value:
            raise RunError(
                f"Expected the {key} of the existing study. Received: study={str(place)!r} with another {key}. "
                "Leave --study out to start a new one."
            )
