"""Text files in folders, one sub-folder per class."""

from __future__ import annotations

import codecs
import dataclasses
import functools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from training.data.dataset import DataFiles, Dataset, Split
from training.data.readers.files import file_digest, file_split, name_in
from training.data.readers.folders import Folder, folder_of, labelled, open_folder
from training.data.readers.scan import FileKind
from training.data.tokenization import BATCH, without_tokens
from training.recipe.config import DataConfig
from zoo.common.errors import DataError
from zoo.common.lazy import tf
from zoo.reading.data_files import read_text
from zoo.specs.text import TextConfig

# Encodings of a file that starts with a byte order mark, and of one that is neither that nor UTF-8; the names of TF.
UTF16, OTHER = "UTF-16", "windows-1252"
PYTHON = {UTF16: "utf-16", OTHER: "cp1252"}
SHOWN = 3


def text_files(name: str, config: DataConfig, kind: FileKind) -> Dataset:
    """Return the texts of a folder with one sub-folder per class; its check reads them. Raises DataError."""
    return _dataset(name, open_folder(config, kind), config, kind)


def _dataset(name: str, found: Folder, config: DataConfig, kind: FileKind) -> Dataset:
    pairs = {split: list(zip(*labelled(files), strict=True)) for split, files in found.splits.items()}
    notes: list[str] = []
    bad: set[Path] = set()
    if config.skip_bad:
        texts = list(_texts((path for split in pairs.values() for path, _ in split), config.encoding))
        bad = {path for path, text, _ in texts if text is None} | set(_wordless(texts))
        pairs = {split: [pair for pair in each if pair[0] not in bad] for split, each in pairs.items()}
        if bad:
            notes.append(f"Left out: {len(bad):,} files that have no word or are no text ({_named(found.root, bad)})")
    splits = {split: _split(found.root, each, config.encoding) for split, each in pairs.items()}
    files = {split: [path for path, _ in each] for split, each in pairs.items()}
    return Dataset(
        name,
        found.labels,
        (),
        splits,
        text=TextConfig(),
        options=(*found.options, "encoding"),
        check=TextCheck(found.root, files, config.encoding),
        notes=(*found.notes, *notes),
        details={"left_out": {name_in(found.root, p): "no word, or no text" for p in sorted(bad)}} if bad else {},
        files=_data_files(name, found, files, bad, (config, kind)),
    )


def _data_files(
    name: str, found: Folder, files: dict[str, list[Path]], bad: set[Path], options: tuple[DataConfig, FileKind]
) -> DataFiles:
    def rebuild(splits: Mapping[str, Sequence[Path]], labels: tuple[str, ...]) -> Dataset:
        return _dataset(name, folder_of(found, splits, labels), *options)

    legacy, unused = found.legacy, [*sorted(bad), *found.unused]
    before = None if legacy is None else lambda: _dataset(name, legacy, *options)
    return DataFiles(found.root, files, options[1].suffixes, unused, file_digest, rebuild, before)


@dataclasses.dataclass(frozen=True)
class TextCheck:
    """The `Dataset.check` of text files.

    Args:
        root: the folder, for messages.
        files: those of each split in the order of its examples.
        encoding: the encoding of all files, "" to find that of each.
    """

    root: Path
    files: Mapping[str, Sequence[Path]]
    encoding: str = ""

    def __call__(self, chosen: Mapping[str, Iterable[int]]) -> list[str]:
        """Return what was found in some files of the splits; raises DataError for a file that is no text."""
        paths = [self.files[split][number] for split, numbers in chosen.items() for number in numbers]
        texts = list(_texts(paths, self.encoding))
        bad = [path for path, text, _ in texts if text is None]
        if bad:
            raise DataError(
                f"Expected texts{f' in {self.encoding}' * bool(self.encoding)}. Received: {len(bad)} of {len(paths)} "
                f"files that are none: {_named(self.root, bad)}. Remove them, or skip them: --set data.skip_bad=true"
            )
        notes = []
        other = [path for path, _, encoding in texts if encoding == OTHER and not self.encoding]
        if other:
            notes.append(
                f"{len(other):,} files are not UTF-8 and read as cp1252 ({_named(self.root, other)}); data.encoding "
                "changes it"
            )
        empty = _wordless(texts)
        if empty:
            notes.append(
                f"{len(empty):,} texts without a word ({_named(self.root, empty)}) are learned as unknown; "
                "data.skip_bad=true leaves them out"
            )
        return notes


def _named(root: Path, paths: Iterable[Path]) -> str:
    names = sorted(str(path.relative_to(root)) for path in paths)
    return ", ".join(names[:SHOWN]) + (", …" if len(names) > SHOWN else "")


def _texts(paths: Iterable[Path], encoding: str) -> Iterator[tuple[Path, str | None, str]]:
    """Yield each file with its text, None if it has none, and its encoding."""
    for path in paths:
        name = encoding
        try:
            content = read_text(path)
            name = encoding or _encoding(content)
            text = content.decode(PYTHON.get(name, name), "strict" if encoding else "replace")
        except (UnicodeError, LookupError, OSError):
            text = None
        yield path, None if text is None or "\0" in text else text, name


def _encoding(content: bytes) -> str:
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return UTF16
    try:
        content.decode("utf-8")
    except UnicodeDecodeError:
        return OTHER
    return "UTF-8"


def _wordless(texts: Sequence[tuple[Path, str | None, str]]) -> list[Path]:
    """Return the files of texts without a word."""
    known = [(path, text) for path, text, _ in texts if text is not None]
    found: list[Path] = []
    for low in range(0, len(known), BATCH):
        part = known[low : low + BATCH]
        empty = without_tokens(TextConfig(), [text.removeprefix("\ufeff") for _, text in part])
        found += [path for (path, _), flag in zip(part, empty, strict=True) if flag]
    return found


def _split(root: Path, pairs: Sequence[tuple[Path, int]], encoding: str) -> Split:
    if not pairs:
        raise DataError(f"Expected texts in every split. Received: {root} with none in one split.")
    parse = functools.partial(as_text, encoding=encoding)
    split = file_split([str(path) for path, _ in pairs], [number for _, number in pairs], parse)
    # Whole splits are held in memory once they are read, and shuffled in a buffer.
    return dataclasses.replace(split, examples=split.examples.cache(), shuffled=None)


def as_text(content: Any, encoding: str = "") -> Any:
    """Return the content of a file in UTF-8, without a byte order mark, with "\\n" as line ends.

    Args:
        content: a scalar string tensor.
        encoding: its encoding; "" for UTF-8, UTF-16 with a byte order mark, or else cp1252.
    """
    if encoding:
        content = tf.strings.unicode_transcode(content, _icu(encoding), "UTF-8")
    else:
        start = tf.strings.substr(content, 0, 2)
        wide = tf.equal(start, codecs.BOM_UTF16_LE) | tf.equal(start, codecs.BOM_UTF16_BE)
        utf8 = tf.strings.unicode_transcode(content, "UTF-8", "UTF-8", replace_control_characters=False)
        other = tf.where(
            wide,
            tf.strings.unicode_transcode(content, UTF16, "UTF-8"),
            tf.strings.unicode_transcode(content, OTHER, "UTF-8"),
        )
        content = tf.where(tf.equal(utf8, content) & ~wide, content, other)
    content = tf.strings.regex_replace(content, "^\ufeff", "", replace_global=False)
    return tf.strings.regex_replace(content, "\r\n?", "\n")


def _icu(encoding: str) -> str:
    """Return the name that TensorFlow has for an encoding of Python; raises DataError."""
    try:
        name = codecs.lookup(encoding).name
    except LookupError:
        raise DataError(f"Expected an encoding of Python. Received: data.encoding={encoding!r}. Use utf-8.") from None
    return {"cp1252": OTHER, "utf-8-sig": "UTF-8"}.get(name, name)
