"""Published weights fetched once: from the Hugging Face hub as safetensors, from keras.applications by Keras itself."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from zoo.common.errors import DataError
from zoo.common.lazy import hub, keras

FILE = "model.safetensors"
TIMEOUT = 10  # seconds


def home() -> Path:
    """Return the folder where users put weights by hand: $ZOO_HOME, or ~/.cache/keras-zoo."""
    return Path(os.environ.get("ZOO_HOME") or Path.home() / ".cache" / "keras-zoo")


def fetch(source: str) -> Path:
    """Return the file of "timm/<model>.<tag>", from `home()` or the hub's cache, or downloaded and checked.

    Raises:
        DataError: it cannot be downloaded, or what came is not what the hub says it is.
        MissingDependency: huggingface_hub is not installed.
    """
    own = home() / f"{source}.safetensors"
    return own if own.is_file() else _checked(_download(source, own), source)


def _download(source: str, own: Path) -> Path:
    """Return the file in the cache of huggingface_hub, which shows progress and resumes."""
    download = hub.hf_hub_download
    address = f"{os.environ.get('HF_ENDPOINT', 'https://huggingface.co').rstrip('/')}/{source}/resolve/main/{FILE}"
    try:
        cached = hub.try_to_load_from_cache(source, FILE)
        if isinstance(cached, str):
            return Path(cached)
        _reach(address)
        return Path(download(source, FILE))
    except Exception as error:  # The client lets through what its transport raises, which is of no one kind.
        # The reasons of the hub fill a page; its first line says which it is.
        reason = str(error).strip().partition("\n")[0][:200]
        raise DataError(f"weights={source!r} could not be downloaded: {reason} Put {address} to {own}") from error


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Leaves a redirection as it is: that someone answers is all that is asked."""

    def redirect_request(self, *_: Any) -> None:
        """Return no request to follow."""


def _reach(address: str) -> None:
    """Raise OSError at once if nobody answers; the client of the hub tries for half a minute."""
    opener = urllib.request.build_opener(_NoRedirect)
    # Any status is an answer; the client says best what is wrong.
    with contextlib.suppress(urllib.error.HTTPError):
        opener.open(urllib.request.Request(address, method="HEAD"), timeout=TIMEOUT).close()


def _checked(path: Path, source: str) -> Path:
    """Compare a file with the SHA-256 that the hub names it by in its cache."""
    stored = path.resolve()
    if re.fullmatch(r"[0-9a-f]{64}", stored.name) and _digest(stored) != stored.name:
        stored.unlink()
        raise DataError(f"weights={source!r}: {path} was damaged and has been removed. Run again to download it anew.")
    return path


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() if hasattr(hashlib, "file_digest") else _slowly(file)


def _slowly(file: Any) -> str:
    """Return the SHA-256 of a file on Python 3.10."""
    digest = hashlib.sha256()
    for block in iter(lambda: file.read(1 << 20), b""):
        digest.update(block)
    return digest.hexdigest()


def fetch_keras(name: str) -> Any:
    """Return the network NAME of keras.applications with its ImageNet weights, giving logits.

    Raises:
        DataError: Keras cannot download them.
    """
    try:
        return getattr(keras.applications, name)(weights="imagenet", classifier_activation=None)
    except Exception as error:  # Keras raises a bare Exception when a download fails.
        address = re.search(r"https?://\S+?(?=[:\s]|$)", str(error))
        if address is None:
            raise
        home_of_keras = Path(os.environ.get("KERAS_HOME") or Path.home() / ".keras")
        file = home_of_keras / "models" / address[0].rpartition("/")[2]
        raise DataError(f"weights='keras' could not be downloaded. Put {address[0]} to {file}") from error
