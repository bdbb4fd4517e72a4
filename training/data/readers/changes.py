"""What a run stores of the files of its data, and what has changed since then."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Collection, Container, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from training.data.dataset import DataFiles, Dataset
from training.data.readers.files import file_digest, listed, name_in
from training.data.readers.scan import visible_files
from training.data.splits import FRACTIONS, place_of, split_of_place
from training.recipe.config import DataConfig
from training.recipe.rules import check_fractions
from zoo.common.errors import BadOption, DataError, RunError

VERSION = 1
# What is done where files changed: those that the run knows are used; also those that were added; or it is refused.
KNOWN, ALL, REFUSE = CHOICES = ("known", "all", "refuse")
# Size, time of the last change in nanoseconds, and digest.
Stored = tuple[int, int, str]


def files_to_json(dataset: Dataset) -> dict[str, Any] | None:
    """Return the files of a dataset as a run stores them, JSON-safe; None for data that is not yours.

    Returns:
        "files" by split: name, size, time of the last change and digest of each; "unused", the names of others.
    """
    files = dataset.files
    if files is None:
        return None

    def row(path: Path) -> list[Any]:
        state = path.stat()
        return [name_in(files.root, path), state.st_size, state.st_mtime_ns, files.digest(path)]

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        rows = {name: list(pool.map(row, paths)) for name, paths in files.splits.items()}
    return {
        "version": VERSION,
        "root": str(files.root.absolute()),
        "suffixes": list(files.suffixes),
        "labels": list(dataset.labels),
        "files": rows,
        "others": list(map(row, files.others)),
        "unused": [name_in(files.root, path) for path in files.unused],
    }


@dataclasses.dataclass(frozen=True)
class Changes:
    """How the files of a run differ from those that it was trained on.

    Args:
        root: the folder.
        added: names of files that the run does not know.
        removed: names of files that are missing.
        changed: names of files with another content.
        total: number of files that the run knows.
    """

    root: Path
    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    total: int = 0

    def __bool__(self) -> bool:
        return bool(self.added or self.removed or self.changed)

    @property
    def line(self) -> str:
        """What changed, in one line."""
        kinds = {"added": self.added, "removed": self.removed, "changed": self.changed}
        parts = [f"{len(names):,} {kind} ({listed(names, 3)})" for kind, names in kinds.items() if names]
        return f"The data of the run changed since its training: {', '.join(parts)} of {self.total:,} in {self.root}"


def find_changes(stored: Mapping[str, Any], skipped: Container[str] = ()) -> Changes:
    """Return what changed among the files that a run stores: sizes and times first, contents where these differ.

    Args:
        stored: what the run stores of its files.
        skipped: names of files that the run does not read any more, whatever became of them.
    """
    known = {name: state for name, state in _known(stored).items() if name not in skipped}
    root = Path(stored["root"])
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        states = dict(zip(known, pool.map(lambda name: _state(root / name, known[name]), known), strict=True))
    suffixes, seen = tuple(stored["suffixes"]), {*_known(stored), *stored["unused"]}
    present = (
        (name_in(root, path) for path in visible_files(root) if path.suffix.lower() in suffixes) if suffixes else ()
    )
    return Changes(
        root,
        tuple(sorted(name for name in present if name not in seen)),
        tuple(sorted(name for name, state in states.items() if state == "removed")),
        tuple(sorted(name for name, state in states.items() if state == "changed")),
        len(known),
    )


def _known(stored: Mapping[str, Any]) -> dict[str, Stored]:
    """Return what a run stores of each file, by name."""
    try:
        if stored["version"] != VERSION:
            raise ValueError(f"version {stored['version']}")
        if missing := {"root", "suffixes", "labels", "unused"} - stored.keys():
            raise KeyError(*sorted(missing))
        rows = [row for group in (*stored["files"].values(), stored["others"]) for row in group]
        return {str(name): (int(size), int(time), str(digest)) for name, size, time, digest in rows}
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise RunError(
            f"Expected the files.json that a run stores. Received: {str(stored)[:80]} ({error}). Restore the file, or "
            "remove it to read the data as it is now."
        ) from error


def _state(path: Path, stored: Stored) -> str:
    """Return "" for a file that is as it was stored, else "removed" or "changed"."""
    try:
        found = path.stat()
        if (found.st_size, found.st_mtime_ns) == stored[:2]:
            return ""
        same = found.st_size == stored[0] and file_digest(path) == stored[2]
    except OSError:
        return "removed"
    return "" if same else "changed"


def check_choice(choice: str) -> None:
    """Raise BadOption for an unknown choice."""
    if choice and choice not in CHOICES:
        raise BadOption(f"changed_data must be one of {', '.join(CHOICES)}. Received: changed_data={choice!r}")


def require_unchanged(changes: Changes, choice: str, *, exact: bool) -> str:
    """Return the line to show about what changed, "" for nothing.

    Args:
        changes: what changed.
        choice: one of `CHOICES`; "" is "known", and refuses where the training could not go on exactly.
        exact: whether the same files are needed, as by resuming.

    Raises:
        DataError: the data changed, and the choice or its absence refuses that.
    """
    check_choice(choice)
    if not changes:
        return ""
    if choice == REFUSE or (exact and not choice and (changes.removed or changes.changed)):
        raise DataError(f"{changes.line}. Restore the files, or proceed with {KNOWN} or {ALL}: --changed-data {KNOWN}")
    if not changes.added:
        return changes.line
    return f"{changes.line}. Added files are {'used' if choice == ALL else 'not used'}"


@dataclasses.dataclass(frozen=True)
class RunFiles:
    """The files of a run, to open its data with.

    Args:
        stored: what the run stores of them; None for runs that store none.
        choice: one of `CHOICES`, or "".
        skipped: names of images that the run does not read any more.
    """

    stored: Mapping[str, Any] | None
    choice: str = ""
    skipped: Collection[str] = ()

    def select(self, dataset: Dataset, config: DataConfig) -> Dataset:
        """Return a dataset, as it is now, in the splits of the run."""
        if self.stored:
            return stored_dataset(dataset, without_skipped(self.stored, self.skipped), self.choice, config)
        return dataset.files.legacy() if dataset.files and dataset.files.legacy else dataset


def without_skipped(stored: Mapping[str, Any], skipped: Collection[str]) -> Mapping[str, Any]:
    """Return what a run stores of its files without the images that it skips.

    In the training split the next image takes the place of each, so that the others keep theirs in every epoch; in the
    other splits nothing does, so that no image is measured twice.

    Args:
        stored: what the run stores.
        skipped: names of the images.
    """
    if not skipped:
        return stored
    left = {name: [row for row in rows if row[0] not in skipped] for name, rows in stored["files"].items()}
    files = {**left, "train": _replaced(stored["files"]["train"], skipped)}
    return {**stored, "files": files, "unused": [*stored["unused"], *skipped]}


def enough_left(stored: Mapping[str, Any], skipped: Container[str]) -> bool:
    """Return whether at least half of each split is left without some images; else more than damage is the cause."""
    return all(2 * sum(row[0] not in skipped for row in rows) >= len(rows) for rows in stored["files"].values())


def _replaced(rows: Sequence[Any], skipped: Collection[str]) -> list[Any]:
    """Return rows with the next one, which may be the first, in the place of each that is skipped; [] if all are."""
    following = [row for row in rows if row[0] not in skipped][:1]
    found: list[Any] = []
    for row in reversed(rows):
        following = following if row[0] in skipped else [row]
        found += following
    return found[::-1]


def stored_dataset(dataset: Dataset, stored: Mapping[str, Any], choice: str, config: DataConfig) -> Dataset:
    """Return a dataset in the splits that a run stores, without files that are missing now.

    Args:
        dataset: the data as it is now.
        stored: what the run stores.
        choice: "all" adds files that the run does not know, each to the split of its hash.
        config: its fractions and seed.
    """
    files, listed_before = dataset.files, {*_known(stored), *stored["unused"]}
    if files is None or files.rebuild is None:
        return dataset
    now = {name_in(files.root, path): path for path in (*_paths(files), *files.unused)}
    splits = {name: [now[row[0]] for row in rows if row[0] in now] for name, rows in stored["files"].items()}
    if choice == ALL:
        split_now = {path: name for name, paths in files.splits.items() for path in paths}
        for name, path in sorted(now.items()):
            if name not in listed_before and path in split_now:
                split = _split_of(name, split_now[path], dataset, config)
                splits[split if split in splits else "train"].append(path)
    if empty := [name for name, paths in splits.items() if not paths]:
        raise DataError(
            f"Expected the files of the run in {files.root}. Received: none left in {', '.join(empty)}. Restore them."
        )
    return files.rebuild(splits, tuple(stored["labels"]))


def _paths(files: DataFiles) -> Sequence[Path]:
    return [path for paths in files.splits.values() for path in paths]


def _split_of(name: str, present: str, dataset: Dataset, config: DataConfig) -> str:
    """Return the split of a file that was added: that of its folder, or of its hash."""
    if "split_fractions" not in dataset.options:
        return present
    fractions = check_fractions(config.split_fractions) if config.split_fractions else FRACTIONS
    return split_of_place(place_of(name, config.split_seed), fractions)
