"""Starter files for recipes of one's own: a TOML file that only holds values, or a Python file for a package."""

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

SUFFIX = ".toml"
BASE = "base"
WIDTH = 100


def read_recipe(path: Path) -> Recipe:
    """Return the recipe of a TOML file: a registered one under the file's name, with the values that the file states.

    Args:
        path: holds "base", the name of a recipe, and keys of recipes in their tables; tables of free keys, such as
            [model.options], replace those of the base.

    Raises:
        BadOption: the file cannot be read, or holds an unknown key or a value that cannot be.
        UnknownName: there is no such base.
    """
    # tomllib is Python 3.11's; this is the same code.
    import tomli

    try:
        values = tomli.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomli.TOMLDecodeError) as error:
        raise BadOption(f"Expected a recipe in TOML. Received: {path}: {error}") from error
    base = values.pop(BASE, None)
    if not isinstance(base, str):
        raise BadOption(f'{path} needs a line base = "RECIPE" before its tables; see: zoo recipes')
    named = recipes[base].override(name=_safe(path.stem))
    return named.override(**dict(_flat(values, named, "")))


def _flat(values: dict[str, Any], place: Any, prefix: str) -> list[tuple[str, Any]]:
    """Return nested values by dotted key, as deep as the recipe has keys of its own."""
    found = []
    for key, value in values.items():
        present = getattr(place, key, None)
        if dataclasses.is_dataclass(present) and isinstance(value, dict):
            found += _flat(value, present, f"{prefix}{key}.")
        else:
            found.append((prefix + key, value))
    return found


def write_starter(name: str, base: str, folder: Path, *, python: bool = False) -> Path:
    """Write a file to start from, which trains as it is.

    Args:
        name: of the recipe and the file.
        base: the recipe whose values it begins with.
        folder: where it goes.
        python: write a module that registers the recipe, for a package, instead of TOML.

    Returns:
        The file.

    Raises:
        BadOption: the file is there already, or the name cannot be one.
        UnknownName: there is no such base.
    """
    recipe = recipes[base].override(name=name)
    if python and not name.isidentifier():
        raise BadOption(f"A Python file needs a name of letters, digits and '_'. Received: {name!r}")
    path = folder / f"{name}{'.py' if python else SUFFIX}"
    if path.exists():
        raise BadOption(f"A starter file never replaces another. Received: {path}, which is there already.")
    write_bytes(path, (_module(recipe, base) if python else _toml(recipe, base, path)).encode())
    return path


def _toml(recipe: Recipe, base: str, path: Path) -> str:
    lines = [
        f"# A recipe that begins with the values of {base}. Train it by: zoo train {path}",
        "# Take the # away before a key to change its value; what is left out is as in the base.",
        f"{BASE} = {json.dumps(base)}",
        *_table(recipe, ""),
    ]
    return "\n".join(lines) + "\n"


def _table(config: Any, place: str) -> list[str]:
    """Return the lines of one table, and of those below it."""
    told, below, lines = _told(type(config)), [], []
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            header = f"{place}{field.name}"
            below += ["", f"[{header}]", *_table(value, f"{header}.")]
        elif field.name != "name" or place:
            lines += ["", *(f"# {line}" for line in _wrapped(told.get(field.name, "")))]
            lines.append(f"#{field.name} = {_value(value)}")
    return [*lines, *below]


def _told(cls: type) -> dict[str, str]:
    """Return what the docstring of a dataclass says of each field."""
    told: dict[str, str] = {}
    name = ""
    for line in inspect.cleandoc(cls.__doc__ or "").partition("Args:\n")[2].splitlines():
        match = re.match(r"    (\w+): (.*)", line)
        if match:
            name = match[1]
            told[name] = match[2]
        elif name and line.startswith("        "):
            told[name] += f" {line.strip()}"
    return told


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
    # TOML and JSON agree on texts, numbers and truth.
    return json.dumps(value, ensure_ascii=False)


def _module(recipe: Recipe, base: str) -> str:
    classes = sorted(_classes(recipe) - {"Recipe"})
    imports = "\n".join(f"    {name}," for name in classes)
    return f'''"""One line that says what is trained on what.

Command: zoo train {recipe.name}
Hardware: what it was measured on.
Time: how long it took.
Result: test accuracy, with seeds and examples.

It begins with the values of {base}. A package makes it known by an entry point of the group `zoo.recipes` that names
this module, or by lying in `training/recipes`.
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
    """Return a file's name as one that a recipe can have."""
    return re.sub(r"[^\w.-]", "_", stem)
