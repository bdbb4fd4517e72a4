"""Weights by name: resolve "imagenet", "keras" and "timm/<model>.<tag>" to published weights."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from zoo.common.errors import BadOption, did_you_mean
from zoo.specs.published import PublishedWeights
from zoo.specs.registry import Model, models
from zoo.weights.references import is_address, is_repository, is_transformers_folder, parse_address

SUFFIXES = (".keras", ".h5", ".safetensors")
IN_FOLDER = "model.safetensors"
LIBRARIES = ("timm/", "keras/", "torchvision/")


def is_weights_file(text: str) -> bool:
    """Return whether a text is the path of an existing file with the suffix of a weights file, or of its folder."""
    try:
        path = weights_path(text)
        return path.name.endswith(SUFFIXES) and path.is_file()
    except (OSError, ValueError):  # not a valid path, such as one that is too long
        return False


def weights_path(text: str) -> Path:
    """Return the path of a weights file: of transformers' name for it if the text is a folder."""
    path = Path(text)
    return path / IN_FOLDER if is_transformers_folder(path) else path


def check_weights(entry: Model, text: str) -> None:
    """Raise BadOption unless a text is a weights file or a name of the model's weights; nothing is opened."""
    if is_address(text):
        parse_address(text)
    if is_weights_file(text) or is_repository(text):
        return
    if text not in ("imagenet", "keras") and not text.startswith(LIBRARIES):
        raise BadOption(
            "weights must be 'imagenet', 'keras', 'timm/<model>.<tag>', 'hf://user/repository', or the path of an "
            f"existing file ({', '.join(SUFFIXES)}) or folder with a config.json. Received: weights={text!r}. "
            f"Run `zoo show {entry.spec.name}` for its weights."
        )
    resolve(entry, text)


def resolve(entry: Model, name: str) -> PublishedWeights:
    """Return the published weights of a name.

    Raises:
        BadOption: the model has no such weights.
    """
    known = entry.spec.weights
    source, _, revision = name.partition("@")
    if name == "imagenet":
        matches = list(known[:1])
    elif name == "keras":
        matches = [weights for weights in known if weights.source.startswith("keras/")]
    else:
        matches = [weights for weights in known if weights.source == source]
        if not matches and name.startswith("timm/") and set(entry.name_mappings) - {"keras"}:
            matches = [PublishedWeights(source, 0.0, preprocessing=None, labels=None)]
        if revision:
            matches = [dataclasses.replace(weights, revision=revision, sha256=None) for weights in matches]
    if not matches:
        hint = did_you_mean(name, [weights.source for weights in known]) if known else "None are published for it."
        raise BadOption(f"{entry.spec.name} has no such weights. Received: weights={name!r}. {hint}")
    return matches[0]


def refuse_unknown(entry: Model, received: str, model: str) -> None:
    """Raise BadOption for a whole model that is neither of the zoo nor of keras.applications."""
    raise BadOption(
        f"weights must fit {entry.spec.name}. Received: {received}, the whole model {model!r} with the layer names of "
        "neither the zoo nor keras.applications. Open it with Keras: zoo.load_model(path)."
    )


def check_made_for(entry: Model, name: str, received: str) -> None:
    """Raise BadOption for weights of another registered model, which can have the same names and shapes."""
    if name != entry.spec.name and name in models:
        raise BadOption(
            f"weights must fit {entry.spec.name}. Received: {received}, which were made for {name}. "
            f"Build {name}, or pass other weights."
        )


def check_keras_variant(entry: Model, modules: set[str], received: str) -> None:
    """Raise BadOption for a keras.applications model with the layer names of another model, first of this family."""
    mappings = {name: models[name].name_mappings.get("keras") for name in models.names()}
    fitting = [name for name, mapping in mappings.items() if mapping and mapping.coverage(modules) > 0.9]
    variants = [name for name in fitting if models[name].spec.family == entry.spec.family] or fitting
    if variants:
        raise BadOption(
            f"weights must fit {entry.spec.name}. Received: {received}, a model of keras.applications with another "
            f"architecture. {did_you_mean(entry.spec.name, variants)}"
        )
