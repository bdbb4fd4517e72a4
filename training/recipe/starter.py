"""Starter files for your own recipes: a TOML file with values, or a Python module for a package."""

from __future__ import annotations

import dataclasses
import inspect
import json
import re
from pathlib import Path
from typing import Any

from training.recipe.recipe import Recipe, recipes
from zoo.common.errors import BadOption
from zoo.common.files import write_bytes
from zoo.reading.files import Refusal, read_bytes, reading
from zoo.reading.json_files import check_depth

SUFFIX = ".toml"
BASE = "base"
WIDTH = 100
LIMIT = 1 << 20  # bytes of a file


def read_recipe(path: Path) -> Recipe:
    """Return the recipe of a TOML file: a registered base under the name of the file, with the values of the file.

    Args:
        path: a file with "base", the name of a recipe, and keys of recipes in their tables; tables with free keys,
            such as [model.options], replace those of the base.

    Raises:
        BadOption: an unreadable file, an unknown key or an invalid value.
        UnknownName: an unknown base, model or dataset.
    """
    # tomllib is Python 3.11's; this is the same code.
    import tomli

    with reading(path, Refusal("Expected a recipe in TOML", BadOption, "Correct the file.")):
        values = tomli.loads(read_bytes(path, LIMIT).decode("utf-8"))
        check_depth(values)
    base = values.pop(BASE, None)
    if not isinstance(base, str):
        raise BadOption(f'{path} needs a line base = "RECIPE" before its tables; see: zoo recipes')
    named = recipes[base].override(name=_safe(path.stem))
    return named.override(**dict(_flat(values, named, "")))


def _flat(values: dict[str, Any], place: Any, prefix: str) -> list[tuple[str, Any]]:
    """Return nested values by dotted key, down to the fields of the recipe."""
    found = []
    for key, value in values.items():
        present = getattr(place, key, None)
        if dataclasses.is_dataclass(present) and isinstance(value, dict):
            found += _flat(value, present, f"{prefix}{key}.")
        else:
            found.append((prefix + key, value))
    return found


def write_starter(name: str, base: str, folder: Path, *, python: bool = False) -> Path:
    """Write a starter file that trains unchanged.

    Args:
        name: name of the recipe and the file.
        base: the recipe that provides the values.
        folder: folder of the file.
        python: write a module that registers the recipe, for a package, instead of TOML.

    Returns:
        The path of the file.

    Raises:
        BadOption: the file exists, or the name is invalid.
        UnknownName: an unknown base.
    """
    recipe = recipes[base].override(name=name)
    if python and not name.isidentifier():
        raise BadOption(f"A Python file needs a name of letters, digits and '_'. Received: {name!r}")
    path = folder / f"{name}{'.py' if python else SUFFIX}"
    if path.exists():
        raise BadOption(f"Expected a new file. Received: {path}, which exists. Choose another name.")
    write_bytes(path, (_module(recipe, base) if python else _toml(recipe, base, path)).encode())
    return path


def _toml(recipe: Recipe, base: str, path: Path) -> str:
    lines = [
        f"# A recipe with the values of {base}. Train it with: zoo train {path}",
        "# Remove the # before a key to change its value; other keys have the values of the base.",
        f"{BASE} = {json.dumps(base)}",
        *_table(recipe, ""),
    ]
    return "\n".join(lines) + "\n"


def _table(config: Any, place: str) -> list[str]:
    """Return the lines of one table, and of those below it."""
    descriptions, below, lines = _descriptions(type(config)), [], []
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            header = f"{place}{field.name}"
            below += ["", f"[{header}]", *_table(value, f"{header}.")]
        elif field.name != "name" or place:
            lines += ["", *(f"# {line}" for line in _wrapped(descriptions.get(field.name, "")))]
            lines.append(f"#{field.name} = {_value(value)}")
    return [*lines, *below]


def _descriptions(cls: type) -> dict[str, str]:
    """Return the description of each field in the docstring of a dataclass."""
    descriptions: dict[str, str] = {}
    name = ""
    for line in inspect.cleandoc(cls.__doc__ or "").partition("Args:\n")[2].splitlines():
        match = re.match(r"    (\w+): (.*)", line)
        if match:
            name = match[1]
            descriptions[name] = match[2]
        elif name and line.startswith("        "):
            descriptions[name] += f" {line.strip()}"
    return descriptions


def _wrapped(text: str) -> list[str]:
    import textwrap

    return textwrap.wrap(text, WIDTH)


def _value(value: Any) -> str:
    """Return a value as TOML; None, which TOML lacks, as an empty table."""
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{json.dumps(k)} = {_value(v)}" for k, v in value.items()) + " }" if value else "{}"
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(_value, value))}]"
    if value is None:
        return "{}"
    # TOML and JSON write strings, numbers and booleans the same way.
    return json.dumps(value, ensure_ascii=False)


def _module(recipe: Recipe, base: str) -> str:
    classes = sorted(_classes(recipe) - {"Recipe"})
    imports = "\n".join(f"    {name}," for name in classes)
    return f'''"""One line: the model and the dataset.

Command: zoo train {recipe.name}
Hardware: the hardware of the measurement.
Time: the duration.
Result: test accuracy, with seeds and examples.

The values are those of {base}. A package registers the recipe with an entry point of the group `zoo.recipes` that names
this module.
"""

from __future__ import annotations

from training import (
{imports}
    Recipe,
    register_recipe,
)

register_recipe(
    {_code(recipe, 1)}
)
'''


def _classes(value: Any) -> set[str]:
    """Return the names of the dataclasses that differ from their defaults."""
    if not dataclasses.is_dataclass(value):
        return set()
    return {type(value).__name__}.union(*(_classes(v) for _, v in _changed(value)))


def _changed(config: Any) -> list[tuple[str, Any]]:
    """Return the fields that are not at their defaults."""
    found = []
    for field in dataclasses.fields(config):
        default = field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
        if getattr(config, field.name) != default:
            found.append((field.name, getattr(config, field.name)))
    return found


def _code(value: Any, depth: int) -> str:
    """Return Python code for a value."""
    if not dataclasses.is_dataclass(value):
        return json.dumps(value) if isinstance(value, str) else repr(value)
    arguments = [f"{'    ' * (depth + 1)}{name}={_code(v, depth + 1)}," for name, v in _changed(value)]
    return "\n".join([f"{type(value).__name__}(", *arguments, f"{'    ' * depth})"])


def _safe(stem: str) -> str:
    """Return a file name as a valid recipe name."""
    return re.sub(r"[^\w.-]", "_", stem)
