"""Make the optimizer of a recipe: Keras' own, by name, with averaging, layer decay and hooks."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable
from typing import Any

from training.optim.adam import fused_adam
from training.optim.ema import batch_statistics, with_ema
from training.optim.layer_decay import rate_multipliers, with_layer_decay
from training.optim.lbfgs import is_lbfgs
from training.optim.muon import muon
from training.optim.schedule_classes import by_update, constant
from training.optim.schedules import make_schedule
from training.optim.sgd import fused_sgd
from training.optim.step_hooks import observable
from training.recipe.config import OptimizerConfig
from training.recipe.limits import ALIASES, MOMENTS
from training.recipe.recipe import Recipe
from zoo.common.errors import BadOption
from zoo.common.fused import use_fused
from zoo.common.lazy import keras

# Names of weights that are no linear map: weight decay does not regularize them.
UNDECAYED = ["bias", "gamma", "beta", "embedding", "token"]
CLIPS = {"clip_norm": "global_clipnorm", "clip_each": "clipnorm", "clip_value": "clipvalue"}


def same(cls: Any) -> Any:
    """Return a class unchanged."""
    return cls


def make_optimizer(recipe: Recipe, steps_per_epoch: int, adapt: Callable[[Any], Any] = same) -> Any:
    """Return the Keras optimizer of a recipe with its learning-rate schedule.

    Args:
        recipe: the recipe.
        steps_per_epoch: steps in an epoch.
        adapt: returns a subclass of an optimizer for a device; see `training.distributed.device.Device`.

    Raises:
        BadOption: gradients are accumulated over more steps than there are.
    """
    if is_lbfgs(recipe):
        # L-BFGS keeps its state elsewhere; Keras needs an optimizer all the same.
        return keras.optimizers.SGD(recipe.optimizer.learning_rate)
    config = _resolve_alias(recipe.optimizer)
    parameters = inspect.signature(keras_class(config.name)).parameters
    options = {"momentum": config.momentum, "nesterov": config.nesterov}
    arguments = {name: value for name, value in options.items() if name in parameters}
    arguments |= _moments(config, parameters) | _clipping(config) | _accumulation(recipe, steps_per_epoch)
    if config.ema:
        arguments["ema_momentum"] = config.ema
    rate = learning_rate(recipe, steps_per_epoch)
    # Most Keras optimizers use None for no decay; AdamW and Lion require a number.
    decay = config.weight_decay or (None if parameters["weight_decay"].default is None else 0.0)
    optimizer = observable(adapt(optimizer_class(config)))(rate, weight_decay=decay, **arguments)
    if config.weight_decay:
        optimizer.exclude_from_weight_decay(var_names=UNDECAYED)
    return optimizer


def learning_rate(recipe: Recipe, steps_per_epoch: int) -> Any:
    """Return the learning rate of a recipe as a Keras schedule of steps, or as a number if it is constant."""
    every, config = recipe.optimizer.accumulate, recipe.optimizer
    rate = make_schedule(recipe.schedule, config.learning_rate, recipe.epochs, steps_per_epoch / every)
    if recipe.finetune.stages and not callable(rate):
        # Keras makes a variable of a number; all stages have the same variables.
        rate = constant()(rate)
    return by_update()(rate, every) if every > 1 and callable(rate) else rate


def connect_optimizer(optimizer: Any, model: Any, config: OptimizerConfig) -> None:
    """Give an optimizer, before it is built, the variables and rate multipliers of a model."""
    if config.ema:
        optimizer.track(batch_statistics(model))
    if _has_layer_decay(config):
        optimizer.multipliers = rate_multipliers(model, config.layer_decay)


def scale_loss(optimizer: Any, adapt: Callable[[Any], Any] = same) -> Any:
    """Return an optimizer with dynamic loss scaling for float16."""
    return observable(adapt(keras.optimizers.LossScaleOptimizer))(optimizer, name="loss_scale_optimizer")


def _resolve_alias(config: OptimizerConfig) -> OptimizerConfig:
    """Return the configuration with textbook names of what Keras calls SGD resolved."""
    name = config.name.lower()
    return dataclasses.replace(config, name="sgd", nesterov=ALIASES[name]) if name in ALIASES else config


def _has_layer_decay(config: OptimizerConfig) -> bool:
    return config.layer_decay not in (0, 1)


def optimizer_class(config: OptimizerConfig) -> Any:
    """Return the class of a recipe's optimizer, with the averaging and layer decay that the recipe sets."""
    cls = keras_class(config.name)
    cls = with_layer_decay(cls) if _has_layer_decay(config) else cls
    return with_ema(cls) if config.ema else cls


def _moments(config: OptimizerConfig, parameters: Any) -> dict[str, float]:
    """Return the options that are set, by the names of the optimizer's arguments."""
    options = {name: getattr(config, name) for name in MOMENTS if getattr(config, name)}
    return {name if name in parameters else f"adam_{name}": value for name, value in options.items()}


def _clipping(config: OptimizerConfig) -> dict[str, float]:
    """Return the argument that clips gradients."""
    return {argument: getattr(config, name) for name, argument in CLIPS.items() if getattr(config, name)}


def _accumulation(recipe: Recipe, steps_per_epoch: int) -> dict[str, int]:
    """Return the argument for the steps of an update."""
    count = recipe.optimizer.accumulate
    if count > recipe.epochs * steps_per_epoch:
        raise BadOption(
            f"optimizer.accumulate must be at most the {recipe.epochs * steps_per_epoch} steps of the training. "
            f"Received: optimizer.accumulate={count}. Lower it, or set more epochs."
        )
    return {"gradient_accumulation_steps": count} if count > 1 else {}


def keras_class(name: str) -> Any:
    """Return the Keras optimizer of this name, in any case, or our fused or extended subclass of it."""
    classes = {n.lower(): c for n, c in inspect.getmembers(keras.optimizers, inspect.isclass)}
    classes["muon"] = muon()
    if use_fused():
        classes |= {"sgd": fused_sgd(), "adam": fused_adam("Adam"), "adamw": fused_adam("AdamW")}
    return classes[name.lower()]
