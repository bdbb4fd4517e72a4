"""What the weights that a training starts from state: their options, preprocessing and license."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import zoo
from training.recipe.recipe import Recipe
from zoo.common.errors import BadOption
from zoo.common.lazy import np
from zoo.specs.preprocessing import PreprocessingConfig
from zoo.specs.text import TextConfig


def pretrained_info(recipe: Recipe, shape: tuple[int, ...]) -> zoo.ModelInfo:
    """Return what the weights of `model.weights` state, for inputs of a shape."""
    name, weights, options = recipe.model.name, recipe.model.weights, recipe.model.options
    return zoo.info(zoo.get(name, weights=weights, include_top=False, input_shape=shape, **options))


def expected_preprocessing(recipe: Recipe, info: zoo.ModelInfo) -> PreprocessingConfig:
    """Return the preprocessing that pretrained weights expect, with the pixel scaling inside their model.

    Raises:
        BadOption: they do not state it.
    """
    if info.preprocessing is None:
        raise BadOption(
            "model.weights must state the preprocessing that they expect. "
            f"Received: model.weights={recipe.model.weights!r}, which do not. Set data.preprocessing.mean and "
            "data.preprocessing.std, in pixels of 0 to 255."
        )
    if info.rescaling is None:
        return info.preprocessing
    # A model in training has no pixel scaling inside: it becomes part of the preprocessing.
    scale, offset = (np.asarray(values, "float64") for values in info.preprocessing.affine())
    factor, shift = (np.asarray(values, "float64") for values in info.rescaling)
    scale, offset = scale * factor, offset * factor + shift
    mean, std = (tuple(np.atleast_1d(values).tolist()) for values in (-offset / scale, 1.0 / scale))
    return dataclasses.replace(info.preprocessing, mean=mean, std=std)


def with_data(
    model: Any,
    preprocessing: PreprocessingConfig | None,
    labels: tuple[str, ...],
    start: Any,
    text: TextConfig | None = None,
) -> Any:
    """Return a trained model that carries the preprocessing, labels and tokenization of its data.

    Args:
        model: the functional keras.Model, of a registered model.
        preprocessing: that of the data; None for token ids.
        labels: names of the classes in the order of the logits.
        start: the `zoo.ModelInfo` of the weights that the training started from; None for random ones.
        text: the text config of the data; None where it is no text.
    """
    from zoo.layers.saving import with_info

    info = zoo.info(model)
    if info is None:
        return model
    inherited = {} if start is None else {name: getattr(start, name) for name in ("license", "origin", "revision")}
    changes = {"preprocessing": preprocessing, "labels": labels, "labels_origin": None, "sha256": None}
    changes["text"] = text
    return with_info(model, dataclasses.replace(info, **changes, **inherited))


def architecture(info: zoo.ModelInfo | None, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of a model in training: those of its pretrained weights, and the given ones over them."""
    return {**(info.options if info else {}), **given}
