"""A recipe: everything that decides how a model learns, as frozen values that travel as JSON."""

from __future__ import annotations

import dataclasses
import json
import re
import typing
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from training.recipe.config import (
    CHOICES,
    LIMITS,
    DataConfig,
    LogConfig,
    LossConfig,
    ModelConfig,
    OptimizerConfig,
    RegularizeConfig,
    ScheduleConfig,
    TeacherConfig,
)
from zoo.build import check_options
from zoo.common.errors import BadOption, UnknownName, did_you_mean
from zoo.common.types import describe, fit_type
from zoo.specs.registry import Registry


@dataclasses.dataclass(frozen=True)
class Recipe:
    """Everything that decides how a model learns.

    Args:
        name: names the folder of its runs.
        model: which network.
        data: which data, and how it is served.
        optimizer: which optimizer.
        schedule: how the learning rate moves.
        loss: what is minimized.
        regularize: what keeps weights small.
        teacher: who else teaches; none if nobody does.
        log: what TensorBoard is told.
        epochs: passes over the training data.
        seed: of initial weights, order, augmentation and dropout.
        precision: "float32", "mixed_bfloat16", "mixed_float16" or "auto" (the fastest that trains safely here).
        strategy: "one", "mirrored", "multiworker" (a cluster by TF_CONFIG or SLURM), "tpu" or "auto", which takes the
            last two where there are some, and mirrored where there are several GPUs.
        replicas: devices of a mirrored strategy, 0 for all; on a machine without GPUs, logical CPUs.
        jit: whether XLA compiles the step: "on", "off" or "auto" (on one GPU).
        keep: which weights become the model: "best" on validation accuracy, or "last".
        checkpoint_seconds: longest time between two checkpoints; one is written after each epoch in any case.
        checkpoint_steps: most steps between two checkpoints; 0 leaves it to the time.
    """

    name: str
    model: ModelConfig = ModelConfig()
    data: DataConfig = DataConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    schedule: ScheduleConfig = ScheduleConfig()
    loss: LossConfig = LossConfig()
    regularize: RegularizeConfig = RegularizeConfig()
    teacher: TeacherConfig | None = None
    log: LogConfig = LogConfig()
    epochs: int = 10
    seed: int = 1
    precision: str = "auto"
    strategy: str = "auto"
    replicas: int = 0
    jit: str = "auto"
    keep: str = "best"
    checkpoint_seconds: float = 600.0
    checkpoint_steps: int = 0

    def __post_init__(self) -> None:
        _check(self)

    def override(self, **values: Any) -> Recipe:
        """Return the recipe with some values changed, `override(**{"optimizer.learning_rate": 0.05})`.

        Raises:
            BadOption: an unknown key (the nearest is named), or a value of the wrong type.
        """
        changed = self.to_json()
        for key, value in values.items():
            _set(changed, key, value)
        return Recipe.from_json(changed)

    def to_json(self) -> dict[str, Any]:
        """Return the recipe as JSON-safe values."""
        return json.loads(json.dumps(dataclasses.asdict(self)))

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Recipe:
        """Return the recipe of `to_json`; raises BadOption for unknown keys and wrong types."""
        return _from_json(cls, values, "")


def _check(recipe: Recipe) -> None:
    """Raise BadOption for a value that no recipe can have."""
    if not re.fullmatch(r"\w[\w.-]*", recipe.name):
        raise BadOption(
            f"name must be letters, digits, '_', '-' and '.', as it names a folder. Received: {recipe.name!r}"
        )
    for key, allowed in CHOICES.items():
        value = _value(recipe, key)
        if value not in allowed:
            known = [str(choice) for choice in allowed]
            raise BadOption(
                f"{key} must be one of {', '.join(known)}. Received: {key}={value!r}. {did_you_mean(str(value), known)}"
            )
    for key, (low, high) in LIMITS.items():
        value = _value(recipe, key)
        if value is not None and not low <= value <= high:
            raise BadOption(f"{key} must be from {low} to {high:g}. Received: {key}={value}")


def _value(recipe: Any, key: str) -> Any:
    """Return the value at a dotted key; None where there is nothing that could have it."""
    for part in key.split("."):
        recipe = None if recipe is None else getattr(recipe, part)
    return recipe


def parse_override(text: str) -> tuple[str, Any]:
    """Split "a.b=value" into the key and the value, read as JSON where it is JSON and as text otherwise.

    Raises:
        BadOption: there is no "=" or no key.
    """
    key, equals, value = text.partition("=")
    if not (equals and key.strip()):
        raise BadOption(f"An override is written key=value, such as optimizer.learning_rate=0.05. Received: {text!r}")
    try:
        return key.strip(), json.loads(value)
    except json.JSONDecodeError:
        return key.strip(), value


def _set(values: dict[str, Any], key: str, value: Any) -> None:
    """Change one value in nested JSON; the types are checked when the recipe is rebuilt."""
    *parents, last = key.split(".")
    if not all((*parents, last)):
        raise BadOption(f"A key is written a.b, without empty parts. Received: {key!r}")
    wanted: Any = Recipe
    place = values
    for depth, part in enumerate(parents, start=1):
        wanted = _field_type(wanted, part, key)
        if dataclasses.is_dataclass(wanted) and place[part] is None:
            place[part] = json.loads(json.dumps(dataclasses.asdict(wanted())))
        if not isinstance(place.get(part), dict):
            raise BadOption(f"{'.'.join(parents[:depth])} holds one value, not keys. Received: {key}={value!r}")
        place = place[part]
    if _field_type(wanted, last, key) is str and not isinstance(value, str):
        value = json.dumps(value)
    place[last] = value


def _field_type(owner: Any, name: str, key: str) -> Any:
    """Return the type of a field (its dataclass where it is one or None), or raise BadOption."""
    if not dataclasses.is_dataclass(owner):
        return dict
    types = typing.get_type_hints(owner)
    if name not in types:
        prefix = key.rpartition(name)[0]
        raise BadOption(f"A recipe has no key {key!r}. {did_you_mean(prefix + name, (prefix + t for t in types))}")
    inner = [t for t in typing.get_args(types[name]) if dataclasses.is_dataclass(t)]
    return inner[0] if inner else types[name]


def _from_json(cls: type, values: Any, place: str) -> Any:
    """Rebuild a dataclass from JSON, level by level."""
    if not isinstance(values, dict):
        raise BadOption(f"{place.rstrip('.') or 'A recipe'} must be a mapping of keys. Received: {values!r}")
    types = typing.get_type_hints(cls)
    _known(values, types, place)
    arguments = {}
    for name, value in values.items():
        nested = _field_type(cls, name, place + name)
        if dataclasses.is_dataclass(nested) and value is not None:
            arguments[name] = _from_json(nested, value, f"{place}{name}.")
        else:
            arguments[name] = fit_type(value, types[name], place + name)
    missing = [f.name for f in dataclasses.fields(cls) if f.default is f.default_factory and f.name not in values]
    if missing:
        raise BadOption(f"{place or 'recipe '}{missing[0]} is missing; it must be {describe(types[missing[0]])}")
    return cls(**arguments)


def _known(values: dict[str, Any], types: dict[str, Any], place: str) -> None:
    for name in values:
        if name not in types:
            known = [place + t for t in types]
            raise BadOption(f"A recipe has no key {place + name!r}. {did_you_mean(place + name, known)}")


recipes: Registry[Recipe] = Registry("recipe", "training.recipes", "zoo.recipes")


def register_recipe(recipe: Recipe) -> Recipe:
    """Register a recipe under its own name; raises DuplicateName if that is taken."""
    recipes.add(recipe.name, recipe)
    return recipe


def _absolute(recipe: Recipe) -> dict[str, str]:
    """Return what a recipe says of files, as absolute paths: the run outlives the folder it was started in."""
    found = {}
    for key in ("data.path", "model.weights", "teacher.run", "teacher.weights"):
        value = _value(recipe, key)
        # What else weights can be, such as "imagenet", is no file.
        if value and (key in ("data.path", "teacher.run") or Path(value).expanduser().is_file()):
            found[key] = str(Path(value).expanduser().absolute())
    return found


def resolve(recipe: Recipe | str, overrides: Iterable[tuple[str, Any]] = ()) -> Recipe:
    """Return a recipe from a registered name or as it is, overridden and with a model that takes its options."""
    if isinstance(recipe, str):
        recipe = recipes[recipe]
    elif not isinstance(recipe, Recipe):
        raise UnknownName(f"Expected the name of a recipe or a Recipe. Received: recipe={recipe!r}")
    resolved = recipe.override(**dict(overrides))
    resolved = resolved.override(**_absolute(resolved))
    check_options(resolved.model.name, resolved.model.options)
    return resolved
