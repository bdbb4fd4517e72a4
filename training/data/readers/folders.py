"""Folders with one sub-folder per class, of images or texts, with or without splits; checks of images."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from training.data.readers.files import listed, name_in
from training.data.readers.scan import FileKind, Files, Scan
from training.data.splits import FRACTIONS, NAMES, OPTIONS, split_by_name, split_indices
from training.recipe.config import DataConfig
from zoo.common.errors import DataError

# Split of train/ where there is no validation/.
VALIDATION_FRACTIONS = (0.9, 0.1, 0.0)

# From a config, file names, classes and fractions to the numbers of the files in each split.
Splitter = Callable[..., dict[str, list[int]]]


@dataclasses.dataclass(frozen=True)
class Folder:
    """The files of a folder.

    Args:
        root: the folder that holds the classes or splits.
        splits: files by split and class.
        options: the fields of DataConfig that apply.
        notes: what was left out, and why, a line each.
        legacy: the same files in the splits of runs without a list of files; None where these are the same.
        unused: files of the kind that are left out, such as those in a folder that is no split.
    """

    root: Path
    splits: dict[str, Files]
    options: tuple[str, ...]
    notes: tuple[str, ...]
    legacy: Folder | None = None
    unused: tuple[Path, ...] = ()

    @property
    def labels(self) -> tuple[str, ...]:
        """The names of the classes."""
        return tuple(self.splits["train"])


def open_folder(config: DataConfig, kind: FileKind) -> Folder:
    """Return the files of the folder at `config.path`.

    Raises:
        DataError: no folder, no classes, a class without files, or classes that differ between splits.
    """
    scan = Scan(open_root(config.path, f"one sub-folder of {kind.what} per class"), kind)
    found = scan.splits()
    for name, files in found.items():
        _same_classes(scan.root, name, tuple(found["train"]), files)
    classes = found["train"] if found else scan.classes()
    if "validation" in found:
        return Folder(scan.root, found, (), scan.notes(), unused=scan.unused())
    config, fractions = (DataConfig(), VALIDATION_FRACTIONS) if found else (config, FRACTIONS)

    def folder(split: Splitter) -> Folder:
        parts = found | _split_files(scan.root, classes, config, fractions, split)
        ordered = {name: parts[name] for name in NAMES if name in parts}
        return Folder(scan.root, ordered, () if found else OPTIONS, scan.notes(), unused=scan.unused())

    return dataclasses.replace(folder(split_by_name), legacy=folder(_split_by_count))


def folder_of(found: Folder, splits: Mapping[str, Iterable[Path]], labels: tuple[str, ...]) -> Folder:
    """Return the files of a folder in other splits and the order of other labels.

    Raises:
        DataError: a file has a class without a label.
    """
    classes = {path: name for files in found.splits.values() for name, paths in files.items() for path in paths}
    parts: dict[str, Files] = {name: {label: [] for label in labels} for name in splits}
    for name, paths in splits.items():
        for path in paths:
            if classes[path] not in parts[name]:
                raise DataError(
                    f"Expected the classes of the run, {listed(labels)}. Received: {found.root} with {classes[path]}. "
                    "Train a new run to add classes."
                )
            parts[name][classes[path]].append(path)
    return dataclasses.replace(found, splits=parts, legacy=None)


def open_root(path: str, holding: str) -> Path:
    """Return an existing folder, or raise DataError with what it should hold."""
    root = Path(path).expanduser()
    if path and root.is_dir():
        return root
    reason = "Give it by: --set data.path=FOLDER"
    if path:
        reason = "It is a file." if root.exists() else f"There is no {root.absolute()}."
    raise DataError(f"Expected a folder with {holding}. Received: data.path={path!r}. {reason}")


def _split_files(
    root: Path, files: Files, config: DataConfig, fractions: Sequence[float], split: Splitter
) -> dict[str, Files]:
    pairs = [(name, path) for name, found in files.items() for path in found]
    numbers = [number for number, found in enumerate(files.values()) for _ in found]
    splits: dict[str, Files] = {}
    for part, chosen in split([name_in(root, path) for _, path in pairs], config, numbers, fractions).items():
        splits[part] = {name: [] for name in files}
        for name, path in (pairs[i] for i in chosen):
            splits[part][name].append(path)
    return splits


def _split_by_count(names: Sequence[str], *arguments: Any) -> dict[str, list[int]]:
    """Split files by a shuffle that depends on their number, as runs without a list of files have it."""
    return split_indices(len(names), *arguments)


def _same_classes(root: Path, split: str, labels: tuple[str, ...], files: Files) -> None:
    if tuple(files) != labels:
        odd = sorted(set(files) ^ set(labels))
        raise DataError(f"Expected the same classes in every split of {root}. Received: {split} differs in {odd[:5]}")


def labelled(files: Files) -> tuple[list[Path], list[int]]:
    """Return the files of all classes, and the number of the class of each."""
    numbers = [number for number, found in enumerate(files.values()) for _ in found]
    return list(chain.from_iterable(files.values())), numbers


@dataclasses.dataclass(frozen=True)
class FileCheck:
    """The `Dataset.check` of files.

    Args:
        root: the folder, for messages.
        files: those of each split in the order of its examples.
        find_bad: returns the files that cannot be read, with the reason of each.
        expected: what the files should be, for messages.
    """

    root: Path
    files: Mapping[str, Sequence[Path]]
    find_bad: Callable[[Sequence[Path]], Mapping[Path, str]]
    expected: str

    def __call__(self, chosen: Mapping[str, Iterable[int]]) -> None:
        """Raise DataError with the files of some examples that cannot be read."""
        paths = [self.files[split][i] for split, numbers in chosen.items() for i in numbers]
        bad = self.find_bad(paths)
        if bad:
            raise DataError(bad_message(self.root, bad, len(paths), self.expected))


def bad_message(root: Path, bad: Mapping[Path, str], total: int, expected: str) -> str:
    """Return the message about files that cannot be read, with the reasons of the first."""
    names = [f"{name_in(root, path)} ({bad[path]})" if bad[path] else name_in(root, path) for path in sorted(bad)]
    return (
        f"Expected {expected}. Received: {len(bad)} of {total} in {root} that cannot: {listed(names)}. "
        "Fix or remove them, or skip them by: --set data.skip_bad=true"
    )
