"""Weights from wherever they are, opened as arrays under the names of their library; `zoo.weights.loading` puts them into place.

Nothing here unpickles or executes what comes from a file.
"""

from __future__ import annotations

import dataclasses
import importlib
import os
import re
import warnings
import zipfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from zoo.common.errors import BadOption, did_you_mean
from zoo.common.lazy import keras, np
from zoo.specs.published import NameMapping, Weights
from zoo.specs.registry import Model, models
from zoo.weights.hub import fetch, fetch_keras

SUFFIXES = (".keras", ".h5", ".safetensors")
# Files of ours name a layer as the network does.
OURS = NameMapping(rules=((r"(.*)", "{0}"),), ignored=(r"auxiliary.*",))
FORMAT = {"format": "keras-zoo"}


@dataclasses.dataclass(frozen=True)
class Source:
    """Opened weights.

    Args:
        origin: what the user gave, for messages.
        arrays: values by their key, "layer/variable" of Keras or "module.parameter" of PyTorch.
        layout: how their layers are called.
        library: whose keys and shapes they are: "ours", "keras" or "torch".
        named: published weights, which may leave a new head random.
        bgr: the first convolution takes blue first and is to be turned round.
        front: layers that they want before the network, or None.
        grids: rows and columns of patches that the tables of positions are for, by layer; squares by default.
    """

    origin: str
    arrays: Mapping[str, Any]
    layout: NameMapping = OURS
    library: str = "ours"
    named: bool = False
    bgr: bool = False
    front: Callable[[Any], Any] | None = None
    grids: Mapping[str, tuple[int, int]] = dataclasses.field(default_factory=dict)


def open_weights(model: Model, weights: Any, like: Callable[[], Iterable[Any]]) -> Source:
    """Open weights for a model.

    Args:
        model: the registered model.
        weights: what the user gave, see `zoo.get`.
        like: gives networks, one after the other, that a `.weights.h5` file may fit.

    Raises:
        BadOption: neither a name nor a readable file, or the model has no such weights.
        DataError: they cannot be downloaded.
    """
    if not isinstance(weights, (str, os.PathLike)):
        if not isinstance(weights, keras.Model):
            raise BadOption(f"weights must be a path, a name or a keras.Model. Received: weights={weights!r}")
        return _from_network(model, weights, f"weights=<{weights.name}>")
    text = os.fspath(weights)
    check_weights(model, text)
    return _from_file(model, Path(text), like) if _is_file(text) else _from_name(model, text)


def check_weights(model: Model, text: str) -> None:
    """Raise BadOption for weights that are neither a file nor a name that the model has; nothing is opened."""
    if _is_file(text):
        return
    if text not in ("imagenet", "keras") and not text.startswith(("timm/", "keras/", "torchvision/")):
        raise BadOption(
            f"weights must be 'imagenet', 'keras', 'timm/<model>.<tag>' or the path of an existing file "
            f"({', '.join(SUFFIXES)}). Received: weights={text!r}"
        )
    _entry(model, text)


def _is_file(text: str) -> bool:
    """Tell whether a text is the path of a file that may hold weights."""
    try:
        return text.endswith(SUFFIXES) and Path(text).is_file()
    except (OSError, ValueError):  # too long for a name, or not one
        return False


def _from_name(model: Model, name: str) -> Source:
    """Open published weights."""
    entry = _entry(model, name)
    library = entry.source.partition("/")[0]
    if library == "torchvision":
        raise BadOption(
            f"{entry.source} is published as a pickle only, which is never opened here. Received: weights={name!r}. "
            "With torchvision installed, safetensors.torch.save_file(model.state_dict(), 'x.safetensors') makes a file "
            "for weights='x.safetensors'."
        )
    if library == "keras":
        opened = _from_network(model, fetch_keras(entry.source.partition("/")[2]), f"weights={name!r}")
    else:
        path = fetch(entry.source)
        opened = _from_safetensors(model, path, f"weights={name!r} ({path})")
    return dataclasses.replace(opened, named=True, bgr=entry.bgr)


def _entry(model: Model, name: str) -> Weights:
    """Return the published weights of a name, or raise BadOption."""
    known = model.spec.weights
    if name == "imagenet":
        found = list(known[:1])
    elif name == "keras":
        found = [entry for entry in known if entry.source.startswith("keras/")]
    else:
        found = [entry for entry in known if entry.source == name]
        if not found and name.startswith("timm/") and set(model.name_mappings) - {"keras"}:
            found = [Weights(name, 0.0)]
    if not found:
        hint = did_you_mean(name, [entry.source for entry in known]) if known else "None are published for it."
        raise BadOption(f"{model.spec.name} has no such weights. Received: weights={name!r}. {hint}")
    return found[0]


def _from_file(model: Model, path: Path, like: Callable[[], Iterable[Any]]) -> Source:
    """Open a file; one that cannot be read is the user's to mend."""
    origin = f"weights={str(path)!r}"
    if path.suffix == ".safetensors":
        return _from_safetensors(model, path, origin)
    try:
        with warnings.catch_warnings():
            # Keras warns of each layer that differs before it raises.
            warnings.simplefilter("ignore", UserWarning)
            if path.suffix != ".keras":
                return _from_network(model, _filled(path, like()), origin)
            # What registers the layers that the file may hold.
            importlib.import_module("zoo.layers.sequence")
            loaded = keras.saving.load_model(path, compile=False, safe_mode=True)
        if not isinstance(loaded, keras.Model):
            raise BadOption(f"weights must be those of a model. Received: {origin}, a {type(loaded).__name__}")
        return _from_network(model, loaded, origin)
    except (ValueError, TypeError, OSError, KeyError, RuntimeError, zipfile.BadZipFile) as error:
        if isinstance(error, BadOption):
            raise
        reason = " ".join(str(error).split())[:300]
        raise BadOption(f"weights must fit {model.spec.name}. Received: {origin}: {reason}") from error


def _filled(path: Path, networks: Iterable[Any]) -> Any:
    """Return the first network that a `.weights.h5` file fits; raises what Keras says of the first one."""
    first = None
    for network in networks:
        try:
            network.load_weights(path)
        except (ValueError, KeyError, RuntimeError) as error:
            first = first or error
        else:
            return network
    raise first


def _from_safetensors(model: Model, path: Path, origin: str) -> Source:
    """Open a safetensors file in our layout or in one of PyTorch's."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "np") as file:
            keys, metadata = list(file.keys()), file.metadata() or {}
            arrays = {key: _plain(file.get_tensor(key)) for key in keys}
    except (SafetensorError, OSError, ValueError, TypeError) as error:
        raise BadOption(f"weights must be a safetensors file that can be read. Received: {origin}: {error}") from error
    if metadata.get("format") == FORMAT["format"] or any("/" in key for key in keys):
        _check_model(model, metadata.get("model", model.spec.name), origin)
        grids = re.findall(r"(\w+)=(\d+)x(\d+)", metadata.get("grids", ""))
        return Source(origin, arrays, grids={layer: (int(rows), int(columns)) for layer, rows, columns in grids})
    libraries = {name: layout for name, layout in model.name_mappings.items() if name != "keras"}
    if not libraries:
        raise BadOption(f"{model.spec.name} knows no files of timm or torchvision. Received: {origin}")
    modules = {key.rpartition(".")[0] for key in keys}
    layout = max(libraries.values(), key=lambda layout: layout.coverage(modules))
    return Source(origin, arrays, layout, "torch")


def _check_model(model: Model, name: str, origin: str) -> None:
    """Raise BadOption for weights of another registered model, which may fit by name and shape all the same."""
    if name != model.spec.name and name in models:
        raise BadOption(f"weights must fit {model.spec.name}. Received: {origin}, which were made for {name}")


def _plain(array: Any) -> Any:
    """Return an array of numbers in float32, whatever float the file has."""
    return array if array.dtype.kind in "iub" or array.dtype == "float64" else array.astype("float32")


def _from_network(model: Model, network: Any, origin: str) -> Source:
    """Take the weights of a network of keras.applications or of this zoo."""
    found = list(_flat(network))
    names = _renumbered([layer.name for layer in found])
    arrays = {
        f"{name}/{_variable(variable.name)}": keras.ops.convert_to_numpy(variable)
        for name, layer in zip(names, found, strict=True)
        for variable in layer.weights
    }
    layout = model.name_mappings.get("keras")
    modules = {key.rpartition("/")[0] for key in arrays}
    if layout is None or layout.coverage(modules) < 0.5:
        _check_keras(model, modules, origin)
        _check_model(model, network.name, origin)
        arrays = {f"{n.name}/{v.name}": keras.ops.convert_to_numpy(v) for n in found for v in n.weights}
        return Source(origin, arrays, grids=_grids(found))
    return Source(origin, arrays, layout, "keras", front=_front(found))


def _grids(found: Iterable[Any]) -> dict[str, tuple[int, int]]:
    """Return the grids of patches of the layers that have one."""
    return {layer.name: layer.grid for layer in found if getattr(layer, "grid", None)}


def write_weights(network: Any, path: Path) -> None:
    """Write the weights of a network as safetensors in our layout; see `zoo.save_weights`."""
    from safetensors.numpy import save

    arrays = {
        f"{layer.name}/{v.name}": keras.ops.convert_to_numpy(v) for layer in network.layers for v in layer.weights
    }
    if path.suffix != ".safetensors":
        raise BadOption(f"path must end in .safetensors. Received: path={str(path)!r}")
    if not path.parent.is_dir():
        raise BadOption(f"path must lie in an existing folder. Received: path={str(path)!r}")
    hidden = path.with_name(f".{path.name}.writing")
    try:
        grids = (f"{layer}={rows}x{columns}" for layer, (rows, columns) in _grids(network.layers).items())
        metadata = FORMAT | {"model": network.name, "grids": " ".join(grids)}
        hidden.write_bytes(save(arrays, metadata=metadata))
        hidden.replace(path)
    finally:
        hidden.unlink(missing_ok=True)


def _check_keras(model: Model, modules: set[str], origin: str) -> None:
    """Raise BadOption for a network of keras.applications that is another variant of this family."""
    family = [name for name in models.names() if models[name].spec.family == model.spec.family]
    keras_layouts = {
        name: models[name].name_mappings["keras"] for name in family if "keras" in models[name].name_mappings
    }
    twins = [name for name, layout in keras_layouts.items() if layout.coverage(modules) > 0.9]
    if twins:
        raise BadOption(
            f"weights must fit {model.spec.name}. Received: {origin}, a network of keras.applications, which is built "
            f"otherwise. {did_you_mean(model.spec.name, twins)}"
        )


def _variable(name: str) -> str:
    """Return the name of a variable; the one that Keras leaves without is the scale of a LayerScale."""
    return "gamma" if re.fullmatch(r"variable(_\d+)?", name) else name


def _flat(network: Any) -> Iterable[Any]:
    """Yield the layers of a network and of the networks inside it."""
    for layer in network.layers:
        if hasattr(layer, "layers"):
            yield from _flat(layer)
        else:
            yield layer


def _renumbered(names: list[str]) -> list[str]:
    """Return automatic names (conv2d_94) counted from 0 in the order of their making, others as they are."""
    automatic = re.compile(r"(conv2d|batch_normalization|dense|normalization)(?:_(\d+))?")
    numbers: dict[str, list[int]] = {}
    for match in filter(None, map(automatic.fullmatch, names)):
        numbers.setdefault(match[1], []).append(int(match[2] or 0))
    order = {kind: sorted(found) for kind, found in numbers.items()}

    def renamed(name: str) -> str:
        match = automatic.fullmatch(name)
        return f"{match[1]}_{order[match[1]].index(int(match[2] or 0))}" if match else name

    return list(map(renamed, names))


def _front(found: list[Any]) -> Callable[[Any], Any] | None:
    """Return what the layers that scale pixels inside a network do before it, as one layer; None if there are none."""
    scale, offset = np.ones(1), np.zeros(1)
    scaling = [layer for layer in found if isinstance(layer, (keras.layers.Rescaling, keras.layers.Normalization))]
    for layer in scaling:
        factor, shift = _affine(layer)
        scale, offset = scale * factor, offset * factor + shift
    if not scaling:
        return None

    def front(x: Any) -> Any:
        # Other than three channels were not there when the figures were taken: their average is the nearest.
        fits = scale.size in (1, x.shape[-1])
        factor, shift = (scale, offset) if fits else (scale.mean(keepdims=True), offset.mean(keepdims=True))
        values = [v.tolist() if v.size > 1 else v.item() for v in (factor, shift)]
        return keras.layers.Rescaling(*values, name="rescaling", dtype="float32")(x)

    return front


def _affine(layer: Any) -> tuple[Any, Any]:
    """Return (factor, shift) of a Rescaling or Normalization layer, by channel or for all."""
    if isinstance(layer, keras.layers.Rescaling):
        return np.asarray(layer.scale, "float64").reshape(-1), np.asarray(layer.offset, "float64").reshape(-1)
    mean, variance = (np.asarray(v, "float64").reshape(-1) for v in (layer.mean, layer.variance))
    deviation = np.maximum(np.sqrt(variance), keras.config.epsilon())
    return 1.0 / deviation, -mean / deviation
