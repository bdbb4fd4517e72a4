"""The metadata in the docstring of a recipe file: Command, Hardware, Time and Result; the file is not imported."""

from __future__ import annotations

import ast
import dataclasses
import importlib.util
import re
from pathlib import Path
from typing import Any

from training.recipe.recipe import recipes

KEYS = ("Command", "Hardware", "Time", "Result")
START = re.compile(rf"({'|'.join(KEYS)}): ")
# The mean over seeds if there is one, else the first metric.
METRICS = (
    re.compile(r"\bmean (?:accuracy )?(\d+(?:\.\d+)?%?)"),
    re.compile(r"\b(?:accuracy|top-1)\D{0,12}?(\d+(?:\.\d+)?%?)"),
)
# Metrics of tasks without accuracy.
OTHERS = re.compile(r"\b(RMSE|MAE|mean average precision)\D{0,4}(\d+(?:\.\d+)?%?)")
OF_SEVERAL = re.compile(r"(\d+(?:\.\d+)?%?) \((\w+)\)")
TIME_OF_SEVERAL = re.compile(r"(\d+(?:\.\d+)? (?:s|min|h)) \((\w+)\)")


@dataclasses.dataclass(frozen=True)
class RecipeMetadata:
    """How a recipe is run and what it reaches; "" for lines that its docstring does not have.

    Args:
        command: the command that runs it.
        hardware: the hardware of the measurement.
        time: its duration.
        result: its metrics, in words.
        accuracy: the main metric of the result, as written.
        published: whether the result is from a publication and was not measured here.
    """

    command: str = ""
    hardware: str = ""
    time: str = ""
    result: str = ""
    accuracy: str = ""
    published: bool = False

    @property
    def shown(self) -> str:
        """Return the accuracy, marked if it is published."""
        return self.accuracy + " (published)" * (self.published and bool(self.accuracy))

    def to_json(self) -> dict[str, Any]:
        """Return the metadata as JSON-safe values."""
        return dataclasses.asdict(self)


def recipe_metadata(name: str) -> RecipeMetadata:
    """Return the metadata of a registered recipe, empty if it has no file."""
    origin = recipes.origin(name)
    spec = importlib.util.find_spec(origin) if origin else None
    if spec is None or not spec.origin:
        return RecipeMetadata()
    return parse_metadata(Path(spec.origin).read_text(encoding="utf-8"), name)


def parse_metadata(source: str, name: str) -> RecipeMetadata:
    """Return the metadata of a recipe from the docstring of its Python file.

    Metrics of several recipes are "91.25% (20), 92.49% (32)", their times "of one core, 11 s (20), 13 s (32)"; the ends
    of their names are in parentheses.

    Args:
        source: the text of the file.
        name: the recipe.
    """
    found: dict[str, str] = {}
    key = ""
    for line in (ast.get_docstring(ast.parse(source)) or "").splitlines():
        match = START.match(line)
        # A value ends at an empty line.
        key = match[1] if match else key * bool(line.strip())
        if key:
            text = line[match.end() :] if match else line
            found[key] = f"{found.get(key, '')} {text.strip()}".strip()
    result, time = found.get("Result", ""), found.get("Time", "")
    own = _of_recipe(OF_SEVERAL, result, name)
    for spent in _of_recipe(TIME_OF_SEVERAL, time, name):
        found["Time"] = " ".join([spent, *TIME_OF_SEVERAL.split(time)[:1]]).strip(" ,")
    metrics = (pattern.search(result) for pattern in METRICS)
    other = OTHERS.search(result)
    named = [f"{other[1]} {other[2]}"] if other else []
    return RecipeMetadata(
        **{key.lower(): text for key, text in found.items()},
        accuracy=next(iter([*own, *named, *(match[1] for match in metrics if match)]), ""),
        published=bool(re.match(r"published\b", result, re.IGNORECASE)),
    )


def _of_recipe(pattern: re.Pattern[str], text: str, name: str) -> list[str]:
    """Return the values in a text for the recipe of this name."""
    return [value for value, end in pattern.findall(text) if name.lower().endswith(end.lower())]
