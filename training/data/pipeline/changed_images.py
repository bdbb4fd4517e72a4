"""Images that change while they are read, so that they cannot be decoded any more: named, or skipped."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import TypeVar

from training.data.pipeline.pipeline import Pipeline
from training.data.readers.files import listed, name_in
from training.data.readers.images.checks import ImageChecks
from zoo.common.errors import DataError
from zoo.common.lazy import tf

Result = TypeVar("Result")


class ChangedImages(DataError):
    """Images that could be decoded when the data was opened, and cannot any more.

    Args:
        images: their names, with the reason of each.
        remedy: what to do, for the message.
    """

    def __init__(self, images: Mapping[str, str], remedy: str) -> None:
        self.images = dict(images)
        super().__init__(
            f"Expected images that do not change while they are read. Received: {self.described} that cannot be "
            f"decoded any more. Restore them. {remedy}".rstrip()
        )

    @property
    def described(self) -> str:
        """Their number and the names of the first, with a reason."""
        first = next(iter(self.images.values()))
        return f"{len(self.images):,} ({listed(list(self.images))}: {first})"


@contextlib.contextmanager
def naming_images(pipeline: Pipeline, remedy: str = "") -> Iterator[None]:
    """Raise ChangedImages in the place of TensorFlow's error about an image that cannot be decoded.

    All were decoded before, and some changed since. Errors that no image explains stay as they are.

    Args:
        pipeline: the data that is read inside.
        remedy: what to do, for the message.
    """
    try:
        yield
    except Exception as error:
        # Looking at a million images takes minutes, and full memory has other causes.
        if not isinstance(error, tf.errors.OpError) or isinstance(error, tf.errors.ResourceExhaustedError):
            raise
        bad = _bad_images(pipeline)
        if not bad:
            raise
        raise ChangedImages(bad, remedy) from error


def _bad_images(pipeline: Pipeline) -> dict[str, str]:
    """Return the names of images that cannot be decoded now, with the reason."""
    dataset, config = pipeline.dataset, pipeline.recipe.data
    found = ImageChecks(config.max_pixels).bad(map(Path, chain.from_iterable(dataset.images.values())))
    root = dataset.files.root if dataset.files else Path(config.path).expanduser()
    return {name_in(root, path): reason for path, reason in sorted(found.items())}


def skipping_images(attempt: Callable[[], Result], skip: Callable[[ChangedImages], None]) -> Result:
    """Return the result of a function that reads images, called again once those that changed are skipped.

    Args:
        attempt: raises ChangedImages.
        skip: called with the error before each further attempt, which must not meet the same images alone.

    Raises:
        ChangedImages: an attempt met no further image.
    """
    known: set[str] = set()
    while True:
        try:
            return attempt()
        except ChangedImages as error:
            if error.images.keys() <= known:
                raise
            known |= error.images.keys()
            skip(error)
