"""What the `config.json` of a repository states about its weights: one of this zoo, of timm or of transformers."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from zoo.common.errors import BadOption, DataError
from zoo.common.types import fit_type
from zoo.reading.files import read_bytes
from zoo.reading.json_files import LIMIT, parse_json
from zoo.specs.info import ModelInfo
from zoo.specs.labels import class_names
from zoo.specs.preprocessing import PreprocessingConfig
from zoo.specs.published import IMAGENET_1K
from zoo.weights.references import by_timm_name
from zoo.weights.transformers_folder import classes_of, model_of

LIBRARY = "keras-zoo"
# Names of interpolations in Pillow, and so in timm, that differ from ours.
INTERPOLATIONS = {"lanczos": "lanczos3", "box": "area"}
# Arguments of a model of timm that change no weight and no function of its features.
HARMLESS = {"img_size", "in_chans", "num_classes", "drop_rate", "drop_path_rate", "pretrained"}


@dataclasses.dataclass(frozen=True)
class StoredModel:
    """A model in a repository or folder, as its `config.json` states it.

    Args:
        info: its registered name, options, preprocessing, labels and license.
        classes: its number of logits; None if it is not stated.
        input_shape: shape of one input; None if it is not stated.
        sha256: SHA-256 of its `model.safetensors`; "" if it is not stated.
        transformers: whether it is one of transformers: files next to the weights say the rest.
    """

    info: ModelInfo
    classes: int | None = None
    input_shape: tuple[int, ...] | None = None
    sha256: str = ""
    transformers: bool = False


def read_config(path: Path, received: str) -> StoredModel:
    """Return what a `config.json` states.

    Raises:
        DataError: it cannot be read, or describes a model that is not registered.
    """
    try:
        content = parse_json(read_bytes(path, LIMIT), dict)
        if content.get("library_name") == LIBRARY:
            return _own(content)
        return _transformers(content) if "model_type" in content else _timm(content)
    except (OSError, ValueError, TypeError, LookupError, AttributeError) as error:
        reason = " ".join(str(error).split())[:300]
        raise DataError(
            "config.json must describe a model of the zoo, of timm or of transformers. "
            f"Received: {received}, file {path}: {reason}"
        ) from error


def own_config(stored: StoredModel) -> dict[str, Any]:
    """Return the content of a `config.json` for a model of the zoo, JSON-safe."""
    shape = stored.input_shape
    return {
        "library_name": LIBRARY,
        "model": stored.info.name,
        "classes": stored.classes,
        "input_shape": None if shape is None else list(shape),
        "sha256": stored.sha256,
        "info": stored.info.to_json(),
    }


def _own(content: Mapping[str, Any]) -> StoredModel:
    """Return what `own_config` wrote."""
    info = ModelInfo.from_json(content["info"])
    return StoredModel(
        info,
        fit_type(content.get("classes"), int | None, "classes"),
        fit_type(content.get("input_shape"), tuple[int, ...] | None, "input_shape"),
        fit_type(content.get("sha256", ""), str, "sha256"),
    )


def _transformers(content: Mapping[str, Any]) -> StoredModel:
    """Return what transformers' config says alone."""
    return StoredModel(ModelInfo(model_of(content)), classes_of(content), transformers=True)


def _timm(content: Mapping[str, Any]) -> StoredModel:
    """Return what timm's config says; older ones have no inner "pretrained_cfg"."""
    if "architecture" not in content:
        raise BadOption("it has neither the library_name of the zoo nor an architecture of timm")
    config = {**content, **content.get("pretrained_cfg", {})}
    arguments = {**(content.get("model_args") or {})}
    differing = sorted(arguments.keys() - HARMLESS)
    if differing:
        raise BadOption(f"its model_args change the architecture: {', '.join(differing)}")
    classes = fit_type(content.get("num_classes", config.get("num_classes")), int | None, "num_classes")
    channels, *size = fit_type(config.get("input_size", (3, 224, 224)), tuple[int, ...], "input_size")
    _, *best = fit_type(config.get("test_input_size") or (channels, *size), tuple[int, ...], "test_input_size")
    labels, origin = _labels(config, classes)
    info = ModelInfo(
        by_timm_name(str(content["architecture"])),
        preprocessing=_preprocessing(config),
        input_size=tuple(best),
        labels=labels,
        labels_origin=origin,
        license=config.get("license"),
    )
    return StoredModel(info, classes, (*size, channels))


def _preprocessing(config: Mapping[str, Any]) -> PreprocessingConfig | None:
    """Return the preprocessing of evaluation; None if the config has none, or a way to crop that the zoo lacks."""
    if "mean" not in config or "std" not in config or config.get("crop_mode", "center") != "center":
        return None
    mean, std = (tuple(round(255 * float(value), 6) for value in config[name]) for name in ("mean", "std"))
    interpolation = config.get("interpolation", "bicubic")
    crop = config.get("test_crop_pct") or config.get("crop_pct", 1.0)
    return PreprocessingConfig(mean, std, INTERPOLATIONS.get(interpolation, interpolation), crop)


def _labels(config: Mapping[str, Any], classes: int | None) -> tuple[tuple[str, ...] | None, str | None]:
    """Return the names of the classes and their data set, as far as the config says them."""
    names = config.get("label_names") or config.get("labels")
    if names:
        described = config.get("label_descriptions") or {}
        return tuple(str(described.get(name, name)) for name in names), None
    # A tag ends with the data set that decides on the classes: in1k, in12k, in21k, in22k.
    if classes == len(class_names(IMAGENET_1K) or ()) and str(config.get("tag", "")).endswith("in1k"):
        return class_names(IMAGENET_1K), IMAGENET_1K
    return None, None
