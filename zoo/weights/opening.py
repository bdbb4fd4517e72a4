"""Open weights for a model: a file, a published name or a keras.Model; `zoo.weights.loading` assigns them.

Nothing here unpickles or executes content of a file.
"""

from __future__ import annotations

import dataclasses
import os
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from zoo.common.errors import BadOption
from zoo.common.lazy import keras
from zoo.specs.registry import Model
from zoo.weights.hub import fetch, fetch_keras
from zoo.weights.keras_models import read_model
from zoo.weights.names import check_weights, is_weights_file, resolve
from zoo.weights.safetensors_file import read_safetensors
from zoo.weights.source import WeightsSource


def open_weights(entry: Model, weights: Any, candidates: Callable[[], Iterable[Any]]) -> WeightsSource:
    """Open weights for a registered model.

    Args:
        entry: the registered model.
        weights: the user's argument, see `zoo.get`.
        candidates: returns keras.Models, in order, that a `.weights.h5` file may fit.

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
        path = fetch(published.source)
        opened = read_safetensors(entry, path, f"weights={name!r} ({path})")
    return dataclasses.replace(opened, published=True, bgr=published.bgr)


def _open_file(entry: Model, path: Path, candidates: Callable[[], Iterable[Any]]) -> WeightsSource:
    """Open a weights file; raise BadOption if it cannot be read."""
    import zipfile  # here, so that `zoo list` starts faster

    received = f"weights={str(path)!r}"
    if path.suffix == ".safetensors":
        return read_safetensors(entry, path, received)
    try:
        model = _load_keras_file(path, received) if path.suffix == ".keras" else _load_h5(path, candidates())
        return read_model(entry, model, received)
    except BadOption:
        raise
    except (ValueError, TypeError, OSError, KeyError, RuntimeError, zipfile.BadZipFile) as error:
        reason = " ".join(str(error).split())[:300]
        raise BadOption(f"weights must fit {entry.spec.name}. Received: {received}: {reason}") from error


def _load_keras_file(path: Path, received: str) -> Any:
    """Return the model of a `.keras` file, in Keras' safe mode."""
    with warnings.catch_warnings():
        # Keras warns of each layer that does not fit before it raises.
        warnings.simplefilter("ignore", UserWarning)
        model = keras.saving.load_model(path, compile=False, safe_mode=True)
    if not isinstance(model, keras.Model):
        raise BadOption(
            f"weights must be those of a model. Received: {received}, a {type(model).__name__}. Save a keras.Model."
        )
    return model


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
