"""Open Keras' files: `.keras`, `.h5` and `.weights.h5`. No code of a file is executed, and damage is found.

Keras reads the weights inside a `.keras` file without their checksum if the checksum is wrong, so that every member is
checked here first.
"""

from __future__ import annotations

import contextlib
import os
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from zoo.common.budgets import check_archive, check_hdf5, check_keras
from zoo.common.footprint import within_stored
from zoo.common.lazy import LazyModule, keras
from zoo.reading.files import PLAIN, Refusal, as_value_error, reading
from zoo.reading.json_files import parse_json

h5py = LazyModule("h5py")

CONFIG, METADATA, WEIGHTS = "config.json", "metadata.json", "model.weights.h5"
# Layers that hold Python code, or open other files.
CODE = {"Lambda", "__lambda__", "TFSMLayer", "TorchModuleWrapper", "JaxLayer", "FlaxLayer"}
# Modules of Keras with functions that layers are made with; others open files or connections.
FUNCTIONS = {
    f"keras.{name}"
    for name in ("activations", "constraints", "initializers", "losses", "metrics", "ops", "random", "regularizers")
}
CONFIG_BYTES, NESTED = 64 << 20, 1000  # models in models have four brackets each
EXPECTED = "Expected a readable model"


def open_model(path: str | os.PathLike[str], refusal: Refusal = PLAIN, custom: Mapping[str, Any] | None = None) -> Any:
    """Return the keras.Model of a `.keras` or `.h5` file, in Keras' safe mode.

    Args:
        path: the file.
        refusal: the error.
        custom: classes by name, for an `.h5` file.

    Raises:
        ZooError: that of `refusal`: the file is damaged, no model, or has layers with code.
    """
    with reading(path, refusal.of_kind(EXPECTED)):
        if Path(path).suffix == ".keras":
            with open_archive(path) as archive:
                check_config(read_config(archive))
            with as_value_error():
                stored = check_keras(Path(path))
        else:
            stored = _check_h5(path)
        with within_stored(stored):
            return _loaded(path, custom)


def _check_h5(path: str | os.PathLike[str]) -> int:
    """Return how many values an `.h5` file has; raise ValueError unless it has a model without code."""
    with h5py.File(path, "r") as file:
        values, config = check_values(file, os.path.getsize(path)), config_of(file)
        if not config:
            raise ValueError("it has weights alone")
        check_config(config)
    return values


def _loaded(path: str | os.PathLike[str], custom: Mapping[str, Any] | None) -> Any:
    with warnings.catch_warnings():
        # Keras warns of each layer that does not fit before it raises.
        warnings.simplefilter("ignore", UserWarning)
        model = keras.saving.load_model(Path(path), custom and dict(custom), compile=False, safe_mode=True)
    if not isinstance(model, keras.Model):
        raise TypeError(f"it has a {type(model).__name__}, no keras.Model")
    return model


def fill_weights(model: Any, path: str | os.PathLike[str], refusal: Refusal = PLAIN) -> None:
    """Load the weights of a `.keras` or `.weights.h5` file into a model; see `open_model` for the arguments.

    Raises:
        ZooError: that of `refusal`: the file is damaged, or has other weights.
    """
    with reading(path, refusal.of_kind(EXPECTED)), warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        if Path(path).suffix == ".keras":
            with open_archive(path), as_value_error():
                check_keras(Path(path))
        else:
            with open_h5(path):
                pass
        model.load_weights(path)


@contextlib.contextmanager
def open_archive(path: str | os.PathLike[str], *, whole: bool = True) -> Iterator[zipfile.ZipFile]:
    """Open a `.keras` file after checking the sizes of its members, and their checksums; raises errors of many classes.

    Args:
        path: the file.
        whole: whether to check the checksums of all members; else only of those that are read.
    """
    with zipfile.ZipFile(path) as archive:
        check_members(archive, os.path.getsize(path))
        damaged = archive.testzip() if whole else None
        if damaged is not None:
            raise ValueError(f"the checksum of {damaged[:100]} is wrong")
        yield archive


def check_members(archive: zipfile.ZipFile, size: int) -> None:
    """Raise ValueError for members that Keras does not write, from their sizes and names alone.

    Args:
        archive: the open file.
        size: its size in bytes.
    """
    sizes = {entry.filename: entry.file_size for entry in archive.infolist()}
    if len(sizes) != len(archive.infolist()):
        raise ValueError("two members have one name")
    with as_value_error():
        check_archive(archive, size)
    if sizes.get(CONFIG, 0) > CONFIG_BYTES:
        raise ValueError(f"its {CONFIG} is larger than {CONFIG_BYTES:,} bytes")
    if CONFIG not in sizes:
        raise ValueError(f"it has no {CONFIG}")


def read_config(archive: zipfile.ZipFile) -> dict[str, Any]:
    """Return the configuration of the model in a `.keras` file; raises ValueError."""
    try:
        return parse_json(archive.read(CONFIG), dict, NESTED)
    except ValueError as error:
        raise ValueError(f"{CONFIG}: {error}") from error


def check_config(config: Any) -> None:
    """Raise ValueError for the configuration of a model with layers that hold code, at any depth."""
    for value in _objects(config):
        kind, module = str(value.get("class_name", "")), str(value.get("module") or "")
        if kind in CODE:
            raise ValueError(f"it has a {kind} layer, which holds code. Open it with Keras if you trust its author")
        if kind == "function" and module.startswith("keras.") and module not in FUNCTIONS:
            raise ValueError(f"it names a function of {module[:100]}, which no layer needs")


def _objects(config: Any) -> Iterator[dict[str, Any]]:
    """Yield the objects in a configuration, at any depth."""
    waiting = [config]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            yield value
            waiting.extend(value.values())
        elif isinstance(value, list):
            waiting.extend(value)


@contextlib.contextmanager
def open_h5(path: str | os.PathLike[str]) -> Iterator[Any]:
    """Open an HDF5 file to read after checking that all of its values are in it; raises errors of many classes."""
    with h5py.File(path, "r") as file:
        check_values(file, os.path.getsize(path))
        yield file


def check_values(file: Any, size: int) -> int:
    """Raise ValueError for links to other files, external and virtual values, and values larger than the file.

    Args:
        file: the open file.
        size: its size in bytes.

    Returns:
        The number of values.
    """
    file.visititems_links(_check_link)
    with as_value_error():
        return check_hdf5(file, size)


def _check_link(name: str, link: Any) -> None:
    if isinstance(link, h5py.ExternalLink):
        raise ValueError(f"{name[:100]} is a link to another file")


def config_of(file: Any) -> dict[str, Any]:
    """Return the configuration of the model in an HDF5 file, {} if it has weights alone; raises ValueError."""
    text = file.attrs.get("model_config", "{}")
    return parse_json(text if isinstance(text, (str, bytes)) else bytes(text), dict, NESTED)
