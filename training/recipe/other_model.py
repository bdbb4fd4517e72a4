"""What a recipe states for its own model alone, and another model has to do without."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from typing import Any

from training.recipe.limits import ROUTED
from zoo.build import options_of
from zoo.specs.registry import models


def leave_out(values: dict[str, Any], given: Mapping[str, Any]) -> None:
    """Leave out the options of a recipe that a model given instead of its own lacks or defines itself; warn of them.

    Args:
        values: the JSON of the recipe, which changes.
        given: the user's values by dotted key, which stay.
    """
    own, other = values["model"]["name"], given.get("model.name")
    if other is None or other == own or other not in models or own not in models:
        return
    found = list(_left_out(values, given, own, other))
    for place, key, default in found:
        _set(values, place, key, default)
    if found:
        stated = ", ".join(f"{place}.{key}" for place, key, _ in found)
        warnings.warn(
            f"{values['name']} states {stated} for {own} alone; {other} is trained without. Set it to keep it.",
            stacklevel=4,
        )


def _left_out(values: dict[str, Any], given: Mapping[str, Any], own: str, other: str) -> Iterator[tuple[str, str, Any]]:
    """Yield the table, the key and the default of each option that is left out; the default None removes it."""
    model, known = models[other], options_of(models[other])
    for key in () if "model.options" in given else values["model"]["options"]:
        if key not in known or key in model.arguments:
            yield "model.options", key, None
    for key in ROUTED:
        if values["regularize"][key] and key not in known and f"regularize.{key}" not in given:
            yield "regularize", key, 0.0
    heads = values["loss"]["heads"]
    if heads and model.spec.family != models[own].spec.family and not any(k.startswith("loss.heads") for k in given):
        yield "loss", "heads", {}


def _set(values: dict[str, Any], place: str, key: str, default: Any) -> None:
    table = values
    for part in place.split("."):
        table = table[part]
    if default is None:
        del table[key]
    else:
        table[key] = default
