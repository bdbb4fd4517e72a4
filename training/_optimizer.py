"""Optimizer and schedule of a recipe: Keras' own, by name."""

from __future__ import annotations

import inspect
from typing import Any

from training._recipe import Recipe, ScheduleConfig
from training._sgd import fused_sgd
from zoo._errors import BadOption, did_you_mean
from zoo._lazy import keras


def make_optimizer(recipe: Recipe, steps_per_epoch: int) -> Any:
    """Return the Keras optimizer of a recipe, its learning rate on schedule.

    Raises:
        BadOption: Keras has no optimizer of this name.
    """
    config = recipe.optimizer
    cls = _optimizer_class(config.name)
    known = inspect.signature(cls).parameters
    wanted = {"momentum": config.momentum, "nesterov": config.nesterov}
    arguments = {name: value for name, value in wanted.items() if name in known}
    rate = make_schedule(recipe.schedule, config.learning_rate, recipe.epochs, steps_per_epoch)
    # Without decay most of Keras' optimizers want None; those made for it want a number.
    decay = config.weight_decay or (None if known["weight_decay"].default is None else 0.0)
    optimizer = cls(rate, weight_decay=decay, global_clipnorm=config.clip_norm or None, **arguments)
    if config.weight_decay:
        optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    return optimizer


def _optimizer_class(name: str) -> Any:
    """Return the Keras optimizer whose class has this name, whatever the case, or our faster one of that name."""
    base = keras.optimizers.Optimizer
    classes = {
        n.lower(): c
        for n, c in inspect.getmembers(keras.optimizers, inspect.isclass)
        if issubclass(c, base) and c is not base and "weight_decay" in inspect.signature(c).parameters
    } | {"sgd": fused_sgd()}
    if name.lower() not in classes:
        raise BadOption(
            f"optimizer.name must be one of Keras' optimizers. Received: optimizer.name={name!r}. "
            f"{did_you_mean(name.lower(), classes)}"
        )
    return classes[name.lower()]


def make_schedule(config: ScheduleConfig, peak: float, epochs: int, steps_per_epoch: int) -> Any:
    """Return the learning rate as a Keras schedule, or as a number where it never moves."""
    warmup = round(config.warmup_epochs * steps_per_epoch)
    total = epochs * steps_per_epoch
    if warmup >= total:
        raise BadOption(
            f"schedule.warmup_epochs must be less than epochs={epochs}. "
            f"Received: schedule.warmup_epochs={config.warmup_epochs}"
        )
    if config.name == "constant" and not warmup:
        return peak
    return keras.optimizers.schedules.CosineDecay(
        initial_learning_rate=0.0 if warmup else peak,
        decay_steps=total - warmup,
        # A cosine that ends where it started is constant: one class serves both schedules.
        alpha=1.0 if config.name == "constant" else config.end,
        warmup_target=peak if warmup else None,
        warmup_steps=warmup,
    )
