"""Label files: a table of image paths with one or many labels each, as an alternative to folders."""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from training.data.columns.cells import Cells, Rows, masked
from training.data.columns.missing import spellings
from training.data.outputs import strata
from training.data.readers.files import listed, name_in
from training.data.readers.images.sets import ImageFiles, same_labels
from training.data.readers.scan import FileKind, split_of, visible_files
from training.data.readers.table_files import SUFFIXES, read_rows, require_columns, select_columns
from training.data.readers.tables import asked_of, reading_of, targets_of
from training.data.readers.target_sets import is_flags, read_targets
from training.data.splits import FRACTIONS, NAMES, OPTIONS, split_by_name
from training.recipe.config import DataConfig
from zoo.common.errors import DataError
from zoo.common.lazy import np
from zoo.specs.tasks import task_of

# Fields of DataConfig that apply to label files.
OF_LABELS = ("target", "columns", "task", "tasks", "decimal", "missing", "encoding", "header", "near_duplicates")
# Rows in which the column of the paths is looked for, and names of a column with the splits.
ROWS, SPLIT_COLUMNS = 50, ("split", "set", "subset", "partition", "fold", "phase", "usage")


def is_label_file(path: str) -> bool:
    """Return whether a path is that of a table."""
    return bool(path) and Path(path).suffix.lower() in SUFFIXES and Path(path).expanduser().is_file()


def label_file_in(path: str) -> str:
    """Return the table called labels in a folder of images without folders of classes, "" if there is none."""
    root = Path(path).expanduser()
    if not path or not root.is_dir() or sum(child.is_dir() for child in root.iterdir()) > 1:
        return ""
    found = [root / f"labels{suffix}" for suffix in SUFFIXES if (root / f"labels{suffix}").is_file()]
    return str(found[0]) if len(found) == 1 else ""


def label_files(config: DataConfig, kind: FileKind) -> ImageFiles:
    """Return the images of a label file.

    The column of the paths is the first of `config.columns`, or the one whose cells name images in the folder of the
    file: relative paths, names, or names without suffix. `config.target` names one or many label columns; without it,
    the last column, or all if they are 0 or 1. They are read as those of a table are.

    Raises:
        DataError: no column names images, images are missing, or the labels cannot be read.
    """
    table = Path(config.path).expanduser()
    read = read_rows(config.path, reading_of(config, texts=True))
    texts = {name: cells.texts() for name, cells in read.columns.items()}
    images = ImageNames(table.parent, kind)
    place = _path_column(texts, config, images)
    split_column = next((name for name, cells in texts.items() if _holds_splits(name, cells)), None)
    others = [name for name in texts if name not in (place, split_column)]
    paths = [images.find(cell) for cell in texts[place]]
    kept = _require_found(table, texts[place], paths, config.skip_bad)
    wanted, notes = _target_columns(read, config, others)
    labels = read_targets(_label_cells(read, config, wanted, kept), config, asked_of(config, read, few=False))
    rows = [kept[row] for row in labels.rows]
    targets = _targets(table, [paths[row] for row in rows], labels.values)
    unused = [path for path in images.paths if path not in targets]
    found = ImageFiles(
        "folder",
        table.parent,
        labels.labels,
        {"train": list(targets)},
        targets,
        labels.task,
        (*OF_LABELS, *(() if split_column is not None else OPTIONS)),
        (*read.notes, *notes, *labels.notes, *_without_row(table, unused, set(paths))),
        kind.suffixes,
        others=(table,),
        unused=tuple(unused),
        outputs=labels.outputs,
    )
    cells = None if split_column is None else [texts[split_column][row] for row in rows]
    return dataclasses.replace(found, splits=_splits(found, [paths[row] for row in rows], cells, config))


def _label_cells(read: Rows, config: DataConfig, wanted: Sequence[str], kept: Sequence[int]) -> dict[str, Cells]:
    """Return the cells of the label columns in some rows; those that mean a missing label have no text."""
    missing, rows = spellings(config.missing), np.array(kept, "int64")
    found = select_columns(read, wanted, "data.target")
    return {name: masked(cells.take(rows), missing) for name, cells in found.items()}


def _target_columns(read: Rows, config: DataConfig, others: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the label columns, and a line if they were guessed."""
    if config.target:
        return targets_of(config, read.names), []
    if not others:
        raise DataError(f"Expected a column of labels. Received: data.path={config.path!r} with {listed(read.names)}")
    every = _label_cells(read, config, others, range(len(read)))
    all_flags = len(others) > 1 and all(map(is_flags, every.values()))
    wanted = list(others) if all_flags else [others[-1]]
    return wanted, [f"Labels: {listed(wanted)} (change by data.target)"]


def _without_row(table: Path, unused: Sequence[Path], named: set[Path | None]) -> Iterator[str]:
    """Yield a line if images are in no row of a label file."""
    found = [path for path in unused if path not in named]
    if found:
        shown = listed([name_in(table.parent, path) for path in found])
        yield f"Left out: {len(found):,} images without a row in {table.name} ({shown})"


class ImageNames:
    """The images in a folder, to be found by their paths, names, or names without suffix."""

    def __init__(self, root: Path, kind: FileKind) -> None:
        self._root = root
        self.paths = sorted(path for path in visible_files(root) if path.suffix.lower() in kind.suffixes)
        by_name: dict[str, list[Path]] = collections.defaultdict(list)
        for path in self.paths:
            name = name_in(root, path)
            for key in {name, path.name, path.stem, name.removesuffix(path.suffix)}:
                by_name[key].append(path)
        self._by_name = by_name

    def find(self, cell: str) -> Path | None:
        """Return the image that a cell names, None if there is none, or if there are several."""
        text = cell.strip().replace("\\", "/").removeprefix("./")
        if text.startswith("/"):
            return Path(text) if Path(text).is_file() else None
        found = self._by_name.get(text, [])
        if not found and "/" in text:
            found = [
                path
                for path in self._by_name.get(text.rpartition("/")[2], [])
                if _same_end(name_in(self._root, path), text)
            ]
        return found[0] if len(found) == 1 else None


def _same_end(one: str, other: str) -> bool:
    """Return whether one path is the end of another."""
    return f"/{one}".endswith(f"/{other}") or f"/{other}".endswith(f"/{one}")


def _path_column(texts: Mapping[str, Sequence[str]], config: DataConfig, images: ImageNames) -> str:
    """Return the column whose cells name images."""
    names = list(texts)
    if config.columns:
        require_columns(names, config.columns[:1], "data.columns")
        return config.columns[0]
    # A column of a few numbers may name images too, the same ones again and again.
    counts = {name: len({images.find(cell) for cell in cells[:ROWS]} - {None}) for name, cells in texts.items()}
    best = max(names, key=counts.__getitem__)
    if not counts[best]:
        raise DataError(
            f"Expected a column of paths of images, below the folder of the label file. Received: data.path="
            f"{config.path!r} with the columns {listed(names, 20)} and {len(images.paths):,} images there. Name "
            "the column by: --set data.columns='[\"COLUMN\"]'"
        )
    return best


def _require_found(table: Path, cells: Sequence[str], paths: Sequence[Path | None], skip_bad: bool) -> list[int]:
    """Return the numbers of the rows whose image exists; raises DataError for others unless bad files are skipped."""
    missing = [cell for cell, path in zip(cells, paths, strict=True) if path is None]
    if missing and (not skip_bad or len(missing) == len(cells)):
        raise DataError(
            f"Expected one image for every row of {table}. Received: {len(missing):,} of {len(cells):,} rows without: "
            f"{listed([cell.strip() or 'an empty cell' for cell in missing])}. Correct the paths, or skip the rows by: "
            "--set data.skip_bad=true"
        )
    return [i for i, path in enumerate(paths) if path is not None]


def _targets(table: Path, paths: Sequence[Path | None], values: Any) -> dict[Path, Any]:
    """Return the label of each image; raises DataError for an image with two."""
    found: dict[Path, Any] = {}
    for path, value in zip(paths, values, strict=True):
        if not same_labels(found.setdefault(path, value), value):
            raise DataError(
                f"Expected one row for each image of {table}. Received: {name_in(table.parent, path)} with different "
                "labels. For several labels, put them into one cell, as a|b, with data.task=multilabel."
            )
    return found


def _holds_splits(name: str, cells: Sequence[str]) -> bool:
    """Return whether a column has the split of each row."""
    found = set(map(split_of, cells))
    return name.strip().lower() in SPLIT_COLUMNS and all(found) and "train" in found


def _splits(
    files: ImageFiles, paths: Sequence[Path], cells: Sequence[str] | None, config: DataConfig
) -> dict[str, list[Path]]:
    """Return the files of each split: those of the split column, or by hash."""
    unique = list(files.targets)
    if cells is None:
        return _by_hash(files, unique, config, FRACTIONS)
    of = {path: split_of(cell) for path, cell in zip(paths, cells, strict=True)}
    splits = {name: [path for path in unique if of[path] == name] for name in NAMES}
    if not splits["validation"]:
        splits |= _by_hash(files, splits["train"], DataConfig(), (0.9, 0.1, 0.0))
    return {name: splits[name] for name in NAMES if splits[name]}


def _by_hash(
    files: ImageFiles, paths: list[Path], config: DataConfig, fractions: Sequence[float]
) -> dict[str, list[Path]]:
    classes = [0] * len(paths)
    if task_of(files.task).indexed or files.outputs:
        values = np.array([files.targets[path] for path in paths])
        classes = (strata(files.outputs, values) if files.outputs else values).tolist()
    parts = split_by_name([name_in(files.root, path) for path in paths], config, classes, fractions)
    return {name: [paths[i] for i in part] for name, part in parts.items()}
