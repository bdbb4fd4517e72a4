"""Errors of reading while a model trains, with the names of the files."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from itertools import chain
from typing import Any

from training.data.pipeline.pipeline import Pipeline
from training.data.readers.files import listed, name_in
from training.data.readers.images.checks import ImageChecks
from zoo.common.errors import DataError
from zoo.common.lazy import tf

IMAGE_AXES = 3


@contextlib.contextmanager
def naming_files(pipeline: Pipeline, remedy: str) -> Iterator[None]:
    """Raise DataError with the names of the images that cannot be decoded, in the place of TensorFlow's error.

    All were decoded before the training began, and some changed since. Errors that no image explains stay as they are.

    Args:
        pipeline: the data that is read inside.
        remedy: what to do, for the message.
    """
    try:
        yield
    except Exception as error:
        if not isinstance(error, tf.errors.OpError):
            raise
        bad = _bad_images(pipeline)
        if not bad:
            raise
        first = next(iter(bad))
        raise DataError(
            f"Expected images that do not change while a model trains. Received: {len(bad):,} that cannot be decoded "
            f"any more: {listed(list(bad))} ({bad[first]}). Restore them. {remedy}"
        ) from error


def _bad_images(pipeline: Pipeline) -> dict[str, str]:
    """Return the names of images that cannot be decoded now, with the reason."""
    files: Any = pipeline.dataset.files
    if files is None or not files.suffixes or len(pipeline.shape) != IMAGE_AXES:
        return {}
    checks = ImageChecks(pipeline.recipe.data.max_pixels)
    found = checks.bad(chain.from_iterable(files.splits.values()))
    return {name_in(files.root, path): reason for path, reason in sorted(found.items())}
