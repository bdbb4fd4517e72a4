"""HDF5 files of Keras: whole models (`.h5`) and weights (`.weights.h5`), read without building a model."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from zoo.common.errors import BadOption
from zoo.common.lazy import np
from zoo.layers.lazy import saving
from zoo.reading.keras_models import config_of
from zoo.reading.keras_models import open_h5 as open_checked
from zoo.specs.info import ModelInfo
from zoo.weights.keras_models import LayerRecord, Opened

# Variables in the order in which Keras numbers them in a `.weights.h5` file, by the class in its path.
VARIABLES = {
    "conv2d": ("kernel", "bias"),
    "depthwise_conv2d": ("kernel", "bias"),
    "dense": ("kernel", "bias"),
    "batch_normalization": ("gamma", "beta", "moving_mean", "moving_variance"),
    "layer_normalization": ("gamma", "beta"),
    "layer_scale": ("gamma",),
    "normalization": ("mean", "variance", "count"),
}
# Classes that scale pixels.
SCALING = {"rescaling": "Rescaling", "normalization": "Normalization"}
# Names of Keras 2 for variables, which Keras 3 renamed.
RENAMED = {"depthwise_kernel": "kernel"}


def open_h5(path: Path, received: str) -> Opened:
    """Return what an HDF5 file has: records of the layers that it names, and the info of a model of the zoo.

    The name of the model is "" for a `.weights.h5` file, which states none.

    Raises:
        BadOption: the file is neither; h5py raises errors of many classes for a damaged one.
    """
    with open_checked(path) as file:
        if "model_weights" in file or "layer_names" in file.attrs:
            return _whole_model(file, received)
        info = saving.read_h5_info(file)
        return Opened(received, list(_numbered(file)), info=info)


def head_classes(opened: Opened) -> int | None:
    """Return the number of logits in a `.weights.h5` file of the zoo, None if it has no such layer."""
    for record in opened.records:
        if record.name == "logits" and record.arrays:
            return list(record.arrays.values())[-1].shape[-1]
    return None


def _whole_model(file: Any, received: str) -> Opened:
    """Return the layers of a file of `model.save`, or of the weights of Keras 2, by name."""
    config = config_of(file)
    layers = list(layers_of(config))
    weights = _named_arrays(file.get("model_weights", file))
    known = {name for name, _, _ in layers}
    records = [LayerRecord(name, kind, values, weights.get(name, {})) for name, kind, values in layers]
    records += [LayerRecord(name, "", {}, arrays) for name, arrays in weights.items() if name not in known]
    inside = config.get("config", {})
    info = inside.get(saving.INFO_KEY) if isinstance(inside, dict) else None
    name = str(inside.get("name", "model")) if isinstance(inside, dict) else "model"
    return Opened(received, records, name, _size(layers), None if info is None else ModelInfo.from_json(info))


def layers_of(config: Mapping[str, Any]) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    """Yield name, class and configuration of the layers of a model's configuration, those of inner models included."""
    values = config.get("config", {})
    inner = values.get("layers") if isinstance(values, Mapping) else None
    if inner is not None:
        for layer in inner:
            yield from layers_of(layer)
    elif isinstance(values, Mapping) and "name" in values:
        yield str(values["name"]), str(config.get("class_name", "")), values


def _size(layers: Iterable[tuple[str, str, Mapping[str, Any]]]) -> tuple[int, int] | None:
    """Return height and width of the images of the first input layer, None if it has others or any."""
    for _, kind, values in layers:
        if kind == "InputLayer":
            shape = values.get("batch_shape", values.get("batch_input_shape")) or ()
            return tuple(shape[1:3]) if len(shape) == 4 and None not in shape[1:3] else None
    return None


def _named_arrays(group: Any) -> dict[str, dict[str, Any]]:
    """Return the arrays of each layer, by the names of layer and variable; Keras 2 ends names in ":0"."""
    found: dict[str, dict[str, Any]] = {}
    for outer in group:
        for key in group[outer].attrs.get("weight_names", ()):
            path = key.decode() if isinstance(key, bytes) else str(key)
            *parents, variable = path.partition(":")[0].split("/")
            layer = parents[-1] if parents else outer
            found.setdefault(layer, {})[RENAMED.get(variable, variable)] = np.asarray(group[outer][path])
    return found


def _numbered(file: Any) -> Iterator[LayerRecord]:
    """Yield the layers of a `.weights.h5` file that have names, in the order of the file."""
    found = []

    def visit(path: str, item: Any) -> None:
        name = item.attrs.get("name") if path.endswith("vars") else None
        if name is not None:
            kind = path.split("/")[-2] if "/" in path else ""
            found.append((re.sub(r"_\d+$", "", kind), str(name), item))

    file.visititems(visit)
    for kind, name, group in found:
        arrays = [np.asarray(group[key]) for key in sorted(group, key=int)]
        names = VARIABLES.get(kind, ())
        if kind == "batch_normalization" and len(arrays) == 3:
            names = names[1:]  # scale=False
        numbered = (*names, *(str(i) for i in range(len(names), len(arrays))))
        yield LayerRecord(name, SCALING.get(kind, ""), {}, dict(zip(numbered, arrays, strict=False)))


def check_rescaling(opened: Opened) -> None:
    """Raise BadOption if a `.weights.h5` file of another library scales pixels, which it does not describe."""
    scaling = [record.name for record in opened.records if record.kind in SCALING.values()]
    if scaling:
        raise BadOption(
            f"weights must describe their layers. Received: {opened.received}, without the scaling of pixels in "
            f"{scaling[0]}. Save the whole model with model.save('model.keras')."
        )
