"""What a study may choose: one key of a recipe, with a range of numbers or a list of values."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterable
from typing import Any

from training.recipe.recipe import Recipe, resolve
from zoo.build import options_of
from zoo.common.errors import BadOption
from zoo.specs.registry import models

NUMBER = r"[-+]?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?"
RANGE = re.compile(rf"(log:)?({NUMBER})\.\.({NUMBER})")
DIGITS = 4
WRITTEN = "KEY=LOW..HIGH, KEY=log:LOW..HIGH or KEY=A|B|C, such as optimizer.learning_rate=log:1e-3..1e-1"


@dataclasses.dataclass(frozen=True)
class Space:
    """The values that one key of a recipe may have.

    Args:
        key: dotted, such as "optimizer.learning_rate".
        choices: the values, or none for a range.
        low: the smallest number of a range.
        high: the largest.
        log: draw evenly on a logarithmic scale.
        whole: draw whole numbers.
    """

    key: str
    choices: tuple[Any, ...] = ()
    low: float = 0.0
    high: float = 0.0
    log: bool = False
    whole: bool = False

    def distribution(self) -> Any:
        """Return what Optuna draws from; values that are no numbers travel as JSON."""
        from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

        if self.choices:
            return CategoricalDistribution([json.dumps(choice) for choice in self.choices])
        if self.whole:
            return IntDistribution(int(self.low), int(self.high), log=self.log)
        return FloatDistribution(self.low, self.high, log=self.log)

    def value(self, drawn: Any) -> Any:
        """Return what was drawn as a recipe takes it: four digits are enough to try and to write down."""
        if self.choices:
            return json.loads(drawn)
        return int(drawn) if self.whole else float(f"{drawn:.{DIGITS}g}")

    def to_json(self) -> dict[str, Any]:
        """Return the space as JSON-safe values."""
        return json.loads(json.dumps(dataclasses.asdict(self)))


def parse_spaces(texts: Iterable[str], recipe: Recipe) -> list[Space]:
    """Read spaces, and make sure that the recipe takes every end and every choice of each.

    Raises:
        BadOption: a space that cannot be read, or a value that the recipe or the network does not take.
        UnknownName: a choice of a name that there is not.
    """
    spaces = [_parse(text, recipe) for text in texts]
    keys = [space.key for space in spaces]
    if not keys:
        raise BadOption(f"A study needs at least one space, {WRITTEN}")
    for key in keys:
        if keys.count(key) > 1:
            raise BadOption(f"Each key has one space. Received: {key} more than once")
    for space in spaces:
        for value in space.choices or (space.low, space.high):
            resolve(recipe, [(space.key, int(value) if space.whole else value)])
    return spaces


def _parse(text: str, recipe: Recipe) -> Space:
    key, equals, values = (part.strip() for part in text.partition("="))
    if not (key and equals and values):
        raise BadOption(f"A space is written {WRITTEN}. Received: {text!r}")
    match = RANGE.fullmatch(values)
    if match:
        return _range(text, key, match, recipe)
    choices = tuple(map(_literal, values.split("|")))
    if len(choices) < 2 or values.startswith("log:"):
        raise BadOption(f"A space is written {WRITTEN}, with two values at least. Received: {text!r}")
    return Space(key, choices)


def _range(text: str, key: str, match: re.Match[str], recipe: Recipe) -> Space:
    log, low, high = bool(match[1]), float(match[2]), float(match[3])
    if low >= high or (log and low <= 0):
        above = " above 0" if log else ""
        raise BadOption(f"A range goes from a number{above} to a larger one. Received: {text!r}")
    digits_only = all(re.fullmatch(r"[-+]?\d+", bound) for bound in match.groups()[1:])
    return Space(key, (), low, high, log, digits_only and not isinstance(_present(recipe, key), float))


def _present(recipe: Recipe, key: str) -> Any:
    """Return what a key holds now; of an option of the network that is not given, its default."""
    place: Any = recipe.to_json()
    for part in key.split("."):
        place = place.get(part) if isinstance(place, dict) else None
    option = key.removeprefix("model.options.")
    if place is None and option != key and recipe.model.name in models:
        known = options_of(models[recipe.model.name])
        return known[option].default if option in known else None
    return place


def _literal(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text.strip()
