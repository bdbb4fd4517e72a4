"""Open weights of a repository of the hub, or of a local folder with the same files."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Any

from zoo.common.errors import BadOption, DataError
from zoo.common.lazy import hub
from zoo.common.licenses import check_license
from zoo.specs.info import ModelInfo
from zoo.specs.registry import Model, models
from zoo.weights.configs import StoredModel, read_config
from zoo.weights.hub import CARD, CONFIG, FILE, check_sha256, fetch, fetch_optional, origin_of
from zoo.weights.names import check_made_for
from zoo.weights.references import is_address, is_repository, is_transformers_folder, parse_address, split_tag
from zoo.weights.safetensors_file import read_safetensors
from zoo.weights.source import WeightsSource
from zoo.weights.transformers_folder import FILES, module_folders


def locate(model: str | os.PathLike[str], weights: Any, cache_dir: str | None = None) -> tuple[str, Any]:
    """Return the registered name of a model, and its weights.

    Args:
        model: a registered name; or one that has its weights: "hf://user/repository", the path of a local folder with
            the same files, or timm's "model.tag".
        weights: the user's argument.
        cache_dir: cache of the hub's client.

    Raises:
        BadOption: both state weights.
        DataError: the repository cannot be read.
    """
    model = os.fspath(model) if isinstance(model, os.PathLike) else model
    if not isinstance(model, str) or model in models:
        return model, weights
    found = split_tag(model)
    if found is None and (is_repository(model) or is_transformers_folder(Path(model))):
        found = stored_model(model, cache_dir).info.name, model
    if found is None:
        return model, weights  # the registry names the nearest model
    if weights is not None:
        raise BadOption(
            f"{model} names its own weights. Received: weights={weights!r}. Leave them out, or pass model={found[0]!r}."
        )
    return found


def open_repository(entry: Model, text: str, cache_dir: str | None = None) -> WeightsSource:
    """Open the weights of a repository or a local folder for a registered model.

    Raises:
        BadOption: they are those of another model, or their license needs an acceptance.
        DataError: a file cannot be downloaded, is damaged, or is missing.
    """
    stored, received = stored_model(text, cache_dir), f"weights={text!r}"
    if not stored.transformers:  # whose architecture any model of its kind may have
        check_made_for(entry, stored.info.name, received)
    path, _ = fetch_repository(text, cache_dir)
    opened = read_safetensors(entry, path, f"{received} ({path})")
    origin = {"origin": text} if is_address(text) else {}
    if stored.transformers:
        info = dataclasses.replace(opened.info, license=stored.info.license, **origin, **origin_of(path))
        return dataclasses.replace(opened, published=True, info=info)
    options = opened.info.options if opened.info else stored.info.options
    info = dataclasses.replace(stored.info, options=options, **origin, **origin_of(path))
    return dataclasses.replace(
        opened, published=True, info=info, classes=stored.classes, input_shape=stored.input_shape
    )


def fetch_repository(text: str, cache_dir: str | None = None) -> tuple[Path, ModelInfo]:
    """Return the weights file of a repository or a local folder, downloaded and checked, and what is stated of it.

    Raises:
        BadOption: the license needs an acceptance; the file is not downloaded then.
        DataError: a file cannot be downloaded, is damaged, or is missing.
    """
    stored, received = stored_model(text, cache_dir), f"weights={text!r}"
    check_license(stored.info.license, received)
    path = _file(text, FILE, cache_dir)
    if stored.transformers and is_address(text):
        _fetch_beside(text, path, cache_dir)
    check_sha256(path, stored.sha256, received, "Its config.json states it: download both again.")
    return path, stored.info


def _fetch_beside(text: str, path: Path, cache_dir: str | None) -> None:
    """Download the files of transformers into the folder of the weights.

    Raises:
        DataError: a file cannot be downloaded, or the weights lie alone.
    """
    for name in FILES:
        _optional(text, name, cache_dir)
    if not (path.parent / CONFIG).is_file():
        raise DataError(
            f"Weights of transformers must be in a folder with their {CONFIG} and tokenizer. Received: {path} for "
            f"{text!r}. Pass the path of such a folder."
        )
    for folder in module_folders(path.parent):
        _optional(text, f"{folder}/{CONFIG}", cache_dir)


def stored_model(text: str, cache_dir: str | None = None) -> StoredModel:
    """Return what the files of a repository or a local folder state about its model, its license included."""
    stored = read_config(_file(text, CONFIG, cache_dir), f"model={text!r}")
    if stored.info.license:
        return stored
    return dataclasses.replace(
        stored, info=dataclasses.replace(stored.info, license=card_license(_optional(text, CARD, cache_dir)))
    )


def card_license(card: Path | None) -> str | None:
    """Return the license in the metadata of a model card; None if there is none.

    Raises:
        DataError: the metadata cannot be read.
    """
    if card is None:
        return None
    try:
        metadata = hub.metadata_load(card) or {}
    except Exception as error:  # The parser has errors of its own.
        reason = " ".join(str(error).split())[:200]
        raise DataError(f"A model card must have readable metadata. Received: {card}: {reason}") from error
    # "other" is explained by a name.
    stated = [metadata.get(key) for key in ("license", "license_name")]
    known = [str(value) for value in stated if value]
    return known[-1] if known[:1] == ["other"] else (known or [None])[0]


def _file(text: str, name: str, cache_dir: str | None) -> Path:
    """Return a file of a repository or a local folder."""
    if is_address(text):
        return fetch(parse_address(text).source, file=name, cache_dir=cache_dir)
    path = Path(text) / name
    if not path.is_file():
        raise DataError(f"A folder of weights must hold {name}. Received: {text!r}, which does not.")
    return path


def _optional(text: str, name: str, cache_dir: str | None) -> Path | None:
    """Return a file of a repository or a local folder, None if there is none."""
    if is_address(text):
        return fetch_optional(parse_address(text).source, name, cache_dir)
    path = Path(text) / name
    return path if path.is_file() else None
