"""Open whole Keras models: `.keras` files, and `.h5` files of Keras 3 and Keras 2. No code of a file is executed."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from zoo.common.budgets import check_hdf5, check_keras
from zoo.common.errors import BadOption
from zoo.common.lazy import keras

# Layers that hold Python code.
CODE = {"Lambda", "__lambda__"}


def load_model(path: str | os.PathLike[str]) -> Any:
    """Open a whole Keras model without executing code of its file; see `zoo.load_model`."""
    path = Path(path)
    received = f"path={str(path)!r}"
    if path.suffix not in (".keras", ".h5") or not path.is_file():
        raise BadOption(f"path must be an existing .keras or .h5 file. Received: {received}")
    try:
        return load_keras_file(path, received) if path.suffix == ".keras" else _load_h5_model(path, received)
    except BadOption:
        raise
    except (AttributeError, ImportError, KeyError, OSError, RuntimeError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split())[:300]
        raise BadOption(f"path must be a readable Keras model. Received: {received}: {reason}") from error


def load_keras_file(path: Path, received: str) -> Any:
    """Return the model of a `.keras` file, in Keras' safe mode."""
    check_keras(path)
    with warnings.catch_warnings():
        # Keras warns of each layer that does not fit before it raises.
        warnings.simplefilter("ignore", UserWarning)
        model = keras.saving.load_model(path, compile=False, safe_mode=True)
    if not isinstance(model, keras.Model):
        raise BadOption(
            f"Expected the file of a keras.Model. Received: {received}, a {type(model).__name__}. Save a keras.Model."
        )
    return model


def _load_h5_model(path: Path, received: str) -> Any:
    """Return the model of an `.h5` file; depthwise convolutions of Keras 2 state `groups`, which Keras 3 refuses."""
    import h5py

    with h5py.File(path, "r") as file:
        check_hdf5(file, path.stat().st_size)
        config = json.loads(file.attrs.get("model_config", "{}"))
    if not config:
        raise BadOption(f"path must be a whole model. Received: {received}, which has weights alone. Use zoo.get.")
    if CODE & set(_classes(config)):
        raise BadOption(
            f"path must be a model without code. Received: {received}, which has a Lambda layer. Open it with "
            "keras.saving.load_model if you trust its author."
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return keras.saving.load_model(path, {"DepthwiseConv2D": _depthwise()}, compile=False, safe_mode=True)


def _classes(config: Any) -> Iterator[str]:
    """Yield the class names in a configuration, at any depth."""
    if isinstance(config, dict):
        yield str(config.get("class_name", ""))
        config = list(config.values())
    if isinstance(config, list):
        for each in config:
            yield from _classes(each)


def _depthwise() -> type:
    """Return a class that makes Keras' depthwise convolution of a configuration with one group."""

    class DepthwiseConv2D(keras.layers.DepthwiseConv2D):
        """Only its constructor from a configuration is used."""

        @classmethod
        def from_config(cls, config: dict[str, Any]) -> Any:
            """Return Keras' own layer."""
            config = dict(config)
            groups = config.pop("groups", 1)
            if groups != 1:
                raise ValueError(f"DepthwiseConv2D must have 1 group. Received: groups={groups}")
            return keras.layers.DepthwiseConv2D.from_config(config)

    return DepthwiseConv2D
