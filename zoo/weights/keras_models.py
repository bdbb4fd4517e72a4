"""Weights of a keras.Model: one of keras.applications, or one of the zoo."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any

from zoo.common.lazy import keras, np
from zoo.specs.registry import Model
from zoo.weights.names import check_keras_variant, check_made_for
from zoo.weights.source import WeightsSource

# Layers that keras.applications leaves to Keras' automatic names, such as conv2d_94.
AUTOMATIC_NAME = re.compile(r"(conv2d|batch_normalization|dense|normalization)(?:_(\d+))?")


def read_model(entry: Model, model: Any, received: str) -> WeightsSource:
    """Return the weights of a keras.Model, with the names of keras.applications if most of its layers have them.

    Raises:
        BadOption: it is another variant of keras.applications, or another model of the zoo.
    """
    layers = list(_flatten(model))
    arrays = _arrays(_renumber([layer.name for layer in layers]), layers, _variable_name)
    modules = {key.rpartition("/")[0] for key in arrays}
    name_mapping = entry.name_mappings.get("keras")
    if name_mapping is None or name_mapping.coverage(modules) < 0.5:
        check_keras_variant(entry, modules, received)
        check_made_for(entry, model.name, received)
        arrays = _arrays([layer.name for layer in layers], layers, str)
        return WeightsSource(received, arrays, grids=patch_grids(layers))
    return WeightsSource(received, arrays, name_mapping, "keras", preprocess=_preprocess(layers))


def patch_grids(layers: Iterable[Any]) -> dict[str, tuple[int, int]]:
    """Return rows and columns of patches of each layer that has a grid, by its name."""
    return {layer.name: layer.grid for layer in layers if getattr(layer, "grid", None)}


def _arrays(names: list[str], layers: list[Any], variable_name: Callable[[str], str]) -> dict[str, Any]:
    """Return the values of all variables by "layer/variable"."""
    return {
        f"{name}/{variable_name(variable.name)}": keras.ops.convert_to_numpy(variable)
        for name, layer in zip(names, layers, strict=True)
        for variable in layer.weights
    }


def _variable_name(name: str) -> str:
    """Return the name of a variable; the only one that Keras does not name is the scale of its LayerScale."""
    return "gamma" if re.fullmatch(r"variable(_\d+)?", name) else name


def _flatten(model: Any) -> Iterable[Any]:
    """Yield the layers of a model and of the models inside it."""
    for layer in model.layers:
        if hasattr(layer, "layers"):
            yield from _flatten(layer)
        else:
            yield layer


def _renumber(names: list[str]) -> list[str]:
    """Return automatic names numbered from 0 in the order of creation, and other names unchanged."""
    numbers: dict[str, list[int]] = {}
    for match in filter(None, map(AUTOMATIC_NAME.fullmatch, names)):
        numbers.setdefault(match[1], []).append(int(match[2] or 0))
    order = {kind: sorted(values) for kind, values in numbers.items()}

    def renumbered(name: str) -> str:
        match = AUTOMATIC_NAME.fullmatch(name)
        return f"{match[1]}_{order[match[1]].index(int(match[2] or 0))}" if match else name

    return list(map(renumbered, names))


def _preprocess(layers: list[Any]) -> Callable[[Any], Any] | None:
    """Return the pixel scaling inside a model as one Rescaling layer; None if there is none."""
    scaling = [layer for layer in layers if isinstance(layer, (keras.layers.Rescaling, keras.layers.Normalization))]
    if not scaling:
        return None
    scale, offset = np.ones(1), np.zeros(1)
    for layer in scaling:
        factor, shift = _affine(layer)
        scale, offset = scale * factor, offset * factor + shift

    def preprocess(x: Any) -> Any:
        # Statistics exist for three channels; other numbers of channels take their average.
        fits = scale.size in (1, x.shape[-1])
        factor, shift = (scale, offset) if fits else (scale.mean(keepdims=True), offset.mean(keepdims=True))
        values = [v.tolist() if v.size > 1 else v.item() for v in (factor, shift)]
        return keras.layers.Rescaling(*values, name="rescaling", dtype="float32")(x)

    return preprocess


def _affine(layer: Any) -> tuple[Any, Any]:
    """Return (factor, shift) of a Rescaling or Normalization layer, by channel or for all."""
    if isinstance(layer, keras.layers.Rescaling):
        return np.asarray(layer.scale, "float64").reshape(-1), np.asarray(layer.offset, "float64").reshape(-1)
    mean, variance = (np.asarray(v, "float64").reshape(-1) for v in (layer.mean, layer.variance))
    deviation = np.maximum(np.sqrt(variance), keras.config.epsilon())
    return 1.0 / deviation, -mean / deviation
