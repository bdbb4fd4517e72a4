"""Download published weights: safetensors files of the Hugging Face hub, and models of keras.applications."""

from __future__ import annotations

import functools
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


def fetch(source: str, sha256: str = "") -> Path:
    """Return the file of "timm/<model>.<tag>" from `home()`, the hub's cache or the hub.

    Args:
        source: the repository; "@<revision>" after it is a branch, a tag or a commit, "main" by default.
        sha256: what the file must have, wherever it lies; if empty, what its name in the hub's cache says.

    Raises:
        DataError: the file cannot be downloaded, or has another SHA-256.
        MissingDependency: huggingface_hub is not installed.
    """
    own = home() / f"{source}.safetensors"
    return _checked(own if own.is_file() else _download(source, own), source, sha256)


def _download(source: str, own: Path) -> Path:
    """Return the file in the cache of huggingface_hub, downloaded if needed.

    The client knows the endpoint, proxies, tokens and HF_HUB_OFFLINE, resumes, and shows progress.
    """
    repository, _, revision = source.partition("@")
    try:
        cached = hub.try_to_load_from_cache(repository, FILE, revision=revision or None)
        if isinstance(cached, str):
            return Path(cached)
        address = hub.hf_hub_url(repository, FILE, revision=revision or None)
        # One request that is not repeated: a download retries for half a minute before it reports that there is no hub.
        hub.get_hf_file_metadata(address, timeout=TIMEOUT)
        return Path(hub.hf_hub_download(repository, FILE, revision=revision or None))
    except Exception as error:  # The client passes on any exception of its transport.
        reason = str(error).strip().partition("\n")[0][:200]
        raise DataError(
            f"Weights cannot be downloaded: {reason} Received: weights={source!r}. Download "
            f"{_address(repository, revision)} to {own}"
        ) from error


def _address(repository: str, revision: str) -> str:
    """Return the address of a file, also for a name that the client refuses."""
    endpoint = os.environ.get("HF_ENDPOINT", "https://huggingface.co").rstrip("/")
    return f"{endpoint}/{repository}/resolve/{revision or 'main'}/{FILE}"


def _checked(path: Path, source: str, sha256: str) -> Path:
    """Return a file after a check of its SHA-256; a damaged file in the hub's cache, named by it, is deleted."""
    stored = path.resolve()
    in_cache = re.fullmatch(r"[0-9a-f]{64}", stored.name)
    status = stored.stat()
    digest = _digest(stored, status.st_mtime_ns, status.st_size) if in_cache or sha256 else ""
    if in_cache and digest != stored.name:
        stored.unlink()
        raise DataError(
            f"The weights file was damaged and is now deleted. Received: weights={source!r}, file {path}. "
            "Run again to download it."
        )
    if sha256 and digest != sha256:
        raise DataError(
            f"The weights file must have the SHA-256 {sha256}. Received: weights={source!r}, file {path} with "
            f"{digest}. Download it again, or name a revision with @<revision>."
        )
    return path


@functools.cache
def _digest(path: Path, modified: int, size: int) -> str:
    """Return the SHA-256 of a file, computed once while neither its time nor its size changes."""
    del modified, size
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
