"""Keras learning-rate schedules that Keras does not have: warm-up, one cycle, coslog, inverse square root."""

from __future__ import annotations

import functools
import math
from typing import Any

from zoo.common.lazy import keras

# One cycle starts at this fraction of the peak and rises for this fraction of the steps (arXiv:1708.07120; fast.ai's
# values).
CYCLE_START, CYCLE_RISE = 1 / 25, 0.3
# Cycles of "coslog4".
CYCLES = 4


@functools.cache
def linear_warmup() -> Any:
    """Return the class of a Keras schedule, LinearWarmup(schedule, peak, warmup): linear from 0, then another one."""

    class LinearWarmup(keras.optimizers.schedules.LearningRateSchedule):
        """peak x step / warmup, then `schedule` (a schedule or a number), which counts steps from there."""

        def __init__(self, schedule: Any, peak: float, warmup: int) -> None:
            self.schedule, self.peak, self.warmup = schedule, peak, warmup

        def __call__(self, step: Any) -> Any:
            step = keras.ops.cast(step, "float32")
            after = keras.ops.maximum(step - self.warmup, 0.0)
            rate = self.schedule(after) if callable(self.schedule) else self.schedule
            return keras.ops.where(step < self.warmup, self.peak * step / self.warmup, rate)

        def get_config(self) -> dict[str, Any]:
            return {"schedule": self.schedule, "peak": self.peak, "warmup": self.warmup}

    return LinearWarmup


@functools.cache
def constant() -> Any:
    """Return the class of a Keras schedule, Constant(rate): the same number at each step."""

    class Constant(keras.optimizers.schedules.LearningRateSchedule):
        """A number."""

        def __init__(self, rate: float) -> None:
            self.rate = rate

        def __call__(self, step: Any) -> Any:
            return keras.ops.convert_to_tensor(self.rate, "float32")

        def get_config(self) -> dict[str, Any]:
            return {"rate": self.rate}

    return Constant


@functools.cache
def by_update() -> Any:
    """Return the class of a Keras schedule, ByUpdate(schedule, every): a schedule by updates, not steps."""

    class ByUpdate(keras.optimizers.schedules.LearningRateSchedule):
        """A schedule by updates of `every` steps each; Keras passes steps, also where gradients are accumulated."""

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
        """A cosine from `CYCLE_START` x peak up to the peak, then one down to `end` x peak."""

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
def coslog() -> Any:
    """Return the class of a Keras schedule, CosLog(peak, total): four cycles of arXiv:2407.04491, section 3.2."""

    class CosLog(keras.optimizers.schedules.LearningRateSchedule):
        """peak x (1 - cos(2 pi log2(1 + 15 t))) / 2 at a fraction t of the steps: each cycle takes twice as long."""

        def __init__(self, peak: float, total: int) -> None:
            self.peak, self.total = peak, total

        def __call__(self, step: Any) -> Any:
            part = keras.ops.clip(keras.ops.cast(step, "float32") / self.total, 0.0, 1.0)
            turns = keras.ops.log(1.0 + (2.0**CYCLES - 1.0) * part) / math.log(2.0)
            return self.peak * (1.0 - keras.ops.cos(2.0 * math.pi * turns)) / 2.0

        def get_config(self) -> dict[str, Any]:
            return {"peak": self.peak, "total": self.total}

    return CosLog


@functools.cache
def inverse_sqrt() -> Any:
    """Return the class of a Keras schedule, InverseSqrt(peak, warmup): Vaswani et al. 2017, equation 3."""

    class InverseSqrt(keras.optimizers.schedules.LearningRateSchedule):
        """peak x min(step / warmup, sqrt(warmup / step)), steps counted from 1."""

        def __init__(self, peak: float, warmup: int) -> None:
            self.peak, self.warmup = peak, warmup

        def __call__(self, step: Any) -> Any:
            ratio = (keras.ops.cast(step, "float32") + 1.0) / self.warmup
            return self.peak * keras.ops.minimum(ratio, keras.ops.rsqrt(ratio))

        def get_config(self) -> dict[str, Any]:
            return {"peak": self.peak, "warmup": self.warmup}

    return InverseSqrt
