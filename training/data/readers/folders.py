"""Folders with one sub-folder per class, of images or texts, with or without splits; checks of images."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from pathlib import Path
from typing import Any

from training.common.orientation import may_be_turned
from training.common.preprocess import still
from training.data.dataset import Split
from training.data.readers.files import file_split
from training.data.readers.jpeg import is_whole_jpeg
from training.data.readers.scan import FileKind, Files, Scan
from training.data.splits import FRACTIONS, NAMES, OPTIONS, split_indices
from training.recipe.config import DataConfig
from zoo.common.errors import DataError
from zoo.common.lazy import np, quiet_libraries, tf

# Split of train/ where there is no validation/.
VALIDATION_FRACTIONS = (0.9, 0.1, 0.0)

IMAGES = FileKind("images", (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".gif", ".webp"))


@dataclasses.dataclass(frozen=True)
class Folder:
    """The files of a folder.

    Args:
        root: the folder that holds the classes or splits.
        splits: files by split and class.
        options: the fields of DataConfig that apply.
        notes: what was left out, and why, a line each.
    """

    root: Path
    splits: dict[str, Files]
    options: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def labels(self) -> tuple[str, ...]:
        """The names of the classes."""
        return tuple(self.splits["train"])


def open_folder(config: DataConfig, kind: FileKind) -> Folder:
    """Return the files of the folder at `config.path`.

    Raises:
        DataError: no folder, no classes, a class without files, or classes that differ between splits.
    """
    scan, options = Scan(open_root(config.path, f"one sub-folder of {kind.what} per class"), kind), ()
    splits = scan.splits()
    if splits and "validation" not in splits:
        parts = _split_files(splits["train"], DataConfig(), VALIDATION_FRACTIONS)
        splits = {name: {**splits, **parts}[name] for name in NAMES if name in splits or name in parts}
    if not splits:
        splits, options = _split_files(scan.classes(), config), OPTIONS
    for name, files in splits.items():
        _same_classes(scan.root, name, tuple(splits["train"]), files)
    return Folder(scan.root, splits, options, scan.notes())


def open_root(path: str, holding: str) -> Path:
    """Return an existing folder, or raise DataError with what it should hold."""
    root = Path(path).expanduser()
    if not path or not root.is_dir():
        raise DataError(
            f"Expected a folder with {holding}. Received: data.path={path!r}. Give it by: --set data.path=FOLDER"
        )
    return root


def _split_files(files: Files, config: DataConfig, fractions: Sequence[float] = FRACTIONS) -> dict[str, Files]:
    """Split files by a shuffle that depends only on the seed and the number of files per class."""
    pairs = [(name, path) for name, found in files.items() for path in found]
    numbers = [number for number, found in enumerate(files.values()) for _ in found]
    splits: dict[str, Files] = {}
    for split, part in split_indices(len(pairs), config, numbers, fractions).items():
        splits[split] = {name: [] for name in files}
        for name, path in (pairs[i] for i in part):
            splits[split][name].append(path)
    return {name: splits[name] for name in NAMES if name in splits}


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
        find_bad: yields the files that cannot be read.
        expected: what the files should be, for messages.
    """

    root: Path
    files: Mapping[str, Sequence[Path]]
    find_bad: Callable[[Sequence[Path]], Iterable[Path]]
    expected: str

    def __call__(self, chosen: Mapping[str, Iterable[int]]) -> None:
        """Raise DataError with the files of some examples that cannot be read."""
        paths = [self.files[split][i] for split, numbers in chosen.items() for i in numbers]
        bad = set(self.find_bad(paths))
        if bad:
            raise DataError(bad_message(self.root, bad, len(paths), self.expected))


def image_splits(
    root: Path, images: Mapping[str, tuple[Sequence[Path], Any]], skip_bad: bool
) -> tuple[dict[str, Split], FileCheck | None]:
    """Return the splits, each in a fixed random order, and their check.

    Args:
        root: the folder, for messages.
        images: by split, the files and the label of each, or a row of labels, int64 (n, ...).
        skip_bad: whether to decode all images now and leave out those that cannot be decoded; there is no check then.
    """
    bad = set(find_bad(chain.from_iterable(paths for paths, _ in images.values())) if skip_bad else ())
    splits, files = {}, {}
    for name, (paths, labels) in images.items():
        good = np.array([i for i, path in enumerate(paths) if path not in bad], "int64")
        if not len(good):
            raise DataError(f"Expected images that can be decoded. Received: {root} with none left in a split.")
        order = good[np.random.default_rng(0).permutation(len(good))]
        files[name] = [paths[i] for i in order]
        splits[name] = file_split(list(map(str, files[name])), np.asarray(labels, "int64")[order])
    check = FileCheck(root, files, find_bad, "images that can be decoded")
    return splits, None if skip_bad else check


def any_turned(splits: Mapping[str, Iterable[Path]]) -> bool:
    """Return whether an image of any split has an EXIF orientation other than upright."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return any(pool.map(may_be_turned, chain.from_iterable(splits.values())))


def find_bad(paths: Iterable[Path]) -> Iterator[Path]:
    """Yield the files that TensorFlow cannot decode."""
    paths = list(paths)
    _ = tf.io  # imported before the threads start
    # The JPEG library prints to standard error; the names of the files are more useful.
    with ThreadPoolExecutor(os.cpu_count()) as pool, quiet_libraries():
        for path, good in zip(paths, pool.map(_decodes, paths), strict=True):
            if not good:
                yield path


def _decodes(path: Path) -> bool:
    # Decoding 2,000 photographs of 400x500 takes two thirds of the time of an epoch of crops; checking the markers of
    # JPEGs takes a thirteenth of that. Truncated, empty and other files raise InvalidArgumentError.
    try:
        content = path.read_bytes()
        if not is_whole_jpeg(content):
            tf.io.decode_image(still(content), expand_animations=False)
    except (OSError, tf.errors.OpError):
        return False
    return True


def bad_message(root: Path, bad: Iterable[Path], total: int, expected: str) -> str:
    """Return the message about files that cannot be read."""
    files = sorted(bad)
    shown = ", ".join(str(p.relative_to(root)) for p in files[:5])
    more = f" and {len(files) - 5} more" if len(files) > 5 else ""
    return (
        f"Expected {expected}. Received: {len(files)} of {total} in {root} that cannot: {shown}{more}. "
        "Fix or remove them, or skip them by: --set data.skip_bad=true"
    )
