"""From a recipe to its pipeline: the data is loaded, its shape, contracts and vocabulary are settled and checked."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from training.augment.augment import check_augment, is_active
from training.data.columns import ColumnSchema
from training.data.dataset import MODEL_TASKS, Dataset, TargetScale
from training.data.pipeline.encoding import make_encoder, settle_length
from training.data.pipeline.pipeline import Pipeline
from training.data.pipeline.statistics import measure, measure_targets
from training.data.readers.loading import load_dataset
from training.data.tokenization import build_vocabulary
from training.recipe.config import DataConfig
from training.recipe.recipe import Recipe
from zoo.common.errors import BadOption, DataError, RunError
from zoo.specs.preprocessing import PreprocessingConfig
from zoo.specs.registry import ModelSpec
from zoo.specs.text import SPECIAL, TextConfig

# Options of the data that other kinds of it do not have.
OF_IMAGES, OF_TEXTS = ("augment", "image_size", "train_size", "channels"), ("length", "vocabulary")
OF_VALUES = ("preprocessing", "normalize")
# Options that some data obeys, and what data that is.
OF_SOME = {
    "shares": "data that is not divided",
    "split_seed": "data that is not divided",
    "stratify": "data that is not divided",
    "target": "tables",
    "task": "tables",
    "columns": "tables",
}
# How tables are scaled where the recipe does not say.
OF_TABLES = "channel"


def open_pipeline(
    recipe: Recipe, spec: ModelSpec, text: TextConfig | None = None, learnt: dict[str, Any] | None = None
) -> Pipeline:
    """Load the data of a recipe and settle the shape and the contracts in which the network sees it.

    Args:
        recipe: what to serve.
        spec: the network's.
        text: the text contract of a run; without one the vocabulary is learnt from the training split.
        learnt: what else the training split of a run taught, see `training_statistics`; without it that is learnt now.

    Raises:
        DataError: the data is missing or unreadable.
        BadOption: the recipe asks for what this data cannot give, or the network cannot take it.
    """
    dataset = load_dataset(recipe.data)
    for split in ("train", "validation", "test"):
        if split in dataset.splits and not dataset.splits[split].count:
            raise DataError(f"Expected examples in every split of {dataset.name}. Received: none in {split}.")
    if "validation" not in dataset.splits:
        raise DataError(f"Expected a validation split. Received: {dataset.name} without one.")
    _check_fit(recipe, dataset, spec)
    known = _read_learnt(learnt or {})
    dataset = _remembered(dataset, known)
    if dataset.text:
        return _open_text(recipe, dataset, spec, text)
    shape = _shape(recipe, dataset, spec)
    preprocessing = recipe.data.preprocessing or dataset.preprocessing or spec.preprocessing
    if shape[-1] == 1 and 3 in (len(preprocessing.mean), len(preprocessing.std)):
        preprocessing = _grey(preprocessing)
    if len(shape) == 3:
        check_augment(recipe.data.augment, shape[-1], dataset.task, recipe.data.batch_size)
    make_encoder(dataset, shape, preprocessing, None).check()
    if _way(recipe, dataset):
        preprocessing = known.get("preprocessing") or measure(dataset, shape, preprocessing, _way(recipe, dataset))
    preprocessing.check(shape[-1])
    return Pipeline(dataset, recipe, shape, preprocessing)


def training_statistics(pipeline: Pipeline) -> dict[str, Any]:
    """Return what the training split taught beside a vocabulary, JSON-safe, for `open_pipeline` to use again.

    Returns:
        "preprocessing" where its statistics are those of the training split, "scale" of the targets of a regression
        and "tabular", the column contract, where there are such.
    """
    dataset, found = pipeline.dataset, {}
    if not dataset.text and _way(pipeline.recipe, dataset):
        found["preprocessing"] = pipeline.preprocessing.to_json()
    if dataset.scale:
        found["scale"] = dataclasses.asdict(dataset.scale)
    if dataset.table:
        found["tabular"] = dataset.table.to_json()
    return found


def _remembered(dataset: Dataset, known: dict[str, Any]) -> Dataset:
    """Return a dataset with what its training split taught, once or now."""
    if "tabular" in known:
        dataset = dataclasses.replace(dataset, table=known["tabular"])
    if dataset.task != "regress":
        return dataset
    return dataclasses.replace(dataset, scale=known.get("scale") or measure_targets(dataset))


def _read_learnt(learnt: dict[str, Any]) -> dict[str, Any]:
    """Return the values of `training_statistics`, or raise RunError where they are none."""
    try:
        return {key: _READERS[key](values) for key, values in learnt.items()}
    except (AttributeError, BadOption, KeyError, TypeError, ValueError) as error:
        raise RunError(
            f"Expected what the training split taught, as a run keeps it. Received: {str(learnt)[:100]} "
            f"({type(error).__name__}: {error}). Train again."
        ) from error


_READERS: dict[str, Callable[[Any], Any]] = {
    "preprocessing": lambda v: PreprocessingConfig(**v | {"mean": tuple(v["mean"]), "std": tuple(v["std"])}),
    "scale": lambda v: TargetScale(tuple(map(float, v["mean"])), tuple(map(float, v["std"]))),
    "tabular": ColumnSchema.from_json,
}


def _way(recipe: Recipe, dataset: Dataset) -> str:
    """Return which statistics of the training split scale values, "" if none do."""
    return recipe.data.normalize or (OF_TABLES if dataset.table and not recipe.data.preprocessing else "")


def _check_fit(recipe: Recipe, dataset: Dataset, spec: ModelSpec) -> None:
    """Raise BadOption if the network does another thing than the data asks for, or an option cannot apply."""
    model, data = ("text" if known else "no text" for known in (spec.vocabulary, dataset.text))
    if (spec.task, model) != (MODEL_TASKS.get(dataset.task, dataset.task), data):
        raise BadOption(
            "The network must do what the data asks for, from what it holds. "
            f"Received: model.name={recipe.model.name!r} ({spec.task}, {model}), "
            f"data.name={recipe.data.name!r} ({dataset.task}, {data})"
        )
    unfit = dict.fromkeys(OF_VALUES, "images and numbers") | dict.fromkeys(OF_IMAGES, "images") if dataset.text else {}
    unfit |= {} if dataset.text else dict.fromkeys(OF_TEXTS, "texts")
    unfit |= {} if dataset.text or len(dataset.shape) == 3 else dict.fromkeys(("image_size", "channels"), "images")
    unfit |= {name: kind for name, kind in OF_SOME.items() if name not in dataset.options}
    for name, kind in unfit.items():
        if getattr(recipe.data, name) != getattr(DataConfig(), name):
            raise BadOption(
                f"data.{name} applies to {kind}. Received: data.{name}={getattr(recipe.data, name)!r} with "
                f"{dataset.name}, which has {data}"
            )
    if len(dataset.shape) != 3 and is_active(recipe.data.augment):
        raise BadOption(f"data.augment applies to images. Received: {dataset.name} of shape {dataset.shape}")
    given = recipe.data.preprocessing
    if recipe.data.normalize and given and (given.mean, given.std) != (PreprocessingConfig().mean, PreprocessingConfig().std):
        raise BadOption(
            "data.normalize measures what data.preprocessing.mean and std state. "
            f"Received: data.normalize={recipe.data.normalize!r}, mean={given.mean}, std={given.std}. Leave one out."
        )


def _open_text(recipe: Recipe, dataset: Dataset, spec: ModelSpec, text: TextConfig | None) -> Pipeline:
    """Settle length and vocabulary of texts, once every example is known to be good."""
    shape, most = settle_length(recipe.data.length, spec.input_shape), recipe.data.vocabulary
    plain = PreprocessingConfig()
    make_encoder(dataset, shape, plain, text or dataset.text).check()
    if text is None and dataset.text.vocabulary == SPECIAL:
        examples = dataset.splits["train"].examples
        if dataset.task != "generate":
            examples = examples.map(lambda x, _: x)
        text = build_vocabulary(dataset.text, examples, most or spec.vocabulary)
    elif most and text is None:
        raise BadOption(f"{dataset.name} states its own vocabulary. Received: data.vocabulary={most}. Leave it at 0.")
    return Pipeline(dataset, recipe, shape, plain, text or dataset.text)


def _shape(recipe: Recipe, dataset: Dataset, spec: ModelSpec) -> tuple[int, ...]:
    """Return the shape of a decoded example: the recipe's, else the data's, else the model's."""
    if dataset.table:
        return (dataset.table.width,)
    if len(dataset.shape) != 3:
        return dataset.shape
    model = spec.input_shape if len(spec.input_shape) == 3 else (64, 64, 3)
    size = recipe.data.image_size or (dataset.shape[:2] if all(dataset.shape[:2]) else model[:2])
    for name, given in (("image_size", size), ("train_size", recipe.data.train_size or size)):
        if len(given) != 2 or min(given) < 1:
            raise BadOption(f"data.{name} must be [height, width]. Received: data.{name}={list(given)}")
    return (*size, recipe.data.channels or dataset.shape[2] or model[2])


def _grey(preprocessing: PreprocessingConfig) -> PreprocessingConfig:
    """Return a contract for colour as one for grey images."""

    def average(values: tuple[float, ...]) -> tuple[float, ...]:
        return (sum(values) / len(values),)

    return dataclasses.replace(preprocessing, mean=average(preprocessing.mean), std=average(preprocessing.std))
