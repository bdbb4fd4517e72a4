"""Download published models of keras.applications through Keras, and check their files."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from zoo.common import compat
from zoo.common.digests import digest
from zoo.common.errors import DataError
from zoo.common.lazy import keras
from zoo.specs.published import PublishedWeights


def fetch_keras(published: PublishedWeights, cache_dir: str | None = None) -> Any:
    """Return a model of keras.applications with its ImageNet weights and without an activation of its logits.

    Args:
        published: the weights.
        cache_dir: folder for the file; that of Keras' cache by default.

    Raises:
        DataError: Keras cannot download them, or their file has another digest.
    """
    if published.url:
        fetch_keras_file(published, cache_dir)
    name = published.source.partition("/")[2]
    try:
        # Some of these functions build another model for the path of a file than for "imagenet".
        with compat.keras_home(cache_dir):
            return getattr(keras.applications, name)(weights="imagenet", classifier_activation=None)
    except Exception as error:  # Keras raises a bare Exception when a download fails.
        raise _failed(error, cache_dir) from error


def fetch_keras_file(published: PublishedWeights, cache_dir: str | None = None) -> Path:
    """Return the file of published weights in a folder "models" of a cache, downloaded if needed.

    Args:
        published: the weights.
        cache_dir: the cache; that of Keras by default ($KERAS_HOME, ~/.keras).

    Raises:
        DataError: Keras cannot download it, or it has another digest.
    """
    name = published.url.rpartition("/")[2]
    path = _place(name, cache_dir)
    if not path.is_file():
        try:
            path.parent.mkdir(parents=True, exist_ok=True)  # Keras takes /tmp for a folder that does not exist
            with compat.keras_home(cache_dir):
                path = Path(keras.utils.get_file(name, published.url, cache_subdir="models"))
        except Exception as error:
            raise _failed(error, cache_dir) from error
    for kind, expected in (("sha256", published.sha256), ("md5", published.md5)):
        if expected and digest(path, kind) != expected:
            raise DataError(
                f"The weights file must have the {kind} {expected}. Received: weights={published.source!r}, file "
                f"{path} with {digest(path, kind)}. Delete it, and run again to download it."
            )
    return path


def _place(name: str, cache_dir: str | None = None) -> Path:
    """Return the path of a file in a cache, by default that of Keras."""
    return Path(cache_dir or os.environ.get("KERAS_HOME") or Path.home() / ".keras") / "models" / name


def _failed(error: Exception, cache_dir: str | None = None) -> Exception:
    """Return the error of a download, which says what to do without a connection; another error as it is."""
    address = re.search(r"https?://\S+?(?=:?\s|$)", str(error))
    if address is None:
        return error
    file = _place(address[0].rpartition("/")[2], cache_dir)
    return DataError(f"Weights cannot be downloaded. Received: weights='keras'. Download {address[0]} to {file}")
