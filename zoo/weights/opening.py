"""Open weights for a model: a file, a published name or a keras.Model; `zoo.weights.loading` assigns them.

Nothing here unpickles or executes content of a file.
"""

from __future__ import annotations

import dataclasses
import os
import warnings
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from zoo.common.errors import BadOption, DataError
from zoo.common.lazy import keras
from zoo.common.licenses import check_license
from zoo.reading.files import Refusal, reading
from zoo.reading.keras_models import fill_weights, open_model
from zoo.specs.info import ModelInfo
from zoo.specs.labels import class_names
from zoo.specs.published import PublishedWeights
from zoo.specs.registry import Model
from zoo.weights.configs import StoredModel, read_config
from zoo.weights.h5_files import check_rescaling, head_classes, open_h5
from zoo.weights.hub import CARD, CONFIG, fetch, fetch_optional, origin_of
from zoo.weights.keras_hub import fetch_keras
from zoo.weights.keras_models import keras_mapping, read_model, read_records
from zoo.weights.names import (
    check_keras_variant,
    check_made_for,
    check_weights,
    is_weights_file,
    refuse_unknown,
    resolve,
    weights_path,
)
from zoo.weights.references import is_repository
from zoo.weights.repositories import card_license, open_repository
from zoo.weights.safetensors_file import read_safetensors
from zoo.weights.source import WeightsSource

Candidates = Callable[[Mapping[str, Any], "int | None"], Iterable[Any]]


def open_weights(entry: Model, weights: Any, candidates: Candidates, cache_dir: str | None = None) -> WeightsSource:
    """Open weights for a registered model.

    Args:
        entry: the registered model.
        weights: the user's argument, see `zoo.get`.
        candidates: returns keras.Models, in order, that a `.weights.h5` file may fit, for the options that the file
            states and its number of classes, None if it has no such layer.
        cache_dir: cache of the hub's client; its own by default.

    Raises:
        BadOption: neither a name nor a readable file, the model has no such weights, or their license needs an
            acceptance.
        DataError: the weights cannot be downloaded.
    """
    source = _opened(entry, weights, candidates, cache_dir)
    check_license(source.info.license if source.info else None, source.received)
    return source


def _opened(entry: Model, weights: Any, candidates: Candidates, cache_dir: str | None) -> WeightsSource:
    """Open weights of any kind."""
    if isinstance(weights, (str, os.PathLike)):
        text = os.fspath(weights)
        check_weights(entry, text)
        if is_weights_file(text):
            return _open_file(entry, weights_path(text), candidates)
        return (open_repository if is_repository(text) else _open_name)(entry, text, cache_dir)
    if not isinstance(weights, keras.Model):
        raise BadOption(f"weights must be a path, a name or a keras.Model. Received: weights={weights!r}")
    return read_model(entry, weights, f"weights=<{weights.name}>")


def _open_name(entry: Model, name: str, cache_dir: str | None) -> WeightsSource:
    """Open published weights, downloaded if needed."""
    published = resolve(entry, name)
    library = published.source.partition("/")[0]
    if library == "torchvision":
        raise BadOption(
            f"{published.source} is published as a pickle only, which the zoo never opens. Received: weights={name!r}. "
            "With torchvision installed, write a safetensors file: "
            "safetensors.torch.save_file(model.state_dict(), 'x.safetensors'), and pass weights='x.safetensors'."
        )
    check_license(published.license, f"weights={name!r}")
    stored = StoredModel(ModelInfo(entry.spec.name, **_facts(published)))
    if library == "keras":
        opened = read_model(entry, fetch_keras(published, cache_dir), f"weights={name!r}")
    else:
        repository = f"{published.source}@{published.revision}" if published.revision else published.source
        path = fetch(repository, published.sha256 or "", cache_dir=cache_dir)
        opened = read_safetensors(entry, path, f"weights={name!r} ({path})")
        if published.preprocessing is None:
            stored = _stated_by_hub(stored, repository, cache_dir)
        stored = dataclasses.replace(stored, info=dataclasses.replace(stored.info, **origin_of(path)))
    options = opened.info.options if opened.info else {}
    return dataclasses.replace(
        opened,
        published=True,
        bgr=published.bgr,
        info=dataclasses.replace(stored.info, options=options, rescaling=opened.info and opened.info.rescaling),
        classes=stored.classes,
    )


def _stated_by_hub(known: StoredModel, repository: str, cache_dir: str | None) -> StoredModel:
    """Return what the hub's config and card say of weights that the tables do not have; as before if it has neither."""
    try:
        config, card = (fetch_optional(repository, file, cache_dir) for file in (CONFIG, CARD))
    except DataError as error:
        # The weights are here, and what is not known of them can be stated.
        warnings.warn(f"The preprocessing and license of {repository} are not known. {error}", stacklevel=2)
        return known
    stored = read_config(config, f"weights={repository!r}") if config else known
    terms = stored.info.license or card_license(card)
    name, origin = known.info.name, known.info.origin
    return dataclasses.replace(stored, info=dataclasses.replace(stored.info, name=name, origin=origin, license=terms))


def _facts(published: PublishedWeights) -> dict[str, Any]:
    """Return what is known of published weights, as fields of an info; a loaded model takes RGB."""
    config = published.preprocessing
    return {
        "preprocessing": config and dataclasses.replace(config, channel_order="rgb"),
        "input_size": (published.size, published.size) if config else None,
        "labels": class_names(published.labels),
        "labels_origin": published.labels,
        "license": published.license,
        "origin": published.source,
        "revision": published.revision,
        "sha256": published.sha256,
    }


def _open_file(entry: Model, path: Path, candidates: Candidates) -> WeightsSource:
    """Open a weights file; raise BadOption if it cannot be read."""
    received = f"weights={str(path)!r}"
    if path.suffix == ".safetensors":
        return read_safetensors(entry, path, received)
    refusal = _refusal(entry, received)
    with reading(path, refusal):
        if path.suffix == ".keras":
            return read_model(entry, open_model(path, refusal), received)
        return _read_h5(entry, path, received, candidates)


def _refusal(entry: Model, received: str) -> Refusal:
    """Return what is said of a file that cannot be read."""
    return Refusal(f"weights must fit {entry.spec.name}", BadOption, "Use another file.", received)


def _read_h5(entry: Model, path: Path, received: str, candidates: Candidates) -> WeightsSource:
    """Return the weights of an HDF5 file: of a whole model, or of a `.weights.h5` file."""
    opened = open_h5(path, received)
    modules = {record.name for record in opened.records if record.arrays}
    mapping = keras_mapping(entry, modules) if opened.info is None else None
    if opened.name:
        if opened.info is None and mapping is None and not _are_ours(modules, candidates):
            check_keras_variant(entry, modules, received)
            refuse_unknown(entry, received, opened.name)
        return read_records(entry, opened)
    if mapping is not None:
        check_rescaling(opened)
        return read_records(entry, opened)
    if opened.info is not None:
        check_made_for(entry, opened.info.name, received)
    options = opened.info.options if opened.info else {}
    model = _load_h5(entry, path, received, candidates(options, head_classes(opened)))
    return dataclasses.replace(read_model(entry, model, received), info=opened.info)


def _are_ours(modules: set[str], candidates: Candidates) -> bool:
    """Return whether most layers with weights have the names of the model's own."""
    ours = {layer.name for layer in next(iter(candidates({}, None))).layers}
    return 2 * len(modules & ours) > len(modules)


def _load_h5(entry: Model, path: Path, received: str, candidates: Iterable[Any]) -> Any:
    """Return the first candidate that a `.weights.h5` file fits; raise the error of the first one if none does."""
    first = None
    for model in candidates:
        try:
            fill_weights(model, path, _refusal(entry, received))
        except BadOption as error:
            first = first or error
        else:
            return model
    raise first
