"""The sizes of a model that its weights file states: the number of classes, and the shape of one input."""

from __future__ import annotations

from collections.abc import Container, Mapping
from pathlib import Path
from typing import Any

from zoo.common.errors import BadOption, RunError
from zoo.reading.arrays import open_safetensors
from zoo.reading.files import reading
from zoo.reading.keras_models import config_of, open_archive, open_h5, read_config
from zoo.specs.info import INFO_KEY
from zoo.specs.registry import Model
from zoo.specs.tasks import task_of
from zoo.weights.h5_files import layers_of
from zoo.weights.transformers_folder import CONFIG, folder_sizes

# Layers that keep the number of logits.
AFTER_LOGITS = ("Activation", "Softmax", "Dropout", "ReLU")
# The kernel of the head, in files of the zoo.
KERNEL = "logits/kernel"


def stated_sizes(entry: Model, path: Path, given: Container[str] = ()) -> dict[str, Any]:
    """Return the "classes" and the "input_shape" of a weights file, where it states another one than the model's spec.

    The file of a whole model states the shape, and its last layer the classes; other files state the classes by the
    shape of the head's kernel. A file that cannot be read states nothing: opening it reports that.

    Args:
        entry: the registered model.
        path: a weights file.
        given: the sizes that the user states.

    Raises:
        BadOption: the model in the file takes inputs of any size, and so does not state for which it was made.
    """
    if len(entry.spec.inputs) != 1 or task_of(entry.spec.task).generates:
        return {}
    try:
        with reading(path):
            found = _from_safetensors(entry, path) if path.suffix == ".safetensors" else _from_keras(path)
    except RunError:
        return {}
    shape = found.get("input_shape")
    if shape and None in shape and "input_shape" not in given:
        raise BadOption(
            f"weights must state the shape of their input. Received: {str(path)!r}, a model of inputs of any size, "
            f"{shape}. Pass input_shape (--set input_shape=[…]), the one that it was trained for."
        )
    classes = None if task_of(entry.spec.task).vectors else entry.spec.classes
    own = {"classes": classes, "input_shape": entry.spec.input_shape}
    return {key: value for key, value in found.items() if value not in (None, own[key])}


def _from_safetensors(entry: Model, path: Path) -> dict[str, Any]:
    """Return the classes by the head's kernel, under the name of the zoo or of another library."""
    with open_safetensors(path) as file:
        shapes = {key: file.get_slice(key).get_shape() for key in file.keys()}  # noqa: SIM118 - it is no mapping
    if (path.parent / CONFIG).is_file() and entry.spec.vocabulary:
        classes, shape = folder_sizes(entry.spec, path.parent)
        return {"classes": classes, "input_shape": shape}
    if KERNEL in shapes:
        return {"classes": shapes[KERNEL][-1]}
    names = (f"{mapping.rename('logits')}.weight" for mapping in entry.name_mappings.values())
    return next(({"classes": shapes[name][0]} for name in names if name in shapes), {})


def _from_keras(path: Path) -> dict[str, Any]:
    """Return what the configuration of a whole model states, or the classes of a file of weights."""
    if path.suffix == ".keras":
        with open_archive(path, whole=False) as archive:
            return _from_config(read_config(archive))
    with open_h5(path) as file:
        if "model_config" in file.attrs:
            return _from_config(config_of(file))
        kernels: list[int] = []

        def visit(_: str, item: Any) -> None:
            if item.attrs.get("name") == "logits" and "0" in item:
                kernels.append(item["0"].shape[-1])

        file.visititems(visit)
        return {"classes": kernels[0]} if kernels else {}


def _from_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the units of the last dense layer, if nothing but an activation follows it, and the shape of the input."""
    layers = list(layers_of(config))
    shapes = (values.get("batch_shape", values.get("batch_input_shape")) for _, _, values in layers)
    shape = next((tuple(shape[1:]) for shape in shapes if shape), None)
    kind, values = next(((kind, values) for _, kind, values in layers[::-1] if kind not in AFTER_LOGITS), ("", {}))
    # Features of a model of the zoo may end in a dense layer too.
    inside = config.get("config")
    named = isinstance(inside, Mapping) and INFO_KEY in inside
    head = kind == "Dense" and (not named or values["name"] == "logits")
    return {"classes": values.get("units") if head else None, "input_shape": shape}
