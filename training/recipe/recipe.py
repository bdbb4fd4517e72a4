"""Recipes: everything that defines a training, as frozen values that convert to and from JSON."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from training.recipe.config import (
    DataConfig,
    FinetuneConfig,
    LogConfig,
    LossConfig,
    ModelConfig,
    OptimizerConfig,
    RegularizeConfig,
    ScheduleConfig,
    TeacherConfig,
)
from training.recipe.keys import field_type, field_types, parse_override, set_value, unknown_key, value_at
from training.recipe.model_names import locate_values, located, located_teacher
from training.recipe.other_model import leave_out
from training.recipe.validation import validate
from zoo.common.errors import BadOption, UnknownName
from zoo.common.portable_paths import locate
from zoo.common.types import describe, fit_type
from zoo.specs.registry import Registry
from zoo.weights.references import is_address, is_repository

__all__ = ["Recipe", "parse_override", "recipes", "register_recipe", "resolve"]


@dataclasses.dataclass(frozen=True)
class Recipe:
    """Everything that defines a training; validated when it is made.

    Args:
        name: the recipe's name, which also names the folder of its runs.
        model: the model.
        data: the dataset, and how it is read.
        optimizer: the optimizer.
        schedule: the learning-rate schedule.
        loss: the loss.
        regularize: regularization.
        finetune: stages of fine-tuning.
        teacher: knowledge distillation; null for none.
        log: what TensorBoard shows.
        epochs: passes over the training split.
        seed: seed of initial weights, order, augmentation and dropout.
        precision: "float32", "mixed_bfloat16", "mixed_float16" or "auto" (the fastest that trains safely here).
        strategy: "one", "mirrored", "multiworker" (a cluster by TF_CONFIG or SLURM), "tpu" or "auto": a cluster or TPU
            if there is one, mirrored on several GPUs, else one.
        replicas: devices of a mirrored strategy, 0 for all; on a machine without GPUs, logical CPUs.
        jit: compile the step with XLA: "on", "off" or "auto" (on one GPU).
        save: the weights of the final model: "best" by validation metric, or "last".
        checkpoint_seconds: maximum time between two checkpoints; each epoch ends with one in any case.
        checkpoint_steps: maximum steps between two checkpoints; 0 for no limit.

    Raises:
        BadOption: a value of the wrong type or out of range, or values that contradict each other.
        UnknownName: an unknown model or dataset.
    """

    name: str
    model: ModelConfig = ModelConfig()
    data: DataConfig = DataConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    schedule: ScheduleConfig = ScheduleConfig()
    loss: LossConfig = LossConfig()
    regularize: RegularizeConfig = RegularizeConfig()
    finetune: FinetuneConfig = FinetuneConfig()
    teacher: TeacherConfig | None = None
    log: LogConfig = LogConfig()
    epochs: int = 10
    seed: int = 1
    precision: str = "auto"
    strategy: str = "auto"
    replicas: int = 0
    jit: str = "auto"
    save: str = "best"
    checkpoint_seconds: float = 600.0
    checkpoint_steps: int = 0

    def __post_init__(self) -> None:
        if isinstance(self.model, ModelConfig):
            object.__setattr__(self, "model", located(self.model))
        if isinstance(self.teacher, TeacherConfig):
            object.__setattr__(self, "teacher", located_teacher(self.teacher))
        validate(self)

    def override(self, **values: Any) -> Recipe:
        """Return the recipe with some values changed, `override(**{"optimizer.learning_rate": 0.05})`.

        With another `model.name`, options that the recipe states for its own model are left out, with a warning.

        Args:
            **values: new values by dotted key.

        Raises:
            BadOption: an unknown key (the nearest is named), or an invalid value.
            UnknownName: an unknown model or dataset.
        """
        changed, values = self.to_json(), locate_values(values)
        leave_out(changed, values)
        for key, value in values.items():
            set_value(changed, key, value, Recipe)
        return Recipe.from_json(changed)

    def to_json(self) -> dict[str, Any]:
        """Return the recipe as JSON-safe values."""
        return json.loads(json.dumps(dataclasses.asdict(self)))

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Recipe:
        """Return the recipe of `to_json`.

        Raises:
            BadOption: an unknown key or an invalid value.
            UnknownName: an unknown model or dataset.
        """
        return _from_json(cls, values, "")


def _from_json(cls: type, values: Any, prefix: str) -> Any:
    """Rebuild a dataclass from JSON, level by level."""
    if not isinstance(values, dict):
        raise BadOption(f"{prefix.rstrip('.') or 'A recipe'} must be a mapping of keys. Received: {values!r}")
    types = field_types(cls)
    arguments = {}
    for name, value in values.items():
        if name not in types:
            raise unknown_key(prefix + name, Recipe)
        nested = field_type(cls, name, prefix + name, Recipe)
        if dataclasses.is_dataclass(nested) and value is not None:
            arguments[name] = _from_json(nested, value, f"{prefix}{name}.")
        else:
            arguments[name] = fit_type(value, types[name], prefix + name)
    missing = [f.name for f in dataclasses.fields(cls) if f.default is f.default_factory and f.name not in values]
    if missing:
        raise BadOption(f"{prefix or 'recipe '}{missing[0]} is missing; it must be {describe(types[missing[0]])}")
    return cls(**arguments)


# Keys whose values are paths, or can be.
PATHS = ("data.path", "model.weights", "teacher.run", "teacher.weights")
recipes: Registry[Recipe] = Registry("recipe", "training.recipes", "zoo.recipes")


def register_recipe(recipe: Recipe) -> Recipe:
    """Register a recipe under its own name and return it; raises DuplicateName if the name is taken."""
    recipes.add(recipe.name, recipe)
    return recipe


def _absolute_paths(recipe: Recipe) -> dict[str, str]:
    """Return the paths in a recipe as absolute ones, as a run outlives the working directory."""
    found = {}
    for key in PATHS:
        value = value_at(recipe, key)
        # Weights can also be a name such as "imagenet".
        if value and (key in ("data.path", "teacher.run") or _is_local(value)):
            found[key] = str(Path(value).expanduser().absolute())
    return found


def with_paths(recipe: Recipe, change: Callable[[str], str]) -> tuple[Recipe, list[str]]:
    """Return a recipe with changed paths, as for a file or for readers, and the keys of its paths."""
    found = _absolute_paths(recipe)
    return recipe.override(**{key: change(value) for key, value in found.items()}), list(found)


def with_located_paths(recipe: Recipe, keys: Iterable[str], folder: Path) -> Recipe:
    """Return the recipe of a file in a folder with absolute paths; `keys` are those that the file lists."""
    values = {key: value_at(recipe, key) for key in keys if key in PATHS}
    return recipe.override(**{key: str(locate(value, folder)) for key, value in values.items() if value})


def _is_local(weights: str) -> bool:
    """Return whether weights are a file or a folder of this machine."""
    path = Path(weights).expanduser()
    return path.is_file() or (not is_address(weights) and is_repository(str(path)))


def resolve(recipe: Recipe | str, overrides: Iterable[tuple[str, Any]] = ()) -> Recipe:
    """Return a recipe by its registered name or as it is, with overrides and absolute paths.

    Args:
        recipe: a registered name or a Recipe.
        overrides: pairs of a dotted key and its value.
    """
    if isinstance(recipe, str):
        recipe = recipes[recipe]
    elif not isinstance(recipe, Recipe):
        raise UnknownName(f"Expected the name of a recipe or a Recipe. Received: recipe={recipe!r}")
    changed = recipe.override(**dict(overrides))
    return changed.override(**_absolute_paths(changed))
