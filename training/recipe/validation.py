"""Validation of a recipe: types, choices, ranges and names of every field, without TensorFlow."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Iterator
from typing import Any

from training.common.registries import datasets, is_dataset
from training.recipe.keys import field_types, nested_type, value_at
from training.recipe.limits import CHOICES, LARGEST, LIMITS
from training.recipe.rules import check_rules
from zoo.build import check_options
from zoo.common.budgets import value_text
from zoo.common.errors import BadOption, UnknownName, did_you_mean
from zoo.common.types import fit_type
from zoo.specs.registry import models
from zoo.weights.names import SUFFIXES, check_weights


def validate(recipe: Any) -> None:
    """Raise BadOption or UnknownName for the first value of a recipe that cannot be, in one line."""
    for key, value, wanted in _fields(recipe, ""):
        fit_type(value, wanted, key)
        _check_finite(key, value)
    if not re.fullmatch(r"\w[\w.-]*", recipe.name):
        raise BadOption(
            f"name must be letters, digits, '_', '-' and '.', as it names a folder. Received: {recipe.name!r}"
        )
    _check_choices(recipe)
    _check_limits(recipe)
    check_rules(recipe)
    _check_names(recipe)


def _fields(config: Any, prefix: str) -> Iterator[tuple[str, Any, Any]]:
    """Yield key, value and type of each field, those of tables included."""
    types = field_types(type(config))
    for field in dataclasses.fields(config):
        key, value, wanted = prefix + field.name, getattr(config, field.name), types[field.name]
        nested = nested_type(wanted)
        if not dataclasses.is_dataclass(nested):
            yield key, value, wanted
        elif isinstance(value, nested):
            yield from _fields(value, f"{key}.")
        elif value is not None or wanted is nested:
            raise BadOption(f"{key} must be a {nested.__name__}. Received: {key}={value!r}")


def _check_finite(key: str, value: Any) -> None:
    values = value if isinstance(value, (list, tuple)) else value.values() if isinstance(value, dict) else [value]
    if any(isinstance(number, float) and not math.isfinite(number) for number in values):
        raise BadOption(f"{key} must be finite. Received: {key}={value}")


def _check_choices(recipe: Any) -> None:
    for key, allowed in CHOICES.items():
        value = value_at(recipe, key)
        # Names of optimizers are those of classes, in any case.
        if (value.lower() if key == "optimizer.name" else value) not in allowed:
            known = [str(choice) for choice in allowed]
            raise BadOption(
                f"{key} must be one of {', '.join(known)}. Received: {key}={value!r}. {did_you_mean(str(value), known)}"
            )


def _check_limits(recipe: Any) -> None:
    for key, (low, high) in LIMITS.items():
        value = value_at(recipe, key)
        if value is not None and not low <= value <= high:
            raise BadOption(f"{key} must be from {low} to {high:g}. Received: {key}={value_text(value)}")
    for key, high in LARGEST.items():
        values = value_at(recipe, key)
        if values and max(values) > high:
            raise BadOption(f"{key} must be at most {high:,}. Received: {key}={value_text(values)}. Lower {key}.")


def _check_names(recipe: Any) -> None:
    """Raise UnknownName or BadOption for a dataset, model, option or weights that nobody has."""
    data, model, teacher = recipe.data, recipe.model, recipe.teacher
    if not data.path and not is_dataset(data.name):
        raise UnknownName(
            "Expected the name of a registered dataset or of one in TFDS. "
            f"Received: data.name={data.name!r}. {did_you_mean(data.name, datasets.names())}"
        )
    _check_model("model.name", model.name)
    try:
        check_options(model.name, model.options)
    except BadOption as error:
        raise BadOption(str(error).replace("Received: ", "Received: model.options.", 1)) from error
    _check_weights("model.weights", model.name, model.weights)
    if teacher and teacher.model:
        _check_model("teacher.model", teacher.model)
        _check_weights("teacher.weights", teacher.model, teacher.weights)


def _check_model(key: str, name: str) -> None:
    if name not in models:
        raise UnknownName(
            f"Expected the name of a registered model. Received: {key}={name!r}. {did_you_mean(name, models.names())}"
        )


def _check_weights(key: str, model: str, weights: str) -> None:
    """Raise BadOption for published weights that a model lacks; files are opened later, perhaps on another machine."""
    if not weights or weights.endswith(SUFFIXES):
        return
    try:
        check_weights(models[model], weights)
    except BadOption as error:
        raise BadOption(str(error).replace("weights=", f"{key}=")) from error
