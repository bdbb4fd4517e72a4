"""Image files: which are read, checking all of them at once, and reading those that TensorFlow cannot decode."""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from training.common.image_files import (
    HEAD,
    HEIC,
    HEIC_REMEDY,
    UnreadableImage,
    as_png,
    is_deep,
    needs_conversion,
    pixels_of,
    suffixes,
)
from training.common.orientation import may_be_turned
from training.common.preprocess import still, whole
from training.data.dataset import Split
from training.data.readers.files import digest_of, file_digest, file_split, listed, name_in, read_file
from training.data.readers.images.jpeg import is_whole_jpeg
from training.data.readers.scan import FileKind
from zoo.common.lazy import quiet_libraries, tf
from zoo.reading.data_files import read_ends, read_image
from zoo.reading.files import reason_of

# The option that limits the size of images.
LIMIT = "data.max_pixels"
TOGETHER = 64  # files that a thread takes at a time


def image_kind() -> FileKind:
    """Return the image files that are read on this machine."""
    found = suffixes()
    remedies = {suffix: HEIC_REMEDY for suffix in HEIC if suffix not in found}
    return FileKind("images", found, remedies=remedies)


@dataclasses.dataclass(frozen=True)
class ImageFacts:
    """What reading an image file showed.

    Args:
        digest: of the content, "" if it cannot be read.
        reason: why it cannot be decoded, "" if it can.
        highest: the highest value of an image of 16 bits, else 0.
    """

    digest: str = ""
    reason: str = ""
    highest: int = 0


def _in_threads(function: Callable[[Path], Any], paths: Sequence[Path]) -> Iterator[Any]:
    """Yield what a function returns for each path; threads take some at a time, as passing one on takes long."""
    parts = [paths[low : low + TOGETHER] for low in range(0, len(paths), TOGETHER)]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for found in pool.map(lambda part: list(map(function, part)), parts):
            yield from found


class ImageChecks:
    """Checks image files, each of them once.

    Args:
        max_pixels: width x height of the largest image that is decoded; 0 for no limit.

    Attributes:
        facts: what is known of each file that was checked.
    """

    def __init__(self, max_pixels: int) -> None:
        self._limit = max_pixels
        self.facts: dict[Path, ImageFacts] = {}
        self._converted: dict[Path, bool] = {}

    def bad(self, paths: Iterable[Path]) -> dict[Path, str]:
        """Return the files that cannot be decoded, with the reason."""
        paths = list(paths)
        new = [path for path in paths if path not in self.facts]
        _ = tf.io  # imported before the threads start
        # The JPEG library prints to standard error; the names of the files are more useful.
        with quiet_libraries():
            found = _in_threads(functools.partial(read_facts, limit=self._limit), new)
            self.facts.update(zip(new, found, strict=True))
        return {path: self.facts[path].reason for path in paths if self.facts[path].reason}

    def converted(self, paths: Sequence[Path]) -> list[bool]:
        """Return whether each file must be converted before TensorFlow decodes it, by its first bytes."""
        new = [path for path in paths if path not in self._converted]
        self._converted.update(zip(new, _in_threads(_is_converted, new), strict=True))
        return [self._converted[path] for path in paths]

    def highest(self) -> int:
        """Return the highest value of all images of 16 bits that were checked, 0 without any."""
        return max((facts.highest for facts in self.facts.values()), default=0)

    def digest(self, path: Path) -> str:
        """Return the digest of a file."""
        known = self.facts.get(path)
        return known.digest if known and known.digest else file_digest(path)


def read_facts(path: Path, limit: int) -> ImageFacts:
    """Return what reading an image file shows; nothing larger than `limit` pixels is decoded.

    Decoding 2,000 photographs of 400x500 takes two thirds of the time of an epoch of crops; checking the markers of
    JPEGs takes a thirteenth of that.
    """
    try:
        content = read_image(path)
    except OSError as error:
        return ImageFacts(reason=reason_of(error))
    digest = digest_of(content)
    try:
        return ImageFacts(digest, highest=_decode(content, limit))
    except UnreadableImage as error:
        return ImageFacts(digest, str(error))
    except tf.errors.OpError as error:
        # Truncated, empty and other files raise InvalidArgumentError.
        return ImageFacts(digest, _reason(error))


def _decode(content: bytes, limit: int) -> int:
    """Decode an image, unless its markers show that it can be; return the highest value of one of 16 bits."""
    _require_size(content, limit)
    if needs_conversion(content[:HEAD]):
        content = as_png(content)
    if is_deep(content[:HEAD]):
        return int(tf.reduce_max(tf.cast(tf.io.decode_png(content, dtype=tf.uint16), tf.int32)))
    if not is_whole_jpeg(content):
        whole(content, tf.io.decode_image(still(content), expand_animations=False))
    return 0


def _reason(error: Exception) -> str:
    text = " ".join(str(getattr(error, "message", error)).split())
    return (
        "an animated WebP" if "animated WebP" in text else (text.rpartition("}} ")[2] or text).partition(" [")[0][:80]
    )


def _is_converted(path: Path) -> bool:
    try:
        return needs_conversion(read_ends(path, HEAD)[0])
    except OSError:
        return False


def read_encoded(path: Path, limit: int = 0) -> bytes:
    """Return an image file as TensorFlow decodes it.

    Args:
        path: the file.
        limit: width x height of the largest image; 0 for no limit.

    Raises:
        OSError: it cannot be read.
        UnreadableImage: it cannot be decoded.
    """
    content = read_image(path)
    _require_size(content, limit)
    return as_png(content) if needs_conversion(content[:HEAD]) else content


def _require_size(content: bytes, limit: int) -> None:
    """Raise UnreadableImage for an image of more than `limit` pixels by its header."""
    pixels = pixels_of(content) if limit else 0
    if pixels > limit:
        raise UnreadableImage(f"{pixels:,} pixels, above {LIMIT}={limit:,}")


def any_turned(paths: Iterable[Path]) -> bool:
    """Return whether an image has an EXIF orientation other than upright."""
    return any(_in_threads(may_be_turned, list(paths)))


def image_split(paths: Sequence[Path], labels: Any, checks: ImageChecks) -> Split:
    """Return the split of image files with their labels (n, ...); files of other types are converted."""
    marks, names = checks.converted(paths), list(map(str, paths))
    if not any(marks):
        return file_split(names, labels)
    return file_split(names, labels, content=_read_marked(names, marks))


def _read_marked(names: Sequence[str], marks: Sequence[bool]) -> Callable[[Any], Any]:
    """Return a function from a path to an image as TensorFlow decodes it."""
    marked = tf.constant([name for name, mark in zip(names, marks, strict=True) if mark])
    table = tf.lookup.StaticHashTable(
        tf.lookup.KeyValueTensorInitializer(marked, tf.ones_like(marked, tf.int32)), default_value=0
    )

    def convert(path: bytes) -> bytes:
        return read_encoded(Path(os.fsdecode(path)))

    def read(path: Any) -> Any:
        return tf.cond(
            table.lookup(path) > 0,
            lambda: tf.ensure_shape(tf.numpy_function(convert, [path], tf.string), ()),
            lambda: read_file(path),
        )

    return read


def left_out_lines(bad: Mapping[Path, str], root: Path) -> tuple[str, ...]:
    """Return a line for each kind of images that are left out, with the names of the first."""
    large = {path for path, reason in bad.items() if LIMIT in reason}
    groups = {f"above {LIMIT}": large, "that cannot be decoded": bad.keys() - large}
    return tuple(
        f"Left out: {len(paths):,} image{'s' if len(paths) > 1 else ''} {what}: "
        + listed([name_in(root, path) for path in sorted(paths)])
        for what, paths in groups.items()
        if paths
    )
