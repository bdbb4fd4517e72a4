"""Download files of the Hugging Face hub through its own client, and check them."""

from __future__ import annotations

import contextlib
import os
import re
from pathlib import Path
from typing import Any

from zoo.common.digests import digest, digest_kind
from zoo.common.errors import DataError
from zoo.common.lazy import hub

FILE, CONFIG, CARD = "model.safetensors", "config.json", "README.md"
TIMEOUT = 10  # seconds


class _AbsentFile(DataError):
    """A repository that does not have a file."""


def home() -> Path:
    """Return the folder for weights downloaded by hand: $ZOO_HOME, or ~/.cache/keras-zoo."""
    return Path(os.environ.get("ZOO_HOME") or Path.home() / ".cache" / "keras-zoo")


def fetch(source: str, sha256: str = "", *, file: str = FILE, cache_dir: str | None = None) -> Path:
    """Return a file of "user/repository" from `home()`, the hub's cache or the hub.

    Args:
        source: the repository; "@<revision>" after it is a branch, a tag or a commit, "main" by default.
        sha256: what the file must have, wherever it lies; if empty, what its name in the hub's cache says.
        file: its name in the repository.
        cache_dir: cache of the hub's client; its own ($HF_HUB_CACHE, $HF_HOME) by default.

    Raises:
        DataError: the file cannot be downloaded, or has another SHA-256.
        MissingDependency: huggingface_hub is not installed.
    """
    try:
        return _checked(_find(source, file, cache_dir), source, sha256)
    except _AbsentFile as error:
        raise DataError(str(error)) from error


def fetch_optional(source: str, file: str, cache_dir: str | None = None) -> Path | None:
    """Return a file next to the weights of a repository as `fetch` does; None if the repository does not have it.

    Raises:
        DataError: it is not known whether it does.
    """
    if _by_hand(source, FILE).is_file() and not _by_hand(source, file).is_file():
        return None
    try:
        return _checked(_find(source, file, cache_dir), source, "")
    except _AbsentFile:
        return None


def origin_of(path: Path) -> dict[str, str]:
    """Return the commit and the SHA-256 of a file in the hub's cache, as far as its place says them."""
    commits, stored = re.findall(r"/snapshots/([0-9a-f]{40})/", path.as_posix()), path.resolve().name
    known = {"revision": commits[-1]} if commits else {}
    return known | ({"sha256": stored} if commits and digest_kind(stored) == "sha256" else {})


def _by_hand(source: str, file: str) -> Path:
    """Return the path of a file downloaded by hand: "user/repository.safetensors", ".json" and ".md" next to it.

    Other files are in a folder of the repository's name.
    """
    return home() / (f"{source}{Path(file).suffix}" if file in (FILE, CONFIG, CARD) else f"{source}/{file}")


def _find(source: str, file: str, cache_dir: str | None) -> Path:
    """Return a file downloaded by hand, or one in the cache of the hub's client."""
    own = _by_hand(source, file)
    return own if own.is_file() else _download(source, file, cache_dir)


def _download(source: str, file: str, cache_dir: str | None) -> Path:
    """Return the file in the cache of huggingface_hub, downloaded if needed.

    The client knows the endpoint, proxies, tokens and HF_HUB_OFFLINE, resumes, and shows progress.
    """
    repository, _, revision = source.partition("@")
    where = {"revision": revision or None, "cache_dir": cache_dir}
    try:
        cached = hub.try_to_load_from_cache(repository, file, **where)
        if isinstance(cached, str):
            return Path(cached)
        if cached is not None:  # the cache notes that there is no such file
            raise _AbsentFile(_absent(source, file))
        address = hub.hf_hub_url(repository, file, revision=revision or None)
        # One request that is not repeated: a download retries for half a minute before it reports that there is no
        # hub.
        hub.get_hf_file_metadata(address, timeout=TIMEOUT)
        return Path(hub.hf_hub_download(repository, file, **where))
    except _AbsentFile:
        raise
    except Exception as error:  # The client passes on any exception of its transport.
        if _is_absent(error):
            _remember_absent(repository, file, where)
            raise _AbsentFile(_absent(source, file)) from error
        raise _failed(error, source, file) from error


def _failed(error: Exception, source: str, file: str) -> DataError:
    """Return the error of a download, which says what to do without a connection."""
    kind = _AbsentFile if getattr(getattr(error, "response", None), "status_code", 0) == 404 else DataError
    reason = str(error).strip().partition("\n")[0][:200]
    repository, _, revision = source.partition("@")
    return kind(
        f"Weights cannot be downloaded: {reason} Received: weights={source!r}. Download "
        f"{_address(repository, revision, file)} to {_by_hand(source, file)}"
    )


def _absent(source: str, file: str) -> str:
    return f"Expected a repository with {file}. Received: {source}, which does not have it. Name another one."


def _is_absent(error: Exception) -> bool:
    """Return whether the hub, or its cache, says that the repository does not have the file."""
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    return isinstance(error, EntryNotFoundError) and not isinstance(error, LocalEntryNotFoundError)


def _remember_absent(repository: str, file: str, where: dict[str, Any]) -> None:
    """Let the client note in its cache that there is no such file, so that the note serves without a connection."""
    from huggingface_hub.errors import EntryNotFoundError

    with contextlib.suppress(EntryNotFoundError):
        hub.hf_hub_download(repository, file, **where)


def _address(repository: str, revision: str, file: str) -> str:
    """Return the address of a file, also for a name that the client refuses."""
    return f"{hub.constants.ENDPOINT}/{repository}/resolve/{revision or 'main'}/{file}"


def _checked(path: Path, source: str, sha256: str) -> Path:
    """Return a file after a check of its digest; a damaged file in the hub's cache, named by it, is deleted."""
    stored = path.resolve()
    # The cache names large files by their SHA-256, others as git does.
    kind = digest_kind(stored.name)
    if kind in ("sha256", "git") and digest(stored, kind) != stored.name:
        stored.unlink()
        raise DataError(
            f"The weights file was damaged and is now deleted. Received: weights={source!r}, file {path}. "
            "Run again to download it."
        )
    check_sha256(path, sha256, f"weights={source!r}", "Download it again, or name a revision with @<revision>.")
    return path


def check_sha256(path: Path, sha256: str, received: str, advice: str) -> None:
    """Raise DataError unless a file has a SHA-256; "" for any."""
    if sha256 and digest(path) != sha256:
        raise DataError(
            f"The weights file must have the SHA-256 {sha256}. Received: {received}, file {path} with "
            f"{digest(path)}. {advice}"
        )
