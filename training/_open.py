"""From a recipe to its pipeline: the data is loaded, its shape, contracts and vocabulary are settled and checked."""

from __future__ import annotations

import dataclasses

from training._augment import is_active
from training._configs import DataConfig
from training._data import Dataset, load_dataset
from training._encode import make_encoder, settle_length
from training._pipeline import Pipeline
from training._recipe import Recipe
from training._text import learn
from zoo._errors import BadOption, DataError
from zoo._preprocessing import Preprocessing
from zoo._registry import ModelSpec
from zoo._text import SPECIAL, Text

# Options of the data that other kinds of it do not have.
OF_IMAGES, OF_TEXTS = ("augment", "image_size", "channels", "preprocessing"), ("length", "vocabulary")


def open_pipeline(recipe: Recipe, spec: ModelSpec, text: Text | None = None) -> Pipeline:
    """Load the data of a recipe and settle the shape and the contracts in which the network sees it.

    Args:
        recipe: what to serve.
        spec: the network's.
        text: the text contract of a run; without one the vocabulary is learnt from the training split.

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
    if dataset.text:
        return _open_text(recipe, dataset, spec, text)
    shape = _shape(recipe, dataset, spec)
    contract = recipe.data.preprocessing or dataset.preprocessing or spec.preprocessing
    if shape[-1] == 1 and 3 in (len(contract.mean), len(contract.std)):
        contract = _grey(contract)
    contract.check(shape[-1])
    return Pipeline(dataset, recipe, shape, contract)


def _check_fit(recipe: Recipe, dataset: Dataset, spec: ModelSpec) -> None:
    """Raise BadOption if the network does another thing than the data asks for, or an option cannot apply."""
    model, data = ("text" if known else "no text" for known in (spec.vocabulary, dataset.text))
    if (spec.task, model) != (dataset.task, data):
        raise BadOption(
            "The network must do what the data asks for, from what it holds. "
            f"Received: model.name={recipe.model.name!r} ({spec.task}, {model}), "
            f"data.name={recipe.data.name!r} ({dataset.task}, {data})"
        )
    unfit, kind = (OF_IMAGES, "images") if dataset.text else (OF_TEXTS, "texts")
    for name in unfit:
        if getattr(recipe.data, name) != getattr(DataConfig(), name):
            raise BadOption(f"data.{name} applies to {kind}. Received: {dataset.name}, which has {data}")
    if len(dataset.shape) != 3 and is_active(recipe.data.augment):
        raise BadOption(f"data.augment applies to images. Received: {dataset.name} of shape {dataset.shape}")


def _open_text(recipe: Recipe, dataset: Dataset, spec: ModelSpec, text: Text | None) -> Pipeline:
    """Settle length and vocabulary of texts, once every example is known to be good."""
    shape, most = settle_length(recipe.data.length, spec.input_shape), recipe.data.vocabulary
    plain = Preprocessing()
    make_encoder(dataset, shape, plain, text or dataset.text).check()
    if text is None and dataset.text.vocabulary == SPECIAL:
        examples = dataset.splits["train"].examples
        if dataset.task != "generate":
            examples = examples.map(lambda x, _: x)
        text = learn(dataset.text, examples, most or spec.vocabulary)
    elif most and text is None:
        raise BadOption(f"{dataset.name} states its own vocabulary. Received: data.vocabulary={most}. Leave it at 0.")
    return Pipeline(dataset, recipe, shape, plain, text or dataset.text)


def _shape(recipe: Recipe, dataset: Dataset, spec: ModelSpec) -> tuple[int, ...]:
    """Return the shape of a decoded example: the recipe's, else the data's, else the model's."""
    if len(dataset.shape) != 3:
        return dataset.shape
    model = spec.input_shape if len(spec.input_shape) == 3 else (64, 64, 3)
    size = recipe.data.image_size or (dataset.shape[:2] if all(dataset.shape[:2]) else model[:2])
    if len(size) != 2 or min(size) < 1:
        raise BadOption(f"data.image_size must be [height, width]. Received: data.image_size={list(size)}")
    return (*size, recipe.data.channels or dataset.shape[2] or model[2])


def _grey(contract: Preprocessing) -> Preprocessing:
    """Return a contract for colour as one for grey images."""

    def average(values: tuple[float, ...]) -> tuple[float, ...]:
        return (sum(values) / len(values),)

    return dataclasses.replace(contract, mean=average(contract.mean), std=average(contract.std))
