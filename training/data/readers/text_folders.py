"""Text files in folders, one sub-folder per class."""

from __future__ import annotations

from itertools import chain
from pathlib import Path

from training.data.dataset import Dataset, Split, in_memory_split
from training.data.readers.folders import FileKind, Files, bad_message, open_folder
from training.recipe.config import DataConfig
from zoo.common.errors import DataError
from zoo.specs.text import TextConfig


def text_files(name: str, config: DataConfig, kind: FileKind) -> Dataset:
    """Return the texts of a folder with one sub-folder per class; raises DataError."""
    root, splits, options = open_folder(config, kind)
    texts = _read(root, list(chain.from_iterable(chain.from_iterable(f.values() for f in splits.values()))), config)
    split_texts = {split: _split(root, files, texts) for split, files in splits.items()}
    return Dataset(name, tuple(splits["train"]), (), split_texts, text=TextConfig(), options=options)


def _read(root: Path, paths: list[Path], config: DataConfig) -> dict[Path, str]:
    """Return the content of files that hold text in UTF-8."""
    found, bad = {}, []
    for path in paths:
        try:
            text = path.read_text(encoding="utf-8-sig")
        except (UnicodeDecodeError, OSError):
            text = ""
        if text.strip():
            found[path] = text
        else:
            bad.append(path)
    if bad and not config.skip_bad:
        raise DataError(bad_message(root, bad, len(paths), "texts in UTF-8 that are not empty"))
    return found


def _split(root: Path, files: Files, texts: dict[Path, str]) -> Split:
    pairs = [(texts[path], number) for number, found in enumerate(files.values()) for path in found if path in texts]
    if not pairs:
        raise DataError(f"Expected texts in every split. Received: {root} with none in one split.")
    return in_memory_split([text for text, _ in pairs], [number for _, number in pairs])
