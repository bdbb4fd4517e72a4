"""What the file of a recipe states in its docstring: Command, Hardware, Time and Result, read and not imported."""

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
# The mean over seeds where it is stated, else the first figure.
FIGURES = (
    re.compile(r"\bmean (?:accuracy )?(\d+(?:\.\d+)?%?)"),
    re.compile(r"\b(?:accuracy|top-1)\D{0,12}?(\d+(?:\.\d+)?%?)"),
)
# What stands for the accuracy of a task that has none, under its own name.
OTHERS = re.compile(r"\b(RMSE|MAE|mean average precision)\D{0,4}(\d+(?:\.\d+)?%?)")
OF_SEVERAL = re.compile(r"(\d+(?:\.\d+)?%?) \((\w+)\)")
TIME_OF_SEVERAL = re.compile(r"(\d+(?:\.\d+)? (?:s|min|h)) \((\w+)\)")


@dataclasses.dataclass(frozen=True)
class Note:
    """What a recipe states of itself; "" where it does not.

    Args:
        command: how it is run.
        hardware: on what it was measured.
        time: how long that took.
        result: what it reached, in words.
        accuracy: the one figure of the result, as it is written.
        published: whether the result is a publication's and was not measured here.
    """

    command: str = ""
    hardware: str = ""
    time: str = ""
    result: str = ""
    accuracy: str = ""
    published: bool = False

    @property
    def shown(self) -> str:
        """The accuracy, marked where it is a publication's."""
        return self.accuracy + " (published)" * (self.published and bool(self.accuracy))

    def to_json(self) -> dict[str, Any]:
        """Return the note as JSON-safe values."""
        return dataclasses.asdict(self)


def note(name: str) -> Note:
    """Return what the file of a registered recipe states; of one that has no file, nothing."""
    origin = recipes.origin(name)
    spec = importlib.util.find_spec(origin) if origin else None
    if spec is None or not spec.origin:
        return Note()
    return read_note(Path(spec.origin).read_text(encoding="utf-8"), name)


def read_note(source: str, name: str) -> Note:
    """Return what the docstring of a Python file states of a recipe.

    Figures of several are "91.25% (20), 92.49% (32)", their times "of one core, 11 s (20), 13 s (32)"; what stands in
    brackets are the ends of the recipes' names.
    """
    found: dict[str, str] = {}
    key = ""
    for line in (ast.get_docstring(ast.parse(source)) or "").splitlines():
        match = START.match(line)
        # A value goes on until an empty line.
        key = match[1] if match else key * bool(line.strip())
        if key:
            text = line[match.end() :] if match else line
            found[key] = f"{found.get(key, '')} {text.strip()}".strip()
    result, time = found.get("Result", ""), found.get("Time", "")
    own = _own(OF_SEVERAL, result, name)
    for spent in _own(TIME_OF_SEVERAL, time, name):
        found["Time"] = " ".join([spent, *TIME_OF_SEVERAL.split(time)[:1]]).strip(" ,")
    figures = (pattern.search(result) for pattern in FIGURES)
    other = OTHERS.search(result)
    named = [f"{other[1]} {other[2]}"] if other else []
    return Note(
        **{key.lower(): text for key, text in found.items()},
        accuracy=next(iter([*own, *named, *(match[1] for match in figures if match)]), ""),
        published=bool(re.match(r"published\b", result, re.IGNORECASE)),
    )


def _own(pattern: re.Pattern[str], text: str, name: str) -> list[str]:
    """Return what a text states of several recipes for the one of this name."""
    return [stated for stated, end in pattern.findall(text) if name.lower().endswith(end.lower())]
