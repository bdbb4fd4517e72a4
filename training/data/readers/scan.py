"""Find the files of a folder as people have them: splits under any usual name, hidden files, folders around folders."""

from __future__ import annotations

import collections
import dataclasses
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from training.data.splits import NAMES
from zoo.common.errors import DataError

# Words in the names of folders that are splits, in any case: Training, valid, seg_test, test-images.
WORDS = {
    "train": {"train", "training", "trn"},
    "validation": {"validation", "validating", "valid", "val", "dev"},
    "test": {"test", "testing", "tst", "evaluation", "eval"},
}
# What systems and programs leave in folders; so do names that begin with a dot.
HIDDEN = {
    "__macosx", "thumbs.db", "desktop.ini", "@eadir", "$recycle.bin", "system volume information", "lost+found",
    "__pycache__",
}  # fmt: skip

# Reasons why files are left out: their suffixes, and their names.
OTHER, HIDE = "of another type", "hidden"

Files = dict[str, list[Path]]


@dataclasses.dataclass(frozen=True)
class FileKind:
    """The kind of files in the folders.

    Args:
        what: plural name, for messages.
        suffixes: file suffixes, lower case.
        ignored: sub-folders that are no classes.
        remedies: how files of other suffixes can be read, by suffix.
    """

    what: str
    suffixes: tuple[str, ...]
    ignored: tuple[str, ...] = ()
    remedies: Mapping[str, str] = dataclasses.field(default_factory=dict)


class Scan:
    """The files of one kind below a folder, and what else is there.

    Args:
        root: the folder.
        kind: the kind of files.

    Attributes:
        root: the folder that holds the classes, or the splits; inside `root` where a folder holds nothing else.
        left_out: files that are no examples by the reason.
    """

    def __init__(self, root: Path, kind: FileKind) -> None:
        self.kind = kind
        self._files: dict[Path, list[Path]] = {}
        self._lists: dict[Path, list[Path]] = {}
        # A folder may be looked into as a split, and again as a class: each file counts once.
        self.left_out: dict[str, dict[Path, None]] = collections.defaultdict(dict)
        self.root = self._unwrapped(root)

    def splits(self) -> dict[str, Files]:
        """Return the files of each split by class, if the folder has a folder for training; else an empty dict."""
        children = self._children(self.root)
        named = {child: split for child in children if (split := split_of(child.name))}
        if "train" not in named.values():
            return {}
        folders = {child: inside for child in named if self._has_classes(inside := self._unwrapped(child, inside=True))}
        others = [child for child in children if child not in folders and self.files(child)]
        # A class may be called train: it holds files, and so do the classes beside it.
        if "train" not in (named[child] for child in folders) or (others and len(folders) == 1):
            return {}
        self._leave_out(f"in {', '.join(o.name for o in others)}, which is no split", *map(self.files, others))
        chosen = {split: self._chosen([c for c in folders if named[c] == split], split) for split in NAMES}
        return {split: self.classes(folders[child]) for split, child in chosen.items() if child}

    def classes(self, folder: Path | None = None) -> Files:
        """Return the files of each class of a folder in the order of their names; of numbers, in their order."""
        folder = folder or self.root
        folders = [child for child in self._children(folder) if child.name not in self.kind.ignored]
        files = {child.name: self.files(child) for child in sorted(folders, key=lambda f: f.name)}
        if all(re.fullmatch(r"\d+", name, re.ASCII) for name in files):
            files = dict(sorted(files.items(), key=lambda item: int(item[0])))
        if len(files) < 2:
            raise DataError(
                f"Expected at least two sub-folders, one per class. Received: {folder} with {len(files)}. "
                f"Sort the {self.kind.what} into {folder}/CLASS/"
            )
        self._leave_out("without a class", [path for path in self._direct(folder) if self._fits(path)])
        if empty := [name for name, found in files.items() if not found]:
            raise DataError(
                f"Expected {self.kind.what} ({', '.join(self.kind.suffixes)}) in every class. Received: {folder} with "
                f"none in {', '.join(map(repr, empty[:5]))}. Add {self.kind.what} or remove the folder."
            )
        return files

    def files(self, folder: Path) -> list[Path]:
        """Return the files of the kind below a folder, sorted; links to folders are followed."""
        if folder not in self._files:
            found = list(self._below(folder, set()))
            self._files[folder] = sorted(path for path in found if self._fits(path))
            self._leave_out(OTHER, [path for path in found if not self._fits(path)])
        return self._files[folder]

    def notes(self) -> tuple[str, ...]:
        """Return a line for each reason why files are left out."""
        lines = [
            f"Left out: {len(paths):,} file{'s' if len(paths) > 1 else ''} {reason} ({_suffixes(paths)})"
            for reason, paths in self.left_out.items()
            if paths
        ]
        others = {path.suffix.lower() for path in self.left_out[OTHER]}
        remedies = dict.fromkeys(self.kind.remedies[suffix] for suffix in sorted(others & self.kind.remedies.keys()))
        return tuple(line + "".join(f"; {remedy}" for remedy in remedies if OTHER in line) for line in lines)

    def unused(self) -> tuple[Path, ...]:
        """Return the files of the kind that are left out and not hidden."""
        paths = (path for reason, found in self.left_out.items() if reason != HIDE for path in found)
        return tuple(path for path in paths if self._fits(path))

    def _leave_out(self, reason: str, *files: Iterable[Path]) -> None:
        for paths in files:
            self.left_out[reason].update(dict.fromkeys(paths))

    def _fits(self, path: Path) -> bool:
        return path.suffix.lower() in self.kind.suffixes

    def _unwrapped(self, folder: Path, inside: bool = False) -> Path:
        """Return the folder below that holds more than a single folder: archives often repeat their name.

        Args:
            folder: where to start.
            inside: whether it is a split, inside of which a single folder is no split.
        """
        while len(children := self._children(folder)) == 1 and not any(map(self._fits, self._direct(folder))):
            if not self._children(children[0]) or (not inside and split_of(children[0].name)):
                break
            folder = children[0]
        return folder

    def _has_classes(self, folder: Path) -> bool:
        """Return whether a folder has sub-folders with files, and no files beside them."""
        return any(map(self.files, self._children(folder))) and not any(map(self._fits, self._direct(folder)))

    def _chosen(self, folders: list[Path], split: str) -> Path | None:
        """Return the only folder of a split, or the only one with just the usual name."""
        exact = [folder for folder in folders if folder.name.lower() in WORDS[split]]
        found = exact if len(exact) == 1 else folders
        if len(found) > 1:
            raise DataError(
                f"Expected one folder of the {split} split. Received: {self.root} with "
                f"{', '.join(repr(folder.name) for folder in found)}. Rename or merge them."
            )
        return found[0] if found else None

    def _children(self, folder: Path) -> list[Path]:
        return [child for child in self._listed(folder) if child.is_dir()]

    def _direct(self, folder: Path) -> list[Path]:
        return [child for child in self._listed(folder) if child.is_file()]

    def _listed(self, folder: Path) -> list[Path]:
        """Return what a folder holds that is not hidden, sorted; the rest is left out."""
        if folder not in self._lists:
            found = sorted(folder.iterdir())
            self._leave_out(HIDE, *(_all_files(child) for child in found if is_hidden(child.name)))
            self._lists[folder] = [child for child in found if not is_hidden(child.name)]
        return self._lists[folder]

    def _below(self, folder: Path, above: set[str]) -> Iterator[Path]:
        """Yield the files below a folder that are not hidden, each folder once on a path."""
        place = os.path.realpath(folder)
        if place in above:
            return
        with os.scandir(folder) as entries:
            for entry in sorted(entries, key=lambda e: e.name):
                if is_hidden(entry.name):
                    self._leave_out(HIDE, _all_files(Path(entry.path)))
                elif entry.is_dir():
                    yield from self._below(Path(entry.path), {*above, place})
                elif entry.is_file():
                    yield Path(entry.path)
                else:
                    self._leave_out("behind broken links", [Path(entry.path)])


def split_of(name: str) -> str | None:
    """Return the split that a folder is named after; None for other names, and for those of several splits."""
    tokens = set(re.split(r"[^a-z]+", name.lower()))
    found = [split for split, words in WORDS.items() if words & tokens]
    return found[0] if len(found) == 1 else None


def is_hidden(name: str) -> bool:
    """Return whether a file or folder is hidden, or made by a system or program for itself."""
    return name.startswith(".") or name.lower() in HIDDEN


def visible_files(root: Path) -> Iterator[Path]:
    """Yield the files below a folder that are not hidden; links to folders are followed, each folder once."""
    seen = set()
    for folder, children, names in os.walk(root, followlinks=True):
        place = os.path.realpath(folder)
        children[:] = [] if place in seen else sorted(name for name in children if not is_hidden(name))
        if place not in seen:
            yield from (Path(folder) / name for name in sorted(names) if not is_hidden(name))
        seen.add(place)


def _all_files(path: Path) -> list[Path]:
    return [path] if not path.is_dir() else sorted(p for p in path.rglob("*") if p.is_file())


def _suffixes(paths: Iterable[Path]) -> str:
    """Return the suffixes of files with their counts, the most frequent first."""
    counts = collections.Counter(path.suffix.lower() or path.name for path in paths).most_common()
    shown = ", ".join(f"{suffix} {count:,}" for suffix, count in counts[:5])
    return f"{shown}, …" if len(counts) > 5 else shown
