"""Download weights into the caches of the hub's client and of Keras, and check them, without building a model."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from zoo.common.digests import digest
from zoo.common.errors import BadOption, UnknownName
from zoo.common.licenses import check_license
from zoo.specs.listing import list_models
from zoo.specs.published import PublishedWeights
from zoo.specs.registry import models
from zoo.weights.hub import fetch, origin_of
from zoo.weights.keras_hub import fetch_keras_file
from zoo.weights.names import resolve
from zoo.weights.references import is_repository, split_tag
from zoo.weights.repositories import fetch_repository, stored_model

WILDCARDS = frozenset("*?[")


@dataclasses.dataclass(frozen=True)
class Fetched:
    """Weights on this machine.

    Args:
        model: the registered name of their model.
        weights: their name for `zoo.get`.
        path: the file, in the cache of the hub's client or of Keras.
        bytes: its size.
        license: SPDX identifier of their license, None if it is not known.
        revision: commit of their repository, None if they have none.
        sha256: SHA-256 of the file.
    """

    model: str
    weights: str
    path: Path
    bytes: int
    license: str | None
    revision: str | None
    sha256: str

    def to_json(self) -> dict[str, Any]:
        """Return JSON-safe values."""
        return dataclasses.asdict(self) | {"path": str(self.path)}


def select_weights(text: str, weights: str = "imagenet", cache_dir: str | None = None) -> list[tuple[str, str]]:
    """Return pairs of a registered name and the name of its weights.

    Args:
        text: a model, "model.tag", "hf://user/repository", or a wildcard of models or of "model.tag".
        weights: the weights of a model that the text names without a tag.
        cache_dir: cache of the hub's client; its own by default.

    Raises:
        UnknownName: no model with published weights has this name.
    """
    if is_repository(text):
        return [(stored_model(text, cache_dir).info.name, text)]
    if WILDCARDS & set(text):
        tagged = [(name, source) for name, source in _tags() if fnmatchcase(source.partition("/")[2], text)]
        found = [(name, weights) for name in list_models(text, pretrained=True)] or tagged
        if not found:
            raise UnknownName(f"Expected models with published weights. Received: {text!r}. See: zoo list --pretrained")
        return found
    return [split_tag(text) or (models[text].spec.name, weights)]


def _tags() -> Iterator[tuple[str, str]]:
    """Yield each model with each of its weights of timm."""
    for name in models.names():
        yield from ((name, w.source) for w in models[name].spec.weights if w.source.startswith("timm/"))


def fetch_weights(model: str, weights: str, cache_dir: str | None = None) -> Fetched:
    """Download weights if needed, and check them.

    Args:
        model: a registered name.
        weights: as for `zoo.get`, but no file.
        cache_dir: cache of the hub's client; its own by default.

    Raises:
        BadOption: the model has no such weights, they are a pickle, or their license needs an acceptance.
        DataError: they cannot be downloaded, or are damaged.
    """
    if is_repository(weights):
        path, info = fetch_repository(weights, cache_dir)
        return _fetched(model, weights, path, info.license)
    published = resolve(models[model], weights)
    check_license(published.license, f"weights={published.source!r}")
    return _fetched(model, published.source, _file(published, cache_dir), published.license)


def _file(published: PublishedWeights, cache_dir: str | None) -> Path:
    """Return the file of published weights."""
    if published.source.startswith("timm/"):
        revision = f"@{published.revision}" if published.revision else ""
        return fetch(published.source + revision, published.sha256 or "", cache_dir=cache_dir)
    if published.source.startswith("keras/") and published.url:
        return fetch_keras_file(published, cache_dir)
    raise BadOption(
        f"Weights must be in a file that the zoo opens. Received: {published.source!r}, a pickle. Name other weights."
    )


def _fetched(model: str, weights: str, path: Path, terms: str | None) -> Fetched:
    revision = origin_of(path).get("revision")
    return Fetched(model, weights, path, path.stat().st_size, terms, revision, digest(path))
