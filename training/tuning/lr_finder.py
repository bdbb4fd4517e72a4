"""The learning-rate range test (Smith 2015, arXiv:1506.01186): a rate that rises, and what the loss does."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import zoo
from training.common.jax_state import sync_state
from training.common.sharding import check_divisible
from training.data.pipeline.opening import open_pipeline
from training.data.pipeline.pipeline import Pipeline
from training.distributed.devices import open_device
from training.learning.build import build_training_model, compile_model, seeded
from training.optim.lbfgs import is_asked
from training.recipe.config import ScheduleConfig
from training.recipe.recipe import Recipe
from zoo.build import dtype_policy
from zoo.common.errors import BadOption, TrainingError
from zoo.common.files import write_atomic
from zoo.common.lazy import keras, np

# Share of the running mean of the loss that a step keeps.
SMOOTH = 0.9
# The test ends where the loss is so many times the lowest.
BLOWN = 4.0
# Steps at either end that say nothing of the slope: the mean has just begun, or the loss is about to break out.
FIRST, LAST = 5, 3


@dataclasses.dataclass(frozen=True)
class Found:
    """What a range test found.

    Args:
        rate: the proposal, where the smoothed loss falls fastest; None if it never falls.
        rates: the learning rate of each step.
        losses: the loss of each batch.
        smoothed: their running mean.
    """

    rate: float | None
    rates: tuple[float, ...]
    losses: tuple[float, ...]
    smoothed: tuple[float, ...]

    @property
    def advice(self) -> str:
        """The proposal in words."""
        if self.rate is None:
            return "the loss never falls; begin lower, with --low, or look at the data"
        return f"the loss falls fastest at a rate of {self.rate:.2g}: --set optimizer.learning_rate={self.rate:.2g}"

    def draw(self, path: Path) -> None:
        """Draw the losses over the rates as a PNG, whole or not at all; raises RunError."""
        write_atomic(path, lambda beside: _figure(self).savefig(beside, format="png"))


def find_rate(recipe: Recipe, *, low: float = 1e-6, high: float = 10.0, steps: int = 100) -> Found:
    """Train a recipe from its first weights, the learning rate rising from `low` to `high`, and propose a rate.

    The network, its loss, regularizers and optimizer are the recipe's; the schedule, averages and accumulation are
    left out. Nothing is written.

    Args:
        recipe: what to train.
        low: the first rate.
        high: the last rate.
        steps: how many.

    Raises:
        BadOption: the values cannot be, or the recipe's optimizer has no rate.
        TrainingError: the loss is not finite from the beginning.
    """
    if not (0 < low < high and math.isfinite(high)) or steps <= FIRST + LAST:
        raise BadOption(
            f"A range test needs 0 < low < high and more than {FIRST + LAST} steps. "
            f"Received: low={low}, high={high}, steps={steps}"
        )
    if is_asked(recipe):
        raise BadOption(f"A range test needs a learning rate. Received: optimizer.name={recipe.optimizer.name}")
    plain = dataclasses.replace(recipe.optimizer, learning_rate=low, ema=0.0, accumulate=1)
    recipe = dataclasses.replace(recipe, optimizer=plain, schedule=ScheduleConfig("constant"))
    rates = tuple(np.geomspace(low, high, steps).tolist())
    losses = tuple(_losses(recipe, rates))
    if len(losses) <= FIRST + LAST:
        raise TrainingError(
            f"The loss broke out after {len(losses)} steps, at a rate of {rates[len(losses) - 1]:.2g}. Received: "
            f"low={low}. Begin lower, or look at the data."
        )
    smoothed = _smoothed(losses)
    return Found(_steepest(rates, smoothed), rates[: len(losses)], losses, tuple(smoothed))


def _losses(recipe: Recipe, rates: tuple[float, ...]) -> list[float]:
    """Return the loss of each batch before its step, until it breaks out."""
    device = open_device(recipe, alone=True)
    pipeline = open_pipeline(recipe, zoo.spec(recipe.model.name))
    check_divisible(pipeline.batch_size, device.replicas)
    device.check(pipeline)
    with device.strategy.scope(), dtype_policy(device.precision), seeded(recipe.seed):
        model = build_training_model(recipe, pipeline, start=True)
        compile_model(model, recipe, pipeline, device.jit_compile)
    with device.running():
        return _climb(model, pipeline, rates)


def _climb(model: Any, pipeline: Pipeline, rates: tuple[float, ...]) -> list[float]:
    losses: list[float] = []

    class Climb(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
            self.model.optimizer.learning_rate = rates[len(losses)]
            # Keras tells the mean since the beginning of the epoch; this makes it that of the batch.
            self.model.reset_metrics()

        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            # What is assigned before the next step is to count for it.
            sync_state(self.model)
            loss = float(logs["loss"])
            if math.isfinite(loss):
                losses.append(loss)
            smoothed = _smoothed(losses)
            blown = not math.isfinite(loss) or (len(losses) > FIRST and smoothed[-1] > BLOWN * min(smoothed))
            self.model.stop_training = blown or len(losses) == len(rates)

    for epoch in range(math.ceil(len(rates) / pipeline.steps_per_epoch)):
        model.fit(pipeline.train(epoch), shuffle=False, verbose=0, callbacks=[Climb()])
        if model.stop_training:
            break
    return losses


def _smoothed(losses: Any) -> list[float]:
    """Return the running mean of losses, corrected for its beginning at 0."""
    mean, found = 0.0, []
    for i, loss in enumerate(losses, start=1):
        mean = SMOOTH * mean + (1 - SMOOTH) * loss
        found.append(mean / (1 - SMOOTH**i))
    return found


def _steepest(rates: tuple[float, ...], smoothed: list[float]) -> float | None:
    """Return the rate where the smoothed loss falls fastest over the logarithm of the rate."""
    count = len(smoothed)
    slopes = np.gradient(np.asarray(smoothed), np.log(np.asarray(rates[:count])))[FIRST : count - LAST]
    lowest = int(np.argmin(slopes))
    return rates[FIRST + lowest] if slopes[lowest] < 0 else None


def _figure(found: Found) -> Any:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.2, 4.2), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    axes.plot(found.rates, found.losses, color="0.8", linewidth=1, label="loss of a batch")
    axes.plot(found.rates, found.smoothed, linewidth=2, label="smoothed")
    if found.rate:
        axes.axvline(found.rate, color="0.3", linestyle=(0, (4, 2)), label=f"falls fastest: {found.rate:.2g}")
    axes.set(xscale="log", xlabel="learning rate", ylabel="loss")
    # Where the loss breaks out it would press all else flat.
    axes.set_ylim(top=min(max(found.losses), 1.5 * max(found.smoothed[:-LAST])))
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(linewidth=0.5, alpha=0.5)
    axes.legend(frameon=False)
    return figure
