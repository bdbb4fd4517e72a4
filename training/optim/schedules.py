"""How the learning rate moves: Keras' own schedules by name, with a linear warm-up before any of them."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any

from training.recipe.config import ScheduleConfig
from zoo.common.errors import BadOption
from zoo.common.lazy import keras

# One cycle starts at this share of the peak and climbs for this share of the time (arXiv:1708.07120; fast.ai's values).
CYCLE_START, CYCLE_RISE = 1 / 25, 0.3


@dataclasses.dataclass(frozen=True)
class Course:
    """What a schedule is made from.

    Args:
        config: the recipe's.
        peak: the learning rate at its highest.
        warmup: updates of the warm-up.
        total: updates altogether.
        per_epoch: updates in an epoch, which need not be whole.
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
        """Return how many updates so many epochs are, at least one."""
        return max(1, round(epochs * self.per_epoch))


@dataclasses.dataclass(frozen=True)
class Shape:
    """A schedule by name.

    Args:
        make: returns the Keras schedule, or a number, of what follows the warm-up.
        uses: the keys of the configuration that it reads beside the warm-up.
        needs: those of which it needs exactly one.
        warm: it makes its own warm-up, which the course states; others get a linear one put before them.
        factor: what a factor of 0 stands for.
    """

    make: Callable[[Course], Any]
    uses: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
    warm: bool = False
    factor: float = 0.0


def make_schedule(config: ScheduleConfig, peak: float, epochs: int, steps_per_epoch: float) -> Any:
    """Return the learning rate as a Keras schedule, or as a number where it never moves.

    Args:
        config: which schedule.
        peak: the learning rate at its highest.
        epochs: passes over the training data.
        steps_per_epoch: updates in an epoch, which need not be whole.

    Raises:
        BadOption: a key that the schedule cannot use, or one that it lacks.
    """
    shape, course = SHAPES[config.name], _course(config, peak, epochs, steps_per_epoch)
    _check_keys(config, shape)
    course = dataclasses.replace(course, config=dataclasses.replace(config, factor=config.factor or shape.factor))
    schedule = shape.make(course)
    return schedule if shape.warm or not course.warmup else warmed()(schedule, peak, course.warmup)


def _course(config: ScheduleConfig, peak: float, epochs: int, steps_per_epoch: float) -> Course:
    warmup, total = round(config.warmup_epochs * steps_per_epoch), math.floor(epochs * steps_per_epoch)
    if warmup and warmup >= total:
        raise BadOption(
            f"schedule.warmup_epochs must be less than epochs={epochs}. "
            f"Received: schedule.warmup_epochs={config.warmup_epochs}"
        )
    return Course(config, peak, warmup, total, steps_per_epoch)


def _check_keys(config: ScheduleConfig, shape: Shape) -> None:
    """Raise BadOption for a key that does nothing here, or for one that is missing."""
    plain = ScheduleConfig()
    for key in ("end", "milestones", "period", "factor", "power"):
        value = getattr(config, key)
        if key not in shape.uses and value != getattr(plain, key):
            users = ", ".join(name for name, other in SHAPES.items() if key in other.uses)
            raise BadOption(
                f"schedule.{key} does nothing for schedule.name={config.name}. Received: schedule.{key}={value}. "
                f"It is for {users}."
            )
    given = [key for key in shape.needs if getattr(config, key)]
    if shape.needs and len(given) != 1:
        keys = " or ".join(f"schedule.{key}" for key in shape.needs)
        both = " and not both" * (len(shape.needs) > 1)
        raise BadOption(
            f"schedule.name={config.name} needs {keys}, in epochs{both}. Received: "
            + ", ".join(f"schedule.{key}={getattr(config, key)}" for key in shape.needs)
        )
    marks = config.milestones
    if any(mark <= 0 for mark in marks) or list(marks) != sorted(set(marks)):
        raise BadOption(
            f"schedule.milestones must be epochs above 0 that rise. Received: schedule.milestones={list(marks)}"
        )


def _constant(course: Course) -> Any:
    return course.peak


def _cosine(course: Course) -> Any:
    """Keras' cosine brings a warm-up of its own."""
    return keras.optimizers.schedules.CosineDecay(
        initial_learning_rate=0.0 if course.warmup else course.peak,
        decay_steps=course.rest,
        alpha=course.config.end,
        warmup_target=course.peak if course.warmup else None,
        warmup_steps=course.warmup,
    )


def _step(course: Course) -> Any:
    """Falls at epochs since the beginning, after which the first update has the lower rate."""
    config = course.config
    falls = math.ceil(course.total / course.per_epoch / config.period) if config.period else 0
    marks = config.milestones or [n * config.period for n in range(1, falls)]
    # Keras keeps the old value up to and including a boundary; a schedule after a warm-up counts from its end.
    ends = [course.updates(mark) - 1 - course.warmup for mark in marks if course.updates(mark) < course.total]
    if any(end < 0 for end in ends):
        raise BadOption(
            f"schedule.warmup_epochs must end before the rate falls first. Received: "
            f"schedule.warmup_epochs={config.warmup_epochs}, first fall at epoch {marks[0]:g}"
        )
    if not ends:
        return course.peak
    values = [course.peak * config.factor**n for n in range(len(ends) + 1)]
    return keras.optimizers.schedules.PiecewiseConstantDecay(ends, values)


def _exponential(course: Course) -> Any:
    return keras.optimizers.schedules.ExponentialDecay(
        course.peak, course.updates(course.config.period), course.config.factor
    )


def _polynomial(course: Course) -> Any:
    return keras.optimizers.schedules.PolynomialDecay(
        course.peak, course.rest, course.peak * course.config.end, course.config.power
    )


def _cosine_restarts(course: Course) -> Any:
    return keras.optimizers.schedules.CosineDecayRestarts(
        course.peak, course.updates(course.config.period), t_mul=course.config.factor, alpha=course.config.end
    )


def _one_cycle(course: Course) -> Any:
    if course.warmup:
        raise BadOption(
            "schedule.name=one_cycle climbs by itself. Received: "
            f"schedule.warmup_epochs={course.config.warmup_epochs}. Leave it at 0."
        )
    return one_cycle()(course.peak, course.total, course.config.end)


def _inverse_sqrt(course: Course) -> Any:
    if not course.warmup:
        raise BadOption(
            "schedule.name=inverse_sqrt needs a warm-up of at least one step. "
            f"Received: schedule.warmup_epochs={course.config.warmup_epochs}"
        )
    return inverse_sqrt()(course.peak, course.warmup)


SHAPES = {
    "constant": Shape(_constant),
    "cosine": Shape(_cosine, ("end",), warm=True),
    "step": Shape(_step, ("milestones", "period", "factor"), ("milestones", "period"), factor=0.1),
    "exponential": Shape(_exponential, ("period", "factor"), ("period",), factor=0.94),
    "polynomial": Shape(_polynomial, ("end", "power")),
    "cosine_restarts": Shape(_cosine_restarts, ("end", "period", "factor"), ("period",), factor=1.0),
    "one_cycle": Shape(_one_cycle, ("end",), warm=True),
    "inverse_sqrt": Shape(_inverse_sqrt, warm=True),
}


@functools.cache
def warmed() -> Any:
    """Return the class of a Keras schedule, Warmed(schedule, peak, warmup): linear from 0, then another one."""

    class Warmed(keras.optimizers.schedules.LearningRateSchedule):
        """peak x step / warmup, then `schedule` (another one, or a number), which counts from there."""

        def __init__(self, schedule: Any, peak: float, warmup: int) -> None:
            self.schedule, self.peak, self.warmup = schedule, peak, warmup

        def __call__(self, step: Any) -> Any:
            step = keras.ops.cast(step, "float32")
            after = keras.ops.maximum(step - self.warmup, 0.0)
            rate = self.schedule(after) if callable(self.schedule) else self.schedule
            return keras.ops.where(step < self.warmup, self.peak * step / self.warmup, rate)

        def get_config(self) -> dict[str, Any]:
            return {"schedule": self.schedule, "peak": self.peak, "warmup": self.warmup}

    return Warmed


@functools.cache
def by_update() -> Any:
    """Return the class of a Keras schedule, ByUpdate(schedule, every): another one that counts updates, not steps."""

    class ByUpdate(keras.optimizers.schedules.LearningRateSchedule):
        """Another schedule; Keras gives it steps, where it is accumulated over `every` of them too."""

        def __init__(self, schedule: Any, every: int) -> None:
            self.schedule, self.every = schedule, every

        def __call__(self, step: Any) -> Any:
            return self.schedule(keras.ops.floor_divide(step, self.every))

        def get_config(self) -> dict[str, Any]:
            return {"schedule": self.schedule, "every": self.every}

    return ByUpdate


@functools.cache
def one_cycle() -> Any:
    """Return the class of a Keras schedule, OneCycle(peak, total, end): Smith and Topin 2017, arXiv:1708.07120."""

    class OneCycle(keras.optimizers.schedules.LearningRateSchedule):
        """A cosine from `CYCLE_START` x peak up, then one down to `end` x peak."""

        def __init__(self, peak: float, total: int, end: float = 0.0) -> None:
            self.peak, self.total, self.end = peak, total, end

        def __call__(self, step: Any) -> Any:
            step = keras.ops.cast(step, "float32")
            top = CYCLE_RISE * self.total
            up, down = (keras.ops.clip(x, 0.0, 1.0) for x in (step / top, (step - top) / (self.total - top)))
            rising = CYCLE_START + (1.0 - CYCLE_START) * (1.0 - keras.ops.cos(math.pi * up)) / 2.0
            falling = self.end + (1.0 - self.end) * (1.0 + keras.ops.cos(math.pi * down)) / 2.0
            return self.peak * keras.ops.where(step < top, rising, falling)

        def get_config(self) -> dict[str, Any]:
            return {"peak": self.peak, "total": self.total, "end": self.end}

    return OneCycle


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
