"""Weights of a keras.Model or of its file: a model of keras.applications, with any head, or one of the zoo."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Mapping
from typing import Any

from zoo.common import compat
from zoo.common.lazy import keras, np
from zoo.layers.lazy import saving
from zoo.specs.info import ModelInfo
from zoo.specs.preprocessing import PreprocessingConfig
from zoo.specs.published import NameMapping, PublishedWeights
from zoo.specs.registry import Model
from zoo.weights.names import check_keras_variant, check_made_for
from zoo.weights.source import WeightsSource

# Layers that keras.applications leaves to Keras' automatic names, such as conv2d_94.
AUTOMATIC_NAME = re.compile(r"(conv2d|batch_normalization|dense|normalization)(?:_(\d+))?")
# Layers without weights in and around a trunk of keras.applications that do not scale its pixels.
HARMLESS = re.compile(
    r"InputLayer|Dense|Dropout|Flatten|Reshape|Activation|ReLU|Softmax|.*Pooling2D|BatchNormalization|Random\w+|"
    r"Rescaling|Normalization|Functional|Sequential|Model|Add|Concatenate|Multiply|ZeroPadding2D|LayerScale|"
    r"StochasticDepth|"
)


@dataclasses.dataclass(frozen=True)
class LayerRecord:
    """A layer of a model or of its file.

    Args:
        name: its name.
        kind: name of its class, "" if the file does not have it.
        config: its configuration, as far as the file has it.
        arrays: the values of its variables, by their names.
    """

    name: str
    kind: str
    config: Mapping[str, Any]
    arrays: Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Opened:
    """A model or file that is read: its layers in order, and what it states.

    Args:
        received: the user's argument, for messages.
        records: its layers, those of inner models included.
        name: name of the model.
        size: image height and width in pixels, None if unknown.
        info: the info of a model of the zoo.
        model: the keras.Model.
    """

    received: str
    records: list[LayerRecord]
    name: str = ""
    size: tuple[int, int] | None = None
    info: ModelInfo | None = None
    model: Any = None


def read_model(entry: Model, model: Any, received: str) -> WeightsSource:
    """Return the weights of a keras.Model, with the names of keras.applications if most of its layers have them.

    Raises:
        BadOption: it is another variant of keras.applications, or another model of the zoo.
    """
    records = [_record(layer) for layer in _flatten(model)]
    info = saving.info_of(model)
    return read_records(entry, Opened(received, records, model.name, _size(model), info, model))


def read_records(entry: Model, opened: Opened) -> WeightsSource:
    """Return the weights of a model or file as `read_model` does."""
    names = _renumber([record.name for record in opened.records])
    arrays = _arrays(names, opened.records)
    name_mapping = keras_mapping(entry, {key.rpartition("/")[0] for key in arrays})
    if opened.info is None and name_mapping is not None:
        renamed = [dataclasses.replace(r, name=n) for n, r in zip(names, opened.records, strict=True)]
        return _keras_source(entry, name_mapping, dataclasses.replace(opened, records=renamed))
    if opened.info is None:
        check_keras_variant(entry, {key.rpartition("/")[0] for key in arrays}, opened.received)
    check_made_for(entry, opened.info.name if opened.info else opened.name, opened.received)
    own = _arrays([record.name for record in opened.records], opened.records, renamed=False)
    grids = {r.name: tuple(r.config["grid"]) for r in opened.records if r.config.get("grid")}
    model = opened.model if opened.info is None else None
    return WeightsSource(opened.received, own, grids=grids, info=opened.info, model=model)


def keras_mapping(entry: Model, modules: set[str]) -> NameMapping | None:
    """Return the mapping to keras.applications if it produces most of the names of layers with weights."""
    name_mapping = entry.name_mappings.get("keras")
    return name_mapping if name_mapping is not None and name_mapping.coverage(modules) >= 0.5 else None


def patch_grids(layers: Iterable[Any]) -> dict[str, tuple[int, int]]:
    """Return rows and columns of patches of each layer that has a grid, by its name."""
    return {layer.name: layer.grid for layer in layers if getattr(layer, "grid", None)}


def rescale(x: Any, rescaling: tuple[tuple[float, ...], tuple[float, ...]]) -> Any:
    """Scale the pixels of an image (n, h, w, c) in a layer "rescaling"."""
    # Statistics exist for three channels; other numbers of channels take their average.
    fits = len(rescaling[0]) in (1, x.shape[-1])
    values = [list(v) if fits else [float(np.mean(v))] for v in rescaling]
    plain = [v if len(v) > 1 else v[0] for v in values]
    return keras.layers.Rescaling(*plain, name="rescaling", dtype="float32")(x)


def _record(layer: Any) -> LayerRecord:
    if not isinstance(layer, keras.layers.Layer):
        return LayerRecord(layer.name, type(layer).__name__, {}, {})
    arrays = {variable.name: keras.ops.convert_to_numpy(variable) for variable in layer.weights}
    config = {
        name: getattr(layer, name) for name in ("scale", "offset", "mean", "variance", "grid") if _has(layer, name)
    }
    return LayerRecord(layer.name, type(layer).__name__, config, arrays)


def _has(layer: Any, name: str) -> bool:
    """Return whether a layer has a value that its record needs: those of a scaling layer, or a grid."""
    scaling = isinstance(layer, (keras.layers.Rescaling, keras.layers.Normalization))
    return (scaling or name == "grid") and getattr(layer, name, None) is not None


def _size(model: Any) -> tuple[int, int] | None:
    """Return height and width of the images that a model takes; None if it takes others or any."""
    shape = getattr(model, "input_shape", None) if model.built else None
    known = isinstance(shape, tuple) and len(shape) == 4 and None not in shape[1:3]
    return tuple(shape[1:3]) if known else None


def _arrays(names: list[str], records: list[LayerRecord], renamed: bool = True) -> dict[str, Any]:
    """Return the values of all variables by "layer/variable"."""
    return {
        f"{name}/{_variable_name(variable) if renamed else variable}": array
        for name, record in zip(names, records, strict=True)
        for variable, array in record.arrays.items()
    }


def _variable_name(name: str) -> str:
    """Return the name of a variable; the only one that Keras does not name is the scale of its LayerScale."""
    return "gamma" if re.fullmatch(r"variable(_\d+)?", name) else name


def _flatten(model: Any) -> Iterable[Any]:
    """Yield the layers and other operations of a model and of the models inside it."""
    for layer in model.operations if compat.is_functional(model) else model.layers:
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


def _keras_source(entry: Model, name_mapping: NameMapping, opened: Opened) -> WeightsSource:
    """Return the weights of a model of keras.applications: its trunk, and its last layer if it fits."""
    foreign = [record for record in opened.records if record.arrays and not _known(name_mapping, record)]
    names = {record.name for record in foreign}
    records = [record for record in opened.records if record.name not in names]
    head = name_mapping.rename("logits")
    if head not in {record.name for record in records} and len(foreign) == 1 and _is_dense(foreign[0]):
        records.append(dataclasses.replace(foreign.pop(), name=head))
    published = next((w for w in entry.spec.weights if w.source.startswith("keras/")), None)
    rescaling = _rescaling(opened.records)
    info = ModelInfo(
        entry.spec.name,
        name_mapping.arguments,
        _convention(published, rescaling, opened.records),
        opened.size,
        rescaling,
        origin="keras.applications",
    )
    return WeightsSource(
        opened.received,
        _arrays([record.name for record in records], records),
        name_mapping,
        "keras",
        bgr=published is not None and published.bgr,
        info=info,
        left_out=tuple(record.name for record in foreign),
    )


def _known(name_mapping: NameMapping, record: LayerRecord) -> bool:
    """Return whether a layer with weights belongs to the architecture of keras.applications."""
    return name_mapping.produces(record.name) or all(name_mapping.ignores(f"{record.name}/{v}") for v in record.arrays)


def _is_dense(record: LayerRecord) -> bool:
    return getattr(record.arrays.get("kernel"), "ndim", 0) == 2


def _convention(
    published: PublishedWeights | None,
    rescaling: tuple[tuple[float, ...], tuple[float, ...]] | None,
    records: list[LayerRecord],
) -> PreprocessingConfig | None:
    """Return the preprocessing of keras.applications for an architecture; None if operations around it may scale."""
    known = published.preprocessing if published else None
    if known is None or not all(HARMLESS.fullmatch(record.kind) for record in records if not record.arrays):
        return None
    if rescaling is not None:
        return dataclasses.replace(known, mean=(0.0,), std=(1.0,), channel_order="rgb")
    # A model with the scaling inside that was built without it takes values that nobody stated.
    inside = known.affine() == PreprocessingConfig().affine()
    return None if inside else dataclasses.replace(known, channel_order="rgb")


def _rescaling(records: list[LayerRecord]) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
    """Return (scale, offset) of all pixel scaling inside a model; None if there is none."""
    scaling = [record for record in records if record.kind in ("Rescaling", "Normalization")]
    if not scaling:
        return None
    scale, offset = np.ones(1), np.zeros(1)
    for record in scaling:
        factor, shift = _affine(record)
        scale, offset = scale * factor, offset * factor + shift
    size = max(scale.size, offset.size)
    return tuple(np.broadcast_to(scale, size).tolist()), tuple(np.broadcast_to(offset, size).tolist())


def _affine(record: LayerRecord) -> tuple[Any, Any]:
    """Return (factor, shift) of a Rescaling or Normalization layer, by channel or for all."""
    if record.kind == "Rescaling":
        return tuple(np.asarray(record.config[name], "float64").reshape(-1) for name in ("scale", "offset"))
    values = {**record.config, **record.arrays}
    mean, variance = (np.asarray(values[name], "float64").reshape(-1) for name in ("mean", "variance"))
    deviation = np.maximum(np.sqrt(variance), keras.config.epsilon())
    return 1.0 / deviation, -mean / deviation
