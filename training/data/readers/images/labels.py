"""Label files: a table of image paths with one or many labels each, as an alternative to folders."""

from __future__ import annotations

import collections
import dataclasses
import math
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from training.data.readers.files import listed, name_in
from training.data.readers.images.sets import ImageFiles
from training.data.readers.scan import FileKind, split_of, visible_files
from training.data.readers.table_files import SUFFIXES, read_rows
from training.data.readers.tables import reading_of
from training.data.splits import FRACTIONS, NAMES, OPTIONS, split_by_name
from training.recipe.config import DataConfig
from zoo.common.errors import DataError, did_you_mean
from zoo.common.lazy import np

# Fields of DataConfig that apply to label files.
OF_LABELS = ("target", "columns", "task", "encoding", "header")
# Rows in which the column of the paths is looked for, and names of a column with the splits.
ROWS, SPLIT_COLUMNS = 50, ("split", "set", "subset", "partition", "fold", "phase", "usage")
# What is between the labels of a cell.
SEPARATOR = re.compile(r"[|;,]|\s+")
CLASSIFY, MULTILABEL, REGRESS = "classify", "multilabel", "regress"


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


@dataclasses.dataclass(frozen=True)
class Labels:
    """What label columns say.

    Args:
        task: "classify", "multilabel" or "regress".
        names: of the classes, labels or targets.
        values: of each row, int64 (n,), int64 (n, labels) or float32 (n, targets).
        note: how the columns were read, "" where they were named.
    """

    task: str
    names: tuple[str, ...]
    values: Any
    note: str = ""


def label_files(config: DataConfig, kind: FileKind) -> ImageFiles:
    """Return the images of a label file.

    The column of the paths is the first of `config.columns`, or the one whose cells name images in the folder of the
    file: relative paths, names, or names without suffix. `config.target` names one or many label columns; without it,
    the last column, or all if they are 0 or 1.

    Raises:
        DataError: no column names images, images are missing, or a label is.
    """
    table = Path(config.path).expanduser()
    read = read_rows(config.path, reading_of(config, texts=True))
    names = list(read.names)
    rows = list(map(list, zip(*(read.columns[name].texts() for name in names), strict=True)))
    images = ImageNames(table.parent, kind)
    place = _path_column(names, rows, config, images)
    split_column = next((i for i, name in enumerate(names) if _holds_splits(name, rows, i)), None)
    others = [name for i, name in enumerate(names) if i not in (place, split_column)]
    paths = [images.find(row[place]) for row in rows]
    kept = _require_found(table, [row[place] for row in rows], paths, config.skip_bad)
    rows, paths = [rows[i] for i in kept], [paths[i] for i in kept]
    labels = read_labels(names, rows, config, others)
    targets = _targets(table, paths, labels.values)
    unlabelled = [path for path in images.paths if path not in targets]
    notes = [*read.notes, *([labels.note] if labels.note else [])]
    if unlabelled:
        shown = listed([name_in(table.parent, path) for path in unlabelled])
        notes.append(f"Left out: {len(unlabelled):,} images without a row in {table.name} ({shown})")
    found = ImageFiles(
        "folder",
        table.parent,
        labels.names,
        {"train": list(targets)},
        targets,
        labels.task,
        (*OF_LABELS, *(() if split_column is not None else OPTIONS)),
        tuple(notes),
        kind.suffixes,
        others=(table,),
        unused=tuple(unlabelled),
    )
    cells = None if split_column is None else [row[split_column] for row in rows]
    return dataclasses.replace(found, splits=_splits(found, paths, cells, config))


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


def _path_column(names: Sequence[str], rows: Sequence[Sequence[str]], config: DataConfig, images: ImageNames) -> int:
    """Return the number of the column whose cells name images."""
    if config.columns:
        select_columns(list(names), [], list(config.columns[:1]), "data.columns")
        return list(names).index(config.columns[0])
    some = rows[:ROWS]
    found = [[images.find(row[i]) for row in some] for i in range(len(names))]
    # A column of a few numbers may name images too, the same ones again and again.
    counts = [len(set(paths) - {None}) for paths in found]
    best = max(range(len(names)), key=counts.__getitem__)
    if not counts[best]:
        raise DataError(
            f"Expected a column of paths of images, below the folder of the label file. Received: data.path="
            f"{config.path!r} with the columns {listed(list(names), 20)} and {len(images.paths):,} images there. Name "
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
        known = found.setdefault(path, value)
        if not np.array_equal(known, value):
            raise DataError(
                f"Expected one row for each image of {table}. Received: {name_in(table.parent, path)} with different "
                "labels. For several labels, put them into one cell, as a|b, with data.task=multilabel."
            )
    return found


def _holds_splits(name: str, rows: Sequence[Sequence[str]], place: int) -> bool:
    """Return whether a column has the split of each row."""
    cells = {row[place] for row in rows}
    return name.strip().lower() in SPLIT_COLUMNS and all(map(split_of, cells)) and "train" in set(map(split_of, cells))


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
    classes = [int(files.targets[path]) if files.task == CLASSIFY else 0 for path in paths]
    parts = split_by_name([name_in(files.root, path) for path in paths], config, classes, fractions)
    return {name: [paths[i] for i in part] for name, part in parts.items()}


def read_labels(
    names: Sequence[str], rows: Sequence[Sequence[str]], config: DataConfig, others: Sequence[str]
) -> Labels:
    """Return what the label columns say.

    Args:
        names: of all columns.
        rows: their cells.
        config: the target, the task.
        others: columns that are neither paths nor splits.

    Raises:
        DataError: a column is missing, or a label is.
    """
    wanted = _target_columns(rows, names, config, others)
    columns = list(zip(*select_columns(list(names), list(map(list, rows)), wanted, "data.target"), strict=True))
    note = "" if config.target else f"Labels: {listed(wanted)} (change by data.target)"
    if config.task == MULTILABEL or (len(wanted) > 1 and not config.task and _are_flags(columns)):
        return _marks(wanted, columns, note)
    if len(wanted) == 1 and (config.task or _infer(columns[0])) == CLASSIFY:
        return _classes(wanted[0], columns[0], note)
    return _numbers(wanted, columns, note)


def _target_columns(
    rows: Sequence[Sequence[str]], names: Sequence[str], config: DataConfig, others: Sequence[str]
) -> list[str]:
    if config.target:
        return [config.target] if isinstance(config.target, str) else list(config.target)
    if not others:
        raise DataError(f"Expected a column of labels. Received: data.path={config.path!r} with {listed(list(names))}")
    columns = [[row[list(names).index(name)] for row in rows] for name in others]
    return list(others) if len(others) > 1 and _are_flags(columns) else [others[-1]]


def select_columns(
    names: list[str], rows: Sequence[Sequence[str]], wanted: Sequence[str], option: str
) -> list[list[str]]:
    """Return the rows with some columns only; raises DataError for a missing column."""
    for name in wanted:
        if name not in names:
            raise DataError(
                f"Expected one of the columns {', '.join(names[:20])}. Received: {option}={name!r}. "
                f"{did_you_mean(name, names)}"
            )
    places = [names.index(name) for name in wanted]
    return [[row[place] for place in places] for row in rows]


def parse_number(cell: str) -> float | None:
    """Return the number in a cell, NaN if it is empty, None for a text."""
    try:
        return float(cell) if cell.strip() and "_" not in cell else None if cell.strip() else float("nan")
    except ValueError:
        return None


def _are_flags(columns: Iterable[Sequence[str]]) -> bool:
    return all(parse_number(cell) in (0.0, 1.0) for cells in columns for cell in cells)


def _infer(cells: Sequence[str]) -> str:
    """Return the task of a column: texts and a few whole numbers are classes."""
    numbers = [parse_number(cell) for cell in cells]
    whole = all(number is not None and float(number).is_integer() for number in numbers)
    return CLASSIFY if None in numbers or (whole and len(set(numbers)) <= 20) else REGRESS


def _classes(name: str, cells: Sequence[str], note: str) -> Labels:
    _require_cells(name, cells, lambda cell: bool(cell.strip()), "a class")
    found = {cell.strip() for cell in cells}
    if len(found) < 2:
        raise DataError(f"Expected at least two classes in the column {name!r}. Received: {listed(sorted(found))}")
    numeric = all(re.fullmatch(r"\d+", text, re.ASCII) for text in found)
    labels = sorted(found, key=(lambda text: (int(text), text)) if numeric else str)
    number = {label: i for i, label in enumerate(labels)}
    return Labels(CLASSIFY, tuple(labels), np.array([number[cell.strip()] for cell in cells], "int64"), note)


def _marks(names: Sequence[str], columns: Sequence[Sequence[str]], note: str) -> Labels:
    """Return several labels: from columns of 0 and 1, where an empty cell is unknown, or from lists in a column."""
    if len(names) == 1:
        parts = [{part for part in SEPARATOR.split(cell.strip()) if part} for cell in columns[0]]
        labels = tuple(sorted(set().union(*parts)))
        return Labels(
            MULTILABEL, labels, np.array([[label in row for label in labels] for row in parts], "int64"), note
        )
    numbers = []
    for name, cells in zip(names, columns, strict=True):
        _require_cells(name, cells, lambda cell: not cell.strip() or parse_number(cell) in (0.0, 1.0, -1.0), "0 or 1")
        numbers.append([int(parse_number(cell)) if cell.strip() else -1 for cell in cells])
    return Labels(MULTILABEL, tuple(names), np.array(numbers, "int64").T, note)


def _numbers(names: Sequence[str], columns: Sequence[Sequence[str]], note: str) -> Labels:
    for name, cells in zip(names, columns, strict=True):
        _require_cells(name, cells, _is_number, "a number")
    values = np.array([[parse_number(cell) for cell in cells] for cells in columns], "float32").T
    return Labels(REGRESS, tuple(names), values, note)


def _is_number(cell: str) -> bool:
    """Return whether a cell is a finite number."""
    number = parse_number(cell)
    return number is not None and math.isfinite(number)


def _require_cells(name: str, cells: Sequence[str], fits: Callable[[str], bool], what: str) -> None:
    """Raise DataError with the first row whose cell does not fit."""
    for row, cell in enumerate(cells, start=1):
        if not fits(cell):
            raise DataError(
                f"Expected {what} in every row of the label column {name!r}. Received: {cell!r} in row {row}"
            )
