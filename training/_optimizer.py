"""Optimizer and schedule of a recipe: Keras' own, by name."""

from __future__ import annotations

import functools
import inspect
from typing import Any

from training._adam import fused_adam
from training._configs import ScheduleConfig
from training._recipe import Recipe
from training._sgd import fused_sgd
from zoo._errors import BadOption, did_you_mean
from zoo._lazy import keras

# Weights by name that are no linear map: shrinking them regularizes nothing.
UNDECAYED = ["bias", "gamma", "beta", "embedding", "token"]


def make_optimizer(recipe: Recipe, steps_per_epoch: int) -> Any:
    """Return the Keras optimizer of a recipe, its learning rate on schedule.

    Raises:
        BadOption: Keras has no optimizer of this name, or the optimizer has no such option.
    """
    config = recipe.optimizer
    cls = _optimizer_class(config.name)
    known = inspect.signature(cls).parameters
    wanted = {"momentum": config.momentum, "nesterov": config.nesterov}
    arguments = {name: value for name, value in wanted.items() if name in known} | _moments(recipe, known)
    rate = make_schedule(recipe.schedule, config.learning_rate, recipe.epochs, steps_per_epoch)
    # Without decay most of Keras' optimizers want None; those made for it want a number.
    decay = config.weight_decay or (None if known["weight_decay"].default is None else 0.0)
    optimizer = cls(rate, weight_decay=decay, global_clipnorm=config.clip_norm or None, **arguments)
    if config.weight_decay:
        optimizer.exclude_from_weight_decay(var_names=UNDECAYED)
    return optimizer


def _moments(recipe: Recipe, known: Any) -> dict[str, float]:
    """Return the options that are left to Keras unless they are given."""
    config = recipe.optimizer
    given = {name: value for name, value in (("beta_2", config.beta_2), ("epsilon", config.epsilon)) if value}
    for name, value in given.items():
        if name not in known:
            raise BadOption(
                f"{config.name} has no {name}. Received: optimizer.{name}={value}. Leave it at 0, or use adam."
            )
    return given


def _optimizer_class(name: str) -> Any:
    """Return the Keras optimizer whose class has this name, whatever the case, or our faster one of that name."""
    base = keras.optimizers.Optimizer
    classes = {
        n.lower(): c
        for n, c in inspect.getmembers(keras.optimizers, inspect.isclass)
        if issubclass(c, base) and c is not base and "weight_decay" in inspect.signature(c).parameters
    } | {"sgd": fused_sgd(), "adam": fused_adam("Adam"), "adamw": fused_adam("AdamW")}
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
    if config.name == "inverse_sqrt":
        return _inverse_sqrt(config, peak, warmup)
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


def _inverse_sqrt(config: ScheduleConfig, peak: float, warmup: int) -> Any:
    if not warmup or config.end:
        raise BadOption(
            "schedule.name=inverse_sqrt needs a warm-up of at least one step and knows no end. "
            f"Received: schedule.warmup_epochs={config.warmup_epochs}, schedule.end={config.end}"
        )
    return inverse_sqrt()(peak, warmup)


@functools.cache
def inverse_sqrt() -> Any:
    """Return the class of a Keras schedule, InverseSqrt(peak, warmup): Vaswani et al. 2017, equation 3."""

    class InverseSqrt(keras.optimizers.schedules.LearningRateSchedule):
        """peak x min(step / warmup, sqrt(warmup / step)), steps counted from 1."""

        def __init__(self, peak: float, warmup: int) -> None:
            self.peak, self.warmup = peak, warmup

        def __call__(self, step: Any) -> Any:
            share = (keras.ops.cast(step, "float32") + 1.0) / self.warmup
            return self.peak * keras.ops.minimum(share, keras.ops.rsqrt(share))

        def get_config(self) -> dict[str, Any]:
            return {"peak": self.peak, "warmup": self.warmup}

    return InverseSqrt
