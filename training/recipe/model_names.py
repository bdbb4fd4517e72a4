"""Names of models that have their weights, in a recipe: timm's "model.tag", an address on the hub, a local folder."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from training.recipe.config import ModelConfig, TeacherConfig
from zoo.specs.registry import models
from zoo.weights.repositories import locate

# Keys of a model and of its weights.
NAMES = (("model.name", "model.weights"), ("teacher.model", "teacher.weights"))


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


def located_teacher(teacher: TeacherConfig) -> TeacherConfig:
    """Return the config of a teacher with the same change; the weights that it has by default count for nothing."""
    stated = "" if teacher.weights == TeacherConfig.weights else teacher.weights
    found = located(ModelConfig(teacher.model, weights=stated))
    if found.name == teacher.model:
        return teacher
    return dataclasses.replace(teacher, model=found.name, weights=found.weights)


def locate_values(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return a user's values by dotted key with the same change; weights of the recipe count for nothing then."""
    changed = dict(values)
    for key, weights_key in NAMES:
        name, weights = values.get(key), values.get(weights_key)
        if isinstance(name, str) and isinstance(weights, (str, type(None))):
            found = located(ModelConfig(name, weights=weights or ""))
            if found.name != name:
                changed |= {key: found.name, weights_key: found.weights}
    return changed
