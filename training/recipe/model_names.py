"""Names of models that have their weights, in a recipe: timm's "model.tag", an address on the hub, a local folder."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from training.recipe.config import ModelConfig
from zoo.specs.registry import models
from zoo.weights.repositories import locate


def located(model: ModelConfig) -> ModelConfig:
    """Return the config with a registered name, and with the weights that the given name has.

    Raises:
        BadOption: `weights` states others.
        DataError: the repository cannot be read.
    """
    if not isinstance(model.name, str) or not model.name or model.name in models:
        return model
    name, weights = locate(model.name, model.weights or None)
    return dataclasses.replace(model, name=name, weights=weights or "")


def locate_values(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return a user's values by dotted key with the same change; weights of the recipe count for nothing then."""
    name, weights = values.get("model.name"), values.get("model.weights")
    if not isinstance(name, str) or not isinstance(weights, (str, type(None))):
        return dict(values)
    found = located(ModelConfig(name, weights=weights or ""))
    return dict(values) if found.name == name else {**values, "model.name": found.name, "model.weights": found.weights}
