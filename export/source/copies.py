"""Copies of a Keras model in float32, in files for another process or in memory; the model itself stays.

A `.keras` file that Keras saves has the optimizer, the loss and the metrics too; these copies have layers and weights.
"""

from __future__ import annotations

import importlib
import importlib.util
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.build import dtype_policy
from zoo.common import compat
from zoo.common.errors import BadOption
from zoo.common.files import write_json
from zoo.common.lazy import keras
from zoo.reading.files import as_value_error, read_bytes
from zoo.reading.json_files import parse_json
from zoo.reading.keras_models import CODE, CONFIG_BYTES, NESTED, check_config, fill_weights

if TYPE_CHECKING:
    import keras as _keras

# Policies and dtypes of reduced precision; artifacts are made from float32.
REDUCED = {"mixed_float16", "mixed_bfloat16", "float16", "bfloat16"}
FULL = "float32"
# Entries of a model's configuration that its functions do not depend on.
TRAINING = ("compile_config",)


def float32_config(model: _keras.Model) -> dict[str, Any]:
    """Return the configuration of a model with every policy and cast of reduced precision replaced by float32."""
    config = keras.saving.serialize_keras_object(model)
    return _in_float32({key: value for key, value in config.items() if key not in TRAINING})


def _in_float32(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _dtype(key, inner) for key, inner in value.items() if key not in TRAINING}
    return list(map(_in_float32, value)) if isinstance(value, (list, tuple)) else value


def _dtype(key: str, value: Any) -> Any:
    """Return an entry of a configuration: the name of a reduced dtype or policy becomes float32."""
    if isinstance(value, str) and value in REDUCED and key in ("dtype", "name"):
        return FULL
    return _in_float32(value)


def is_reduced(model: _keras.Model) -> bool:
    """Return whether a layer of a model computes in reduced precision."""
    return any(layer.dtype_policy.name in REDUCED for layer in compat.flatten_layers(model))


def write_copy(model: _keras.Model, path: Path) -> None:
    """Write the layers of a model, in float32, to a .json file, and its weights next to it.

    Raises:
        BadOption: a layer has no configuration.
    """
    write_json(path, _serialized(model), parents=False)
    model.save_weights(_weights_of(path))
    for layer, folder in _assets(model, path.with_suffix("")):
        folder.mkdir(parents=True)
        layer.save_assets(str(folder))


def read_copy(path: Path) -> _keras.Model:
    """Return the model that `write_copy` wrote; its custom classes are in Keras' scope."""
    config = parse_json(read_bytes(path, CONFIG_BYTES), dict, NESTED)
    with as_value_error():
        check_config(config)
    with dtype_policy(FULL):
        model = keras.saving.deserialize_keras_object(config)
    fill_weights(model, _weights_of(path))
    for layer, folder in _assets(model, path.with_suffix("")):
        layer.load_assets(str(folder))
    return model


def _assets(model: _keras.Model, folder: Path) -> list[tuple[Any, Path]]:
    """Return the layers with state that is no weight, such as a vocabulary, each with a folder for it."""
    found = [layer for layer in compat.flatten_layers(model) if hasattr(layer, "save_assets")]
    return [(layer, folder / str(number)) for number, layer in enumerate(found)]


def _weights_of(path: Path) -> Path:
    return path.with_suffix(".weights.h5")


def _serialized(model: _keras.Model) -> dict[str, Any]:
    try:
        return float32_config(model)
    except (NotImplementedError, TypeError, ValueError, AttributeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise BadOption(
            f"A Keras model must have layers with get_config. Received: {model.name!r}, {reason}. Add get_config to "
            "the layer, as keras.io/guides/serialization_and_saving describes."
        ) from error


def copied(model: _keras.Model, **changes: Any) -> _keras.Model:
    """Return a copy of a model in float32 that shares no weights; its classes need not be importable.

    Args:
        model: any built model.
        changes: new values of options, in all layers that have them.

    Raises:
        BadOption: a layer has no configuration, or Python code as its configuration.
    """
    if holds_code(model):
        raise BadOption(
            f"A model is copied by the configuration of its layers. Received: {model.name!r} with a Lambda layer, "
            "which holds code. Write a layer with get_config."
        )
    custom = {name: kind for kind in custom_classes(model) for name in _names(kind)}
    config = _changed(_serialized(model), changes)
    with dtype_policy(FULL):
        copy = keras.saving.deserialize_keras_object(config, custom_objects=custom)
    if not copy.built:
        copy.build_from_config(model.get_build_config())
    copy.set_weights(model.get_weights())
    with tempfile.TemporaryDirectory() as folder:
        for (layer, place), (other, _) in zip(_assets(model, Path(folder)), _assets(copy, Path(folder)), strict=True):
            place.mkdir()
            layer.save_assets(str(place))
            other.load_assets(str(place))
    return copy


def in_float32(model: _keras.Model) -> _keras.Model:
    """Return a model itself if it computes in float32, or a copy that does; see `copied`."""
    return copied(model) if is_reduced(model) else model


def _changed(value: Any, changes: Mapping[str, Any]) -> Any:
    if isinstance(value, dict):
        return {key: changes.get(key, _changed(inner, changes)) for key, inner in value.items()}
    return [_changed(inner, changes) for inner in value] if isinstance(value, list) else value


def _names(kind: type) -> Iterator[str]:
    yield kind.__name__
    yield keras.saving.get_registered_name(kind)


def custom_classes(model: _keras.Model) -> list[type]:
    """Return the classes of a model and its layers that are not those of Keras or of the zoo."""
    kinds = {type(layer) for layer in compat.flatten_layers(model)}
    return sorted(
        (kind for kind in kinds if _package(kind) not in ("keras", "zoo")), key=lambda kind: kind.__qualname__
    )


def _package(kind: type) -> str:
    return kind.__module__.partition(".")[0]


def importable(kinds: list[type]) -> dict[str, str] | None:
    """Return the addresses "module:Class" of classes by their names; None if another process cannot import one."""
    found = {}
    for kind in kinds:
        name = kind.__module__
        if name == "__main__" or "<locals>" in kind.__qualname__ or importlib.util.find_spec(name) is None:
            return None
        found |= dict.fromkeys(_names(kind), f"{name}:{kind.__qualname__}")
    return found


def holds_code(model: _keras.Model) -> bool:
    """Return whether a layer has Python code as its configuration, which no file may bring."""
    return any(type(layer).__name__ in CODE for layer in compat.flatten_layers(model))


def resolve(addresses: Mapping[str, str]) -> dict[str, Any]:
    """Return classes by name for addresses "module:Class", after importing their modules.

    Raises:
        BadOption: there is no such module or class.
    """
    return {name: _imported(address) for name, address in addresses.items()}


def _imported(address: str) -> Any:
    module, _, path = address.partition(":")
    try:
        found = importlib.import_module(module)
        for name in path.split("."):
            found = getattr(found, name)
    except (ImportError, AttributeError, ValueError) as error:
        raise BadOption(
            f"A custom class must be MODULE:CLASS, which Python can import. Received: {address!r}: {error}. Add its "
            "folder to PYTHONPATH."
        ) from error
    return found
