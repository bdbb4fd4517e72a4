"""A recipe: everything that decides how a model learns, as frozen values that travel as JSON."""

from __future__ import annotations

import dataclasses
import json
import re
import typing
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from zoo._build import check_options
from zoo._errors import BadOption, UnknownName, did_you_mean
from zoo._preprocessing import Preprocessing
from zoo._registry import Registry
from zoo._types import describe, fit_type


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """Which network: a registered name and the options of its family."""

    name: str = "resnet_tiny"
    options: dict[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class AugmentConfig:
    """What happens to training images only; all 0 leaves them as they are.

    Args:
        flip: mirror half of the images left to right.
        shift: largest translation, as a share of height and width.
        rotate: largest rotation, degrees.
        zoom: largest change of scale, as a share.
        fill: what comes in at the edges: "constant" (zeros), "reflect" or "nearest".
    """

    flip: bool = False
    shift: float = 0.0
    rotate: float = 0.0
    zoom: float = 0.0
    fill: str = "constant"


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """Which data, and how it is served.

    Args:
        name: a registered dataset ("digits", "folder"), or the name of a TFDS dataset.
        path: the folder of a "folder" dataset; where TFDS keeps its data for the others.
        batch_size: examples a step, over all replicas together.
        image_size: (height, width) that images are resized to; none takes the dataset's or the model's own.
        channels: 1 for grey, 3 for colour, 0 for what the dataset has.
        length: (tokens,) of a text, or (source tokens, target tokens), that texts are cut or padded to; none takes the
            model's own.
        vocabulary: most tokens, special ones included, of a vocabulary that is learnt from the data; 0 takes the
            model's own number.
        skip_bad: leave images out that cannot be decoded, instead of stopping.
        augment: what happens to training images.
        preprocessing: scaling and cropping; none takes the dataset's own, else the model's.
    """

    name: str = "digits"
    path: str = ""
    batch_size: int = 64
    image_size: tuple[int, ...] = ()
    channels: int = 0
    length: tuple[int, ...] = ()
    vocabulary: int = 0
    skip_bad: bool = False
    augment: AugmentConfig = AugmentConfig()
    preprocessing: Preprocessing | None = None


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
    """Which optimizer of Keras; biases, normalization, scales of layers, embeddings and tokens are never decayed.

    Args:
        name: "sgd", "adam", "adamw", "rmsprop", "adagrad", "lion" or another of Keras'.
        learning_rate: its peak, for a batch of `data.batch_size`.
        momentum: for optimizers that have it (sgd, rmsprop).
        nesterov: Nesterov momentum, for sgd.
        weight_decay: decoupled decay a step, multiplied by the learning rate.
        clip_norm: largest norm of all gradients together; 0 for no clipping.
        beta_2: share of the running mean of squared gradients that a step keeps (adam and its kin); 0 for Keras' own.
        epsilon: what is added to a root before dividing by it (adam and its kin); 0 for Keras' own.
    """

    name: str = "sgd"
    learning_rate: float = 0.1
    momentum: float = 0.9
    nesterov: bool = True
    weight_decay: float = 0.0
    clip_norm: float = 0.0
    beta_2: float = 0.0
    epsilon: float = 0.0


@dataclasses.dataclass(frozen=True)
class ScheduleConfig:
    """How the learning rate moves: linear warm-up over some epochs to the peak, then on by name.

    Args:
        name: "constant"; "cosine" to `end` x peak; or "inverse_sqrt", peak x sqrt(warm-up steps / step), with steps
            from 1, which is equation 3 of Vaswani et al. 2017 (arXiv:1706.03762) and needs a warm-up.
        warmup_epochs: epochs of the warm-up.
        end: share of the peak at which a cosine ends.
    """

    name: str = "cosine"
    warmup_epochs: float = 0.0
    end: float = 0.0


@dataclasses.dataclass(frozen=True)
class LossConfig:
    """Categorical cross-entropy on logits, with a share of each label spread over all classes, or over the vocabulary.

    Of a sequence it is the mean over all tokens of a batch that are not padding.
    """

    label_smoothing: float = 0.0


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
        epochs: passes over the training data.
        seed: of initial weights, order, augmentation and dropout.
        precision: "float32", "mixed_bfloat16", "mixed_float16" or "auto" (the fastest that trains safely here).
        strategy: "one", "mirrored" or "auto" (mirrored where there are several GPUs).
        replicas: devices of a mirrored strategy, 0 for all; on a machine without GPUs, logical CPUs.
        keep: which weights become the model: "best" on validation accuracy, or "last".
        checkpoint_seconds: longest time between two checkpoints; one is written after each epoch in any case.
    """

    name: str
    model: ModelConfig = ModelConfig()
    data: DataConfig = DataConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    schedule: ScheduleConfig = ScheduleConfig()
    loss: LossConfig = LossConfig()
    epochs: int = 10
    seed: int = 1
    precision: str = "auto"
    strategy: str = "auto"
    replicas: int = 0
    keep: str = "best"
    checkpoint_seconds: float = 600.0

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


CHOICES = {
    "precision": ("auto", "float32", "mixed_bfloat16", "mixed_float16"),
    "strategy": ("auto", "one", "mirrored"),
    "keep": ("best", "last"),
    "schedule.name": ("constant", "cosine", "inverse_sqrt"),
    "data.augment.fill": ("constant", "reflect", "nearest"),
    "data.channels": (0, 1, 3),
}
# Smallest value, largest value and whether the ends are allowed.
LIMITS = {
    "epochs": (1, 1e6),
    "replicas": (0, 4096),
    "seed": (0, 2**31 - 1),
    "checkpoint_seconds": (0, 1e9),
    "data.batch_size": (1, 1e6),
    "data.vocabulary": (0, 1e7),
    "data.augment.shift": (0, 1),
    "data.augment.rotate": (0, 180),
    "data.augment.zoom": (0, 0.99),
    "optimizer.learning_rate": (0, 1e38),
    "optimizer.momentum": (0, 1),
    "optimizer.weight_decay": (0, 1),
    "optimizer.clip_norm": (0, 1e38),
    "optimizer.beta_2": (0, 0.999999),
    "optimizer.epsilon": (0, 1),
    "schedule.warmup_epochs": (0, 1e6),
    "schedule.end": (0, 1),
    "loss.label_smoothing": (0, 0.99),
}


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
        if not low <= value <= high:
            raise BadOption(f"{key} must be from {low} to {high:g}. Received: {key}={value}")


def _value(recipe: Any, key: str) -> Any:
    for part in key.split("."):
        recipe = getattr(recipe, part)
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


def register(recipe: Recipe) -> Recipe:
    """Register a recipe under its own name; raises DuplicateName if that is taken."""
    recipes.add(recipe.name, recipe)
    return recipe


def resolve(recipe: Recipe | str, overrides: Iterable[tuple[str, Any]] = ()) -> Recipe:
    """Return a recipe from a registered name or as it is, overridden and with a model that takes its options."""
    if isinstance(recipe, str):
        recipe = recipes[recipe]
    elif not isinstance(recipe, Recipe):
        raise UnknownName(f"Expected the name of a recipe or a Recipe. Received: recipe={recipe!r}")
    resolved = recipe.override(**dict(overrides))
    if resolved.data.path:
        # The run outlives the folder it was started in.
        resolved = resolved.override(**{"data.path": str(Path(resolved.data.path).expanduser().absolute())})
    check_options(resolved.model.name, resolved.model.options)
    return resolved
