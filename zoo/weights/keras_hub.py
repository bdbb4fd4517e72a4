"""Download published models of keras.applications through Keras, and check their files."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from zoo.common.errors import DataError
from zoo.common.lazy import keras
from zoo.specs.published import PublishedWeights
from zoo.weights.digests import digest


def fetch_keras(published: PublishedWeights) -> Any:
    """Return a model of keras.applications with its ImageNet weights and without an activation of its logits.

    Raises:
        DataError: Keras cannot download them, or their file has another digest.
    """
    if published.url:
        fetch_keras_file(published)
    name = published.source.partition("/")[2]
    try:
        return getattr(keras.applications, name)(weights="imagenet", classifier_activation=None)
    except Exception as error:  # Keras raises a bare Exception when a download fails.
        raise _failed(error) from error


def fetch_keras_file(published: PublishedWeights) -> Path:
    """Return the file of published weights in the cache of Keras, downloaded if needed.

    Raises:
        DataError: Keras cannot download it, or it has another digest.
    """
    name = published.url.rpartition("/")[2]
    path = _place(name)
    if not path.is_file():
        try:
            path = Path(keras.utils.get_file(name, published.url, cache_subdir="models"))
        except Exception as error:
            raise _failed(error) from error
    for kind, expected in (("sha256", published.sha256), ("md5", published.md5)):
        if expected and digest(path, kind) != expected:
            raise DataError(
                f"The weights file must have the {kind} {expected}. Received: weights={published.source!r}, file "
                f"{path} with {digest(path, kind)}. Delete it, and run again to download it."
            )
    return path


def _place(name: str) -> Path:
    """Return the path of a file in the cache of Keras."""
    return Path(os.environ.get("KERAS_HOME") or Path.home() / ".keras") / "models" / name


def _failed(error: Exception) -> Exception:
    """Return the error of a download, which says what to do without a connection; another error as it is."""
    address = re.search(r"https?://\S+?(?=[:\s]|$)", str(error))
    if address is None:
        return error
    file = _place(address[0].rpartition("/")[2])
    return DataError(f"Weights cannot be downloaded. Received: weights='keras'. Download {address[0]} to {file}")
