"""Learning-rate schedules by name: Keras' own, with a linear warm-up before any of them."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

from training.optim.schedule_classes import inverse_sqrt, linear_warmup, one_cycle
from training.recipe.config import ScheduleConfig
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
    """A schedule by name.

    Args:
        make: returns the Keras schedule, or a number, after the warm-up.
        uses: the keys of the configuration that it reads in addition to the warm-up.
        needs: the keys of which it needs exactly one.
        warm: it makes its own warm-up; others get a linear one before them.
        factor: the default of `factor`, for which 0 stands.
    """

    make: Callable[[ScheduleSpan], Any]
    uses: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
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
    kind, span = SCHEDULES[config.name], _span(config, peak, epochs, steps_per_epoch)
    _check_keys(config, kind)
    span = dataclasses.replace(span, config=dataclasses.replace(config, factor=config.factor or kind.factor))
    schedule = kind.make(span)
    return schedule if kind.warm or not span.warmup else linear_warmup()(schedule, peak, span.warmup)


def _span(config: ScheduleConfig, peak: float, epochs: int, steps_per_epoch: float) -> ScheduleSpan:
    warmup, total = round(config.warmup_epochs * steps_per_epoch), math.floor(epochs * steps_per_epoch)
    if warmup and warmup >= total:
        raise BadOption(
            f"schedule.warmup_epochs must be less than epochs={epochs}. "
            f"Received: schedule.warmup_epochs={config.warmup_epochs}"
        )
    return ScheduleSpan(config, peak, warmup, total, steps_per_epoch)


def _check_keys(config: ScheduleConfig, kind: ScheduleKind) -> None:
    """Raise BadOption for a key that the schedule does not use, or for a missing one."""
    plain = ScheduleConfig()
    for key in ("end", "milestones", "period", "factor", "power"):
        value = getattr(config, key)
        if key not in kind.uses and value != getattr(plain, key):
            users = ", ".join(name for name, other in SCHEDULES.items() if key in other.uses)
            raise BadOption(
                f"schedule.name={config.name} does not use schedule.{key}. Received: schedule.{key}={value}. "
                f"Leave it out, or use {users}."
            )
    given = [key for key in kind.needs if getattr(config, key)]
    if kind.needs and len(given) != 1:
        keys = " or ".join(f"schedule.{key}" for key in kind.needs)
        both = " and not both" * (len(kind.needs) > 1)
        raise BadOption(
            f"schedule.name={config.name} needs {keys}, in epochs{both}. Received: "
            + ", ".join(f"schedule.{key}={getattr(config, key)}" for key in kind.needs)
        )
    marks = config.milestones
    if any(mark <= 0 for mark in marks) or list(marks) != sorted(set(marks)):
        raise BadOption(
            f"schedule.milestones must be increasing epochs above 0. Received: schedule.milestones={list(marks)}"
        )


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
    if span.warmup:
        raise BadOption(
            "schedule.name=one_cycle has its own warm-up. Received: "
            f"schedule.warmup_epochs={span.config.warmup_epochs}. Leave it at 0."
        )
    return one_cycle()(span.peak, span.total, span.config.end)


def _inverse_sqrt(span: ScheduleSpan) -> Any:
    if not span.warmup:
        raise BadOption(
            "schedule.name=inverse_sqrt needs a warm-up of at least one step. "
            f"Received: schedule.warmup_epochs={span.config.warmup_epochs}. Set schedule.warmup_epochs=1."
        )
    return inverse_sqrt()(span.peak, span.warmup)


SCHEDULES = {
    "constant": ScheduleKind(_constant),
    "cosine": ScheduleKind(_cosine, ("end",), warm=True),
    "step": ScheduleKind(_step, ("milestones", "period", "factor"), ("milestones", "period"), factor=0.1),
    "exponential": ScheduleKind(_exponential, ("period", "factor"), ("period",), factor=0.94),
    "polynomial": ScheduleKind(_polynomial, ("end", "power")),
    "cosine_restarts": ScheduleKind(_cosine_restarts, ("end", "period", "factor"), ("period",), factor=1.0),
    "one_cycle": ScheduleKind(_one_cycle, ("end",), warm=True),
    "inverse_sqrt": ScheduleKind(_inverse_sqrt, warm=True),
}
