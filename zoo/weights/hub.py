"""Download published weights: safetensors files of the Hugging Face hub, and models of keras.applications."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
from pathlib import Path
from typing import Any

from zoo.common.errors import DataError
from zoo.common.lazy import hub, keras

FILE = "model.safetensors"
TIMEOUT = 10  # seconds


def home() -> Path:
    """Return the folder for weights downloaded by hand: $ZOO_HOME, or ~/.cache/keras-zoo."""
    return Path(os.environ.get("ZOO_HOME") or Path.home() / ".cache" / "keras-zoo")


def fetch(source: str) -> Path:
    """Return the file of "timm/<model>.<tag>" from `home()`, the hub's cache or the hub, with its SHA-256 checked.

    Raises:
        DataError: the file cannot be downloaded or is damaged.
        MissingDependency: huggingface_hub is not installed.
    """
    own = home() / f"{source}.safetensors"
    return own if own.is_file() else _checked(_download(source, own), source)


def _download(source: str, own: Path) -> Path:
    """Return the file in the cache of huggingface_hub, downloaded if needed; the client resumes and shows progress."""
    download = hub.hf_hub_download
    address = f"{os.environ.get('HF_ENDPOINT', 'https://huggingface.co').rstrip('/')}/{source}/resolve/main/{FILE}"
    try:
        cached = hub.try_to_load_from_cache(source, FILE)
        if isinstance(cached, str):
            return Path(cached)
        _reach(address)
        return Path(download(source, FILE))
    except Exception as error:  # The client passes on any exception of its transport.
        reason = str(error).strip().partition("\n")[0][:200]
        raise DataError(
            f"Weights cannot be downloaded: {reason} Received: weights={source!r}. Download {address} to {own}"
        ) from error


def _reach(address: str) -> None:
    """Raise OSError at once if the hub does not respond; its client would retry for half a minute."""
    # They take a fifth of the time of `zoo list`, which does not need them.
    import urllib.error
    import urllib.request

    class NoRedirect(urllib.request.HTTPRedirectHandler):
        """Do not follow redirects: any response is enough."""

        def redirect_request(self, *_: Any) -> None:
            """Return None, which ends the request with the redirect."""

    opener = urllib.request.build_opener(NoRedirect)
    # Any HTTP status is a response; the client reports errors better.
    with contextlib.suppress(urllib.error.HTTPError):
        opener.open(urllib.request.Request(address, method="HEAD"), timeout=TIMEOUT).close()


def _checked(path: Path, source: str) -> Path:
    """Return a file after a check of its SHA-256, which is its name in the hub's cache."""
    stored = path.resolve()
    if re.fullmatch(r"[0-9a-f]{64}", stored.name) and _digest(stored) != stored.name:
        stored.unlink()
        raise DataError(
            f"The weights file was damaged and is now deleted. Received: weights={source!r}, file {path}. "
            "Run again to download it."
        )
    return path


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() if hasattr(hashlib, "file_digest") else _digest_310(file)


def _digest_310(file: Any) -> str:
    """Return the SHA-256 of a file on Python 3.10."""
    digest = hashlib.sha256()
    for block in iter(lambda: file.read(1 << 20), b""):
        digest.update(block)
    return digest.hexdigest()


def fetch_keras(name: str) -> Any:
    """Return the model NAME of keras.applications with ImageNet weights and without an activation of its logits.

    Raises:
        DataError: Keras cannot download them.
    """
    try:
        return getattr(keras.applications, name)(weights="imagenet", classifier_activation=None)
    except Exception as error:  # Keras raises a bare Exception when a download fails.
        address = re.search(r"https?://\S+?(?=[:\s]|$)", str(error))
        if address is None:
            raise
        keras_home = Path(os.environ.get("KERAS_HOME") or Path.home() / ".keras")
        file = keras_home / "models" / address[0].rpartition("/")[2]
        raise DataError(
            f"Weights cannot be downloaded. Received: weights='keras'. Download {address[0]} to {file}"
        ) from error
