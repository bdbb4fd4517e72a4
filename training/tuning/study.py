"""The directory of a study: the only file that knows its files.

studies/<recipe>/<time>-<4 hex>/
  study.json      recipe, spaces, seed and pruner
  trials.log      Optuna's journal, one line a change
  trials/<n>/     the run of each trial
  importance.png history.png    what mattered, and what was reached
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from training.recipe.recipe import Recipe
from training.runs.run import Run, locked, new_path
from training.tuning.space import Space
from zoo.common.errors import RunError
from zoo.common.files import read_json, whole_folder, write_atomic, write_json

VERSION = 1


class Study:
    """A study's directory.

    Attributes:
        path: the directory.
        settings: what it was begun with, JSON-safe.
    """

    def __init__(self, path: Path, settings: dict[str, Any]) -> None:
        self.path, self.settings = path, settings

    @classmethod
    def open(
        cls, path: str | os.PathLike[str] | None, recipe: Recipe, spaces: list[Space], seed: int, pruner: str
    ) -> Study:
        """Make a study, or go on with one that was begun with the same settings.

        Args:
            path: the directory; `studies/<recipe>/<time>-<4 hex>` if None.
            recipe: what is varied.
            spaces: what may vary.
            seed: of the draws.
            pruner: the name of one of Optuna's pruners.

        Raises:
            RunError: something else is there, or a study with other settings.
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
            _check_same(place, read_json(place / "study.json"), settings)
        else:
            if place.exists() and (not place.is_dir() or any(place.iterdir())):
                raise RunError(f"A new study needs a folder that is not there yet. Received: study={str(place)!r}")
            with whole_folder(place) as beside:
                write_json(beside / "study.json", settings)
                (beside / "trials").mkdir()
        return cls(place, settings)

    def run_path(self, number: int) -> Path:
        """Return where the run of a trial lies."""
        return self.path / "trials" / f"{number:03d}"

    def run(self, number: int) -> Run | None:
        """Return the run of a trial, None if it has not been made."""
        path = self.run_path(number)
        return Run.open(path) if path.is_dir() else None

    @contextlib.contextmanager
    def storage(self) -> Iterator[Any]:
        """Hold the study for this process, and give Optuna's storage.

        Raises:
            RunError: another process holds it.
        """
        from optuna.storages import JournalStorage
        from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock

        with locked(self.path, f"Another process is at this study. Received: study={str(self.path)!r}."):
            journal = self.path / "trials.log"
            _trim(journal)
            # What a killed process held; ours is the only one.
            for left in self.path.glob("trials.log.lock*"):
                left.unlink()
            yield JournalStorage(JournalFileBackend(str(journal), lock_obj=JournalFileOpenLock(str(journal))))

    def draw(self, name: str, figure: Any) -> None:
        """Write a plot, `name`.png."""
        write_atomic(self.path / f"{name}.png", lambda path: figure.savefig(path, dpi=120))


def _trim(journal: Path) -> None:
    """Cut off a line that a killed process did not finish, which would spoil the next."""
    content = journal.read_bytes() if journal.is_file() else b""
    if content and not content.endswith(b"\n"):
        os.truncate(journal, content.rfind(b"\n") + 1)


def _check_same(place: Path, have: dict[str, Any], want: dict[str, Any]) -> None:
    for key, value in want.items():
        if have.get(key) != value:
            raise RunError(
                f"A study goes on with the {key} it began with. Received: study={str(place)!r} with another {key}. "
                "Leave --study out to begin a new one."
            )
