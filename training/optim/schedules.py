"""Learning-rate schedules by name: Keras' own, with a linear warm-up before any of them."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

from training.optim.schedule_classes import coslog, inverse_sqrt, linear_warmup, one_cycle
from training.recipe.config import ScheduleConfig
from training.recipe.rules import check_schedule_keys, check_warmup
from zoo.common.errors import BadOption
from zoo.common.lazy import keras


@dataclasses.dataclass(frozen=True)
class ScheduleSpan:
    """The peak and the number of updates that a schedule is made for.

    Args:
        config: the recipe's schedule.
        peak: the highest learning rate.
        warmup: updates of the warm-up.
        total: all updates.
        per_epoch: updates in an epoch; may be fractional.
    """

    config: ScheduleConfig
    peak: float
    warmup: int
    total: int
    per_epoch: float

    @property
    def rest(self) -> int:
        """Updates after the warm-up."""
        return self.total - self.warmup

    def updates(self, epochs: float) -> int:
        """Return the updates in a number of epochs, at least one."""
        return max(1, round(epochs * self.per_epoch))


@dataclasses.dataclass(frozen=True)
class ScheduleKind:
    """A schedule by name; `training.recipe.rules.SCHEDULE_KEYS` has the keys that it reads.

    Args:
        make: returns the Keras schedule, or a number, after the warm-up.
        warm: it makes its own warm-up; others get a linear one before them.
        factor: the default of `factor`, for which 0 stands.
    """

    make: Callable[[ScheduleSpan], Any]
    warm: bool = False
    factor: float = 0.0


def make_schedule(config: ScheduleConfig, peak: float, epochs: int, steps_per_epoch: float) -> Any:
    """Return the learning rate as a Keras schedule, or as a number if it is constant.

    Args:
        config: the recipe's schedule.
        peak: the highest learning rate.
        epochs: passes over the training data.
        steps_per_epoch: updates in an epoch; may be fractional.

    Raises:
        BadOption: a key that the schedule does not use, or a missing one.
    """
    check_schedule_keys(config)
    kind, span = SCHEDULES[config.name], _span(config, peak, epochs, steps_per_epoch)
    span = dataclasses.replace(span, config=dataclasses.replace(config, factor=config.factor or kind.factor))
    schedule = kind.make(span)
    return schedule if kind.warm or not span.warmup else linear_warmup()(schedule, peak, span.warmup)


def _span(config: ScheduleConfig, peak: float, epochs: int, steps_per_epoch: float) -> ScheduleSpan:
    warmup, total = round(config.warmup_epochs * steps_per_epoch), math.floor(epochs * steps_per_epoch)
    # An epoch may have few updates, so that a warm-up that is shorter in epochs is not in updates, or has none.
    check_warmup(config, epochs, warmup, total)
    return ScheduleSpan(config, peak, warmup, total, steps_per_epoch)


def _constant(span: ScheduleSpan) -> Any:
    return span.peak


def _cosine(span: ScheduleSpan) -> Any:
    """Return Keras' cosine, which has its own warm-up."""
    return keras.optimizers.schedules.CosineDecay(
        initial_learning_rate=0.0 if span.warmup else span.peak,
        decay_steps=span.rest,
        alpha=span.config.end,
        warmup_target=span.peak if span.warmup else None,
        warmup_steps=span.warmup,
    )


def _step(span: ScheduleSpan) -> Any:
    """Return a rate that drops at epochs; the first update after a milestone has the lower rate."""
    config = span.config
    drops = math.ceil(span.total / span.per_epoch / config.period) if config.period else 0
    marks = config.milestones or [n * config.period for n in range(1, drops)]
    # Keras keeps the old value up to and including a boundary; a schedule after a warm-up counts from the end of it.
    ends = [span.updates(mark) - 1 - span.warmup for mark in marks if span.updates(mark) < span.total]
    if any(end < 0 for end in ends):
        raise BadOption(
            f"schedule.warmup_epochs must end before the first drop of the rate. Received: "
            f"schedule.warmup_epochs={config.warmup_epochs}, first drop at epoch {marks[0]:g}. Shorten the warm-up."
        )
    if not ends:
        return span.peak
    values = [span.peak * config.factor**n for n in range(len(ends) + 1)]
    return keras.optimizers.schedules.PiecewiseConstantDecay(ends, values)


def _exponential(span: ScheduleSpan) -> Any:
    return keras.optimizers.schedules.ExponentialDecay(span.peak, span.updates(span.config.period), span.config.factor)


def _polynomial(span: ScheduleSpan) -> Any:
    return keras.optimizers.schedules.PolynomialDecay(
        span.peak, span.rest, span.peak * span.config.end, span.config.power
    )


def _cosine_restarts(span: ScheduleSpan) -> Any:
    return keras.optimizers.schedules.CosineDecayRestarts(
        span.peak, span.updates(span.config.period), t_mul=span.config.factor, alpha=span.config.end
    )


def _one_cycle(span: ScheduleSpan) -> Any:
    return one_cycle()(span.peak, span.total, span.config.end)


def _coslog(span: ScheduleSpan) -> Any:
    return coslog()(span.peak, span.total)


def _inverse_sqrt(span: ScheduleSpan) -> Any:
    return inverse_sqrt()(span.peak, span.warmup)


SCHEDULES = {
    "constant": ScheduleKind(_constant),
    "cosine": ScheduleKind(_cosine, warm=True),
    "step": ScheduleKind(_step, factor=0.1),
    "exponential": ScheduleKind(_exponential, factor=0.94),
    "polynomial": ScheduleKind(_polynomial),
    "cosine_restarts": ScheduleKind(_cosine_restarts, factor=1.0),
    "one_cycle": ScheduleKind(_one_cycle, warm=True),
    "coslog4": ScheduleKind(_coslog, warm=True),
    "inverse_sqrt": ScheduleKind(_inverse_sqrt, warm=True),
}
