"""Open whole Keras models: `.keras` files, and `.h5` files of Keras 3 and Keras 2. No code of a file is executed."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from zoo.common.errors import BadOption
from zoo.common.lazy import keras
from zoo.reading.files import Refusal, check_regular
from zoo.reading.keras_models import open_model

EXPECTED, ADVICE = "path must be a readable Keras model", "Use another file."


def load_model(path: str | os.PathLike[str]) -> Any:
    """Open a whole Keras model without executing code of its file; see `zoo.load_model`."""
    path = Path(path)
    received = f"path={str(path)!r}"
    if path.suffix not in (".keras", ".h5"):
        raise BadOption(f"path must be an existing .keras or .h5 file. Received: {received}")
    check_regular(path, Refusal("path must be an existing .keras or .h5 file", BadOption, ADVICE, received))
    if path.suffix == ".keras":
        return open_model(path, Refusal(EXPECTED, BadOption, ADVICE, received))
    # Depthwise convolutions of Keras 2 state `groups`, which Keras 3 refuses.
    custom = {"DepthwiseConv2D": _depthwise()}
    return open_model(path, Refusal(EXPECTED, BadOption, "Use zoo.get.", received), custom)


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
