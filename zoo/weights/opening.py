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

from zoo.common.errors import BadOption
from zoo.common.lazy import keras
from zoo.specs.info import ModelInfo
from zoo.specs.published import PublishedWeights
from zoo.specs.registry import Model
from zoo.weights.h5_files import check_rescaling, head_classes, open_h5
from zoo.weights.hub import fetch, fetch_keras
from zoo.weights.keras_files import load_keras_file
from zoo.weights.keras_models import keras_mapping, read_model, read_records
from zoo.weights.names import (
    check_keras_variant,
    check_made_for,
    check_weights,
    is_weights_file,
    refuse_unknown,
    resolve,
)
from zoo.weights.safetensors_file import read_safetensors
from zoo.weights.source import WeightsSource

Candidates = Callable[[Mapping[str, Any], "int | None"], Iterable[Any]]


def open_weights(entry: Model, weights: Any, candidates: Candidates) -> WeightsSource:
    """Open weights for a registered model.

    Args:
        entry: the registered model.
        weights: the user's argument, see `zoo.get`.
        candidates: returns keras.Models, in order, that a `.weights.h5` file may fit, for the options that the file
            states and its number of classes, None if it has no such layer.

    Raises:
        BadOption: neither a name nor a readable file, or the model has no such weights.
        DataError: the weights cannot be downloaded.
    """
    if isinstance(weights, (str, os.PathLike)):
        text = os.fspath(weights)
        check_weights(entry, text)
        return _open_file(entry, Path(text), candidates) if is_weights_file(text) else _open_name(entry, text)
    if not isinstance(weights, keras.Model):
        raise BadOption(f"weights must be a path, a name or a keras.Model. Received: weights={weights!r}")
    return read_model(entry, weights, f"weights=<{weights.name}>")


def _open_name(entry: Model, name: str) -> WeightsSource:
    """Open published weights, downloaded if needed."""
    published = resolve(entry, name)
    library, _, source = published.source.partition("/")
    if library == "torchvision":
        raise BadOption(
            f"{published.source} is published as a pickle only, which the zoo never opens. Received: weights={name!r}. "
            "With torchvision installed, write a safetensors file: "
            "safetensors.torch.save_file(model.state_dict(), 'x.safetensors'), and pass weights='x.safetensors'."
        )
    if library == "keras":
        opened = read_model(entry, fetch_keras(source), f"weights={name!r}")
    else:
        at = f"@{published.revision}" if published.revision else ""
        path = fetch(published.source + at, published.sha256 or "")
        opened = read_safetensors(entry, path, f"weights={name!r} ({path})")
    info = opened.info or ModelInfo(entry.spec.name)
    return dataclasses.replace(
        opened, published=True, bgr=published.bgr, info=dataclasses.replace(info, **_facts(published))
    )


def _facts(published: PublishedWeights) -> dict[str, Any]:
    """Return what is known of published weights, as fields of an info; a loaded model takes RGB."""
    config = published.preprocessing
    return {
        "preprocessing": config and dataclasses.replace(config, channel_order="rgb"),
        "input_size": (published.size, published.size) if config else None,
        "labels_origin": published.labels,
        "license": published.license,
        "origin": published.source,
        "revision": published.revision,
        "sha256": published.sha256,
    }


def _open_file(entry: Model, path: Path, candidates: Candidates) -> WeightsSource:
    """Open a weights file; raise BadOption if it cannot be read."""
    import zipfile  # here, so that `zoo list` starts faster

    received = f"weights={str(path)!r}"
    if path.suffix == ".safetensors":
        return read_safetensors(entry, path, received)
    try:
        if path.suffix == ".keras":
            return read_model(entry, load_keras_file(path, received), received)
        return _read_h5(entry, path, received, candidates)
    except BadOption:
        raise
    except (ValueError, TypeError, OSError, KeyError, RuntimeError, zipfile.BadZipFile) as error:
        reason = " ".join(str(error).split())[:300]
        raise BadOption(f"weights must fit {entry.spec.name}. Received: {received}: {reason}") from error


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
    model = _load_h5(path, candidates(options, head_classes(opened)))
    return dataclasses.replace(read_model(entry, model, received), info=opened.info)


def _are_ours(modules: set[str], candidates: Candidates) -> bool:
    """Return whether most layers with weights have the names of the model's own."""
    ours = {layer.name for layer in next(iter(candidates({}, None))).layers}
    return 2 * len(modules & ours) > len(modules)


def _load_h5(path: Path, candidates: Iterable[Any]) -> Any:
    """Return the first candidate that a `.weights.h5` file fits; raise Keras' error for the first one if none does."""
    first = None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        for model in candidates:
            try:
                model.load_weights(path)
            except (ValueError, KeyError, RuntimeError) as error:
                first = first or error
            else:
                return model
    raise first
