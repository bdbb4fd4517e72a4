"""Optimizer of a recipe: Keras' own, by name, with what Keras leaves open."""

from __future__ import annotations

import dataclasses
import inspect
from typing import Any

from training.optim.adam import fused_adam
from training.optim.ema import averaging, measured
from training.optim.layer_decay import by_depth, shares
from training.optim.lbfgs import NAME as LBFGS
from training.optim.lbfgs import is_asked
from training.optim.muon import muon
from training.optim.schedules import by_update, make_schedule
from training.optim.sgd import fused_sgd
from training.recipe.config import OptimizerConfig
from training.recipe.recipe import Recipe
from zoo.common.errors import BadOption, did_you_mean
from zoo.common.lazy import keras

# Weights by name that are no linear map: shrinking them regularizes nothing.
UNDECAYED = ["bias", "gamma", "beta", "embedding", "token"]
# The textbook's names of what is SGD in Keras.
NAMED = {"momentum": {"name": "sgd", "nesterov": False}, "nesterov": {"name": "sgd", "nesterov": True}}
# Options that are left to Keras where they are 0.
MOMENTS = ("beta_1", "beta_2", "epsilon", "rho")
CLIPS = {"clip_norm": "global_clipnorm", "clip_each": "clipnorm", "clip_value": "clipvalue"}


def make_optimizer(recipe: Recipe, steps_per_epoch: int) -> Any:
    """Return the Keras optimizer of a recipe, its learning rate on schedule.

    Raises:
        BadOption: Keras has no optimizer of this name, or an option that the optimizer does not have.
    """
    if is_asked(recipe):
        # It has no state of its own; Keras wants an optimizer all the same.
        return keras.optimizers.SGD(recipe.optimizer.learning_rate)
    config = _named(recipe.optimizer)
    cls = optimizer_class(config)
    known = inspect.signature(optimizer_class(config, plain=True)).parameters
    wanted = {"momentum": config.momentum, "nesterov": config.nesterov}
    arguments = {name: value for name, value in wanted.items() if name in known}
    arguments |= _moments(config, known) | _clipping(config) | _steps(recipe, steps_per_epoch)
    if config.ema:
        arguments["ema_momentum"] = config.ema
    every = config.accumulate
    rate = make_schedule(recipe.schedule, config.learning_rate, recipe.epochs, steps_per_epoch / every)
    if every > 1 and callable(rate):
        rate = by_update()(rate, every)
    # Without decay most of Keras' optimizers want None; those made for it want a number.
    decay = config.weight_decay or (None if known["weight_decay"].default is None else 0.0)
    optimizer = cls(rate, weight_decay=decay, **arguments)
    if config.weight_decay:
        optimizer.exclude_from_weight_decay(var_names=UNDECAYED)
    return optimizer


def fit_optimizer(optimizer: Any, model: Any, config: OptimizerConfig) -> None:
    """Tell an optimizer, before it is built, what it has to know of the network."""
    if config.ema:
        optimizer.follow(measured(model))
    if _by_depth(config):
        optimizer.shares = shares(model, config.layer_decay)


def _named(config: OptimizerConfig) -> OptimizerConfig:
    """Return the configuration with the textbook's names resolved."""
    changed = NAMED.get(config.name.lower(), {})
    if changed and not config.momentum:
        raise BadOption(f"optimizer.name={config.name} needs momentum. Received: optimizer.momentum=0.0")
    return dataclasses.replace(config, **changed)


def _by_depth(config: OptimizerConfig) -> bool:
    return config.layer_decay not in (0, 1)


def optimizer_class(config: OptimizerConfig, plain: bool = False) -> Any:
    """Return the class of a recipe's optimizer: Keras' of that name, or our faster one, with what is asked of it.

    Args:
        config: which.
        plain: leave out what is asked of it.
    """
    cls = _class_of(config.name)
    if plain:
        return cls
    cls = by_depth(cls) if _by_depth(config) else cls
    return averaging(cls) if config.ema else cls


def _moments(config: OptimizerConfig, known: Any) -> dict[str, float]:
    """Return the options that are left to Keras unless they are given."""
    given = {name: getattr(config, name) for name in MOMENTS if getattr(config, name)}
    found = {}
    for name, value in given.items():
        keys = [key for key in (name, f"adam_{name}") if key in known]
        if not keys:
            raise BadOption(
                f"{config.name} has no {name}. Received: optimizer.{name}={value}. Leave it at 0, or use "
                f"{'rmsprop' if name == 'rho' else 'adam'}."
            )
        found[keys[0]] = value
    return found


def _clipping(config: OptimizerConfig) -> dict[str, float]:
    """Return how gradients are clipped, as Keras calls it; one way only, as their order would matter."""
    given = {name: getattr(config, name) for name in CLIPS if getattr(config, name)}
    if len(given) > 1:
        shown = ", ".join(f"optimizer.{name}={value}" for name, value in given.items())
        raise BadOption(f"Gradients are clipped in one way only. Received: {shown}")
    return {CLIPS[name]: value for name, value in given.items()}


def _steps(recipe: Recipe, steps_per_epoch: int) -> dict[str, int]:
    """Return how many steps make an update, as Keras calls it."""
    count = recipe.optimizer.accumulate
    if count > recipe.epochs * steps_per_epoch:
        raise BadOption(
            f"optimizer.accumulate must be at most the {recipe.epochs * steps_per_epoch} steps of the training. "
            f"Received: optimizer.accumulate={count}"
        )
    return {"gradient_accumulation_steps": count} if count > 1 else {}


def _class_of(name: str) -> Any:
    """Return the Keras optimizer whose class has this name, whatever the case, or our own one of that name."""
    base = keras.optimizers.Optimizer
    classes = {
        n.lower(): c
        for n, c in inspect.getmembers(keras.optimizers, inspect.isclass)
        if issubclass(c, base) and c is not base and "weight_decay" in inspect.signature(c).parameters
    }
    classes |= {"sgd": fused_sgd(), "adam": fused_adam("Adam"), "adamw": fused_adam("AdamW"), "muon": muon()}
    if name.lower() not in classes:
        raise BadOption(
            f"optimizer.name must be one of Keras' optimizers. Received: optimizer.name={name!r}. "
            f"{did_you_mean(name.lower(), [*classes, *NAMED, LBFGS])}"
        )
    return classes[name.lower()]
