"""Text files in folders, one sub-folder per class."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from training.data.dataset import Dataset, Split
from training.data.readers.files import file_split
from training.data.readers.folders import FileCheck, labelled, open_folder
from training.data.readers.scan import FileKind
from training.recipe.config import DataConfig
from zoo.common.errors import DataError
from zoo.common.lazy import tf
from zoo.specs.text import TextConfig


def text_files(name: str, config: DataConfig, kind: FileKind) -> Dataset:
    """Return the texts of a folder with one sub-folder per class; its check reads them. Raises DataError."""
    found = open_folder(config, kind)
    root, paths = found.root, {split: labelled(files) for split, files in found.splits.items()}
    bad = set(_find_bad(chain.from_iterable(files for files, _ in paths.values())) if config.skip_bad else ())
    good = {split: [pair for pair in zip(*pairs, strict=True) if pair[0] not in bad] for split, pairs in paths.items()}
    texts = {split: _split(root, pairs) for split, pairs in good.items()}
    files = {split: [path for path, _ in pairs] for split, pairs in good.items()}
    check = None if config.skip_bad else FileCheck(root, files, _find_bad, "texts in UTF-8 that are not empty")
    return Dataset(
        name, found.labels, (), texts, text=TextConfig(), options=found.options, check=check, notes=found.notes
    )


def _find_bad(paths: Iterable[Path]) -> Iterator[Path]:
    """Yield the files that hold no text in UTF-8."""
    for path in paths:
        try:
            text = path.read_text(encoding="utf-8-sig")
        except (UnicodeDecodeError, OSError):
            text = ""
        if not text.strip():
            yield path


def _split(root: Path, pairs: Sequence[tuple[Path, int]]) -> Split:
    if not pairs:
        raise DataError(f"Expected texts in every split. Received: {root} with none in one split.")
    split = file_split([str(path) for path, _ in pairs], [number for _, number in pairs], as_text)
    # Whole splits are held in memory once they are read, and shuffled in a buffer.
    return dataclasses.replace(split, examples=split.examples.cache(), shuffled=None)


def as_text(content: Any) -> Any:
    """Return the content of a file in UTF-8 as Python reads it: without a byte order mark, with "\\n" as line ends."""
    content = tf.strings.regex_replace(content, "^\ufeff", "", replace_global=False)
    return tf.strings.regex_replace(content, "\r\n?", "\n")
