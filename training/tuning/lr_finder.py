"""The learning-rate range test (Smith 2015, arXiv:1506.01186): increase the rate and observe the loss."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import zoo
from training.common.jax_state import sync_state
from training.common.sharding import check_divisible
from training.data.pipeline.opening import open_pipeline
from training.data.pipeline.pipeline import Pipeline
from training.distributed.devices import open_device
from training.learning.build import build_training_model, compile_model, seeded
from training.optim.lbfgs import is_lbfgs
from training.recipe.config import FinetuneConfig, ScheduleConfig
from training.recipe.recipe import Recipe
from training.recipe.stages import check_pretrained, freezes_batch_norm
from training.tuning.results import LearningRateResult
from zoo.build import dtype_policy
from zoo.common.budgets import MOST_TURNS
from zoo.common.errors import BadOption, TrainingError
from zoo.common.lazy import keras, np

# Momentum of the running mean of the loss.
MOMENTUM = 0.9
# The test ends when the smoothed loss is this multiple of its minimum.
DIVERGED = 4.0
# Steps at either end that do not count for the slope: the mean has few values, or the loss is about to diverge.
FIRST, LAST = 5, 3


def range_test(recipe: Recipe, *, low: float, high: float, steps: int) -> LearningRateResult:
    """Train a recipe from its initial weights with a rate from `low` to `high`, and suggest one.

    The model, its loss, regularizers and optimizer are the recipe's; schedule, averaging and accumulation are off, and
    all layers are trained.

    Args:
        recipe: the recipe.
        low: the first rate.
        high: the last rate.
        steps: number of steps.

    Raises:
        BadOption: a value is invalid, or the recipe's optimizer has no learning rate.
        TrainingError: the loss is not finite from the start.
    """
    if not (0 < low < high and math.isfinite(high)) or not FIRST + LAST < steps <= MOST_TURNS:
        raise BadOption(
            f"A range test needs 0 < low < high, and more than {FIRST + LAST} and at most {MOST_TURNS:,} steps. "
            f"Received: low={low}, high={high}, steps={steps}. Change them."
        )
    if is_lbfgs(recipe):
        raise BadOption(
            f"A range test needs an optimizer with a learning rate. Received: optimizer.name={recipe.optimizer.name}. "
            "Choose another optimizer."
        )
    check_pretrained(recipe)
    finetune = FinetuneConfig(freeze_batch_norm="on" if freezes_batch_norm(recipe) else "off")
    plain = dataclasses.replace(recipe.optimizer, learning_rate=low, ema=0.0, accumulate=1)
    recipe = dataclasses.replace(recipe, optimizer=plain, schedule=ScheduleConfig("constant"), finetune=finetune)
    rates = tuple(np.geomspace(low, high, steps).tolist())
    losses = tuple(_losses(recipe, rates))
    if len(losses) <= FIRST + LAST:
        raise TrainingError(
            f"The loss diverged after {len(losses)} steps, at a rate of {rates[len(losses) - 1]:.2g}. Received: "
            f"low={low}. Start at a lower rate, or check the data."
        )
    smoothed = _smoothed(losses)
    return LearningRateResult(_steepest(rates, smoothed), rates[: len(losses)], losses, tuple(smoothed))


def _losses(recipe: Recipe, rates: tuple[float, ...]) -> list[float]:
    """Return the loss of each batch before its step, until it diverges."""
    device = open_device(recipe, alone=True)
    pipeline = open_pipeline(recipe, zoo.spec(recipe.model.name))
    check_divisible(pipeline.batch_size, device.replicas)
    device.check(pipeline)
    with device.strategy.scope(), dtype_policy(device.precision), seeded(recipe.seed):
        model = build_training_model(recipe, pipeline, start=True)
        compile_model(model, recipe, pipeline, device.jit_compile)
    with device.running():
        return _increase(model, pipeline, rates)


def _increase(model: Any, pipeline: Pipeline, rates: tuple[float, ...]) -> list[float]:
    losses: list[float] = []

    class IncreaseRate(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
            self.model.optimizer.learning_rate = rates[len(losses)]
            # Keras reports the mean since the start of the epoch; after a reset it is that of the batch.
            self.model.reset_metrics()

        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            # Values that are assigned before the next step must take effect in it.
            sync_state(self.model)
            loss = float(logs["loss"])
            if math.isfinite(loss):
                losses.append(loss)
            smoothed = _smoothed(losses)
            diverged = not math.isfinite(loss) or (len(losses) > FIRST and smoothed[-1] > DIVERGED * min(smoothed))
            self.model.stop_training = diverged or len(losses) == len(rates)

    for epoch in range(math.ceil(len(rates) / pipeline.steps_per_epoch)):
        model.fit(pipeline.train(epoch), shuffle=False, verbose=0, callbacks=[IncreaseRate()])
        if model.stop_training:
            break
    return losses


def _smoothed(losses: Any) -> list[float]:
    """Return the running mean of losses, corrected for its start at 0."""
    mean, means = 0.0, []
    for i, loss in enumerate(losses, start=1):
        mean = MOMENTUM * mean + (1 - MOMENTUM) * loss
        means.append(mean / (1 - MOMENTUM**i))
    return means


def _steepest(rates: tuple[float, ...], smoothed: list[float]) -> float | None:
    """Return the rate at which the smoothed loss decreases fastest over the logarithm of the rate."""
    count = len(smoothed)
    slopes = np.gradient(np.asarray(smoothed), np.log(np.asarray(rates[:count])))[FIRST : count - LAST]
    lowest = int(np.argmin(slopes))
    return rates[FIRST + lowest] if slopes[lowest] < 0 else None
