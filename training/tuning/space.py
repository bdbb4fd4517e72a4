"""Search spaces: a key of a recipe with a range of numbers or a list of values."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterable
from typing import Any

from training.recipe.recipe import Recipe, parse_override, resolve
from zoo.build import options_of
from zoo.common.errors import BadOption
from zoo.specs.registry import models

NUMBER = r"[-+]?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?"
RANGE = re.compile(rf"(log:)?({NUMBER})\.\.({NUMBER})")
DIGITS = 4
USAGE = "KEY=LOW..HIGH, KEY=log:LOW..HIGH or KEY=A|B|C, such as optimizer.learning_rate=log:1e-3..1e-1"


@dataclasses.dataclass(frozen=True)
class Space:
    """The search space of one key of a recipe.

    Args:
        key: dotted, such as "optimizer.learning_rate".
        choices: the values; empty for a range.
        low: the smallest number of a range.
        high: the largest.
        log: sample on a logarithmic scale.
        integer: sample integers.
    """

    key: str
    choices: tuple[Any, ...] = ()
    low: float = 0.0
    high: float = 0.0
    log: bool = False
    integer: bool = False

    def distribution(self) -> Any:
        """Return the Optuna distribution; choices are encoded as JSON."""
        from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

        if self.choices:
            return CategoricalDistribution([json.dumps(choice) for choice in self.choices])
        if self.integer:
            return IntDistribution(int(self.low), int(self.high), log=self.log)
        return FloatDistribution(self.low, self.high, log=self.log)

    def value(self, sample: Any) -> Any:
        """Return a sample as a value of the recipe, with four digits."""
        if self.choices:
            return json.loads(sample)
        return int(sample) if self.integer else float(f"{sample:.{DIGITS}g}")

    def to_json(self) -> dict[str, Any]:
        """Return the space as JSON-safe values."""
        return json.loads(json.dumps(dataclasses.asdict(self)))


def parse_spaces(texts: Iterable[str], recipe: Recipe) -> list[Space]:
    """Parse search spaces, and check that the recipe accepts both ends and every choice.

    Raises:
        BadOption: a space has another form, or a value does not fit the recipe or the model.
        UnknownName: a choice is an unknown name.
    """
    spaces = [_parse(text, recipe) for text in texts]
    keys = [space.key for space in spaces]
    if not keys:
        raise BadOption(f"Expected at least one search space. Received: none. Write {USAGE}.")
    for key in keys:
        if keys.count(key) > 1:
            raise BadOption(f"Expected one search space for each key. Received: {key} more than once. Leave one.")
    for space in spaces:
        for value in space.choices or (space.low, space.high):
            resolve(recipe, [(space.key, int(value) if space.integer else value)])
    return spaces


def _parse(text: str, recipe: Recipe) -> Space:
    key, equals, values = (part.strip() for part in text.partition("="))
    if not (key and equals and values):
        raise BadOption(f"A search space must be {USAGE}. Received: {text!r}. Change it.")
    match = RANGE.fullmatch(values)
    if match:
        return _range(text, key, match, recipe)
    choices = tuple(map(_literal, values.split("|")))
    if len(choices) < 2 or values.startswith("log:"):
        raise BadOption(f"A search space must be {USAGE}, with at least two values. Received: {text!r}. Change it.")
    return Space(key, choices)


def _range(text: str, key: str, match: re.Match[str], recipe: Recipe) -> Space:
    log, low, high = bool(match[1]), float(match[2]), float(match[3])
    if low >= high or (log and low <= 0):
        above = " above 0" if log else ""
        raise BadOption(
            f"A range must start at a number{above} and end at a larger one. Received: {text!r}. Change it."
        )
    digits_only = all(re.fullmatch(r"[-+]?\d+", bound) for bound in match.groups()[1:])
    return Space(key, (), low, high, log, digits_only and not isinstance(_current(recipe, key), float))


def _current(recipe: Recipe, key: str) -> Any:
    """Return the current value of a key, or the default of a model option."""
    place: Any = recipe.to_json()
    for part in key.split("."):
        place = place.get(part) if isinstance(place, dict) else None
    option = key.removeprefix("model.options.")
    if place is None and option != key and recipe.model.name in models:
        known = options_of(models[recipe.model.name])
        return known[option].default if option in known else None
    return place


def _literal(text: str) -> Any:
    """Return a value, parsed as JSON if possible and else a string."""
    return parse_override(f"value={text.strip()}")[1]
