"""Schedules: the learning rate at its ends and corners, warm-up, and keys without effect."""

from __future__ import annotations

import math

import pytest

from training import ScheduleConfig
from training.optim.schedules import SCHEDULES, make_schedule
from training.recipe.limits import CHOICES
from zoo.common.errors import BadOption


def rates(config, peak=0.1, epochs=10, steps=100):
    """Return the learning rate as a function of the step."""
    schedule = make_schedule(config, peak, epochs, steps)
    return lambda step: float(schedule(step) if callable(schedule) else schedule)


# Keys that a schedule requires.
KEYS = {
    "step": {"milestones": (5,)},
    "exponential": {"period": 1},
    "cosine_restarts": {"period": 2},
}


def test_every_choice_is_a_schedule():
    """The names of the schema are those that are made."""
    assert set(SCHEDULES) == set(CHOICES["schedule.name"])


def test_cosine_with_warmup_at_its_corners():
    """From 0 linearly to the peak, then half a cosine down to its end."""
    rate = rates(ScheduleConfig("cosine", warmup_epochs=2, end=0.01))
    assert rate(0) == 0.0
    assert rate(100) == pytest.approx(0.05)
    assert rate(200) == pytest.approx(0.1)
    for step in (300, 600, 900):
        fraction = (step - 200) / 800
        assert rate(step) == pytest.approx(0.1 * (0.01 + 0.99 * (1 + math.cos(math.pi * fraction)) / 2), rel=1e-4)
    assert rate(1000) == pytest.approx(0.001)
    assert rate(2000) == pytest.approx(0.001)


def test_cosine_without_warmup_starts_at_the_peak():
    """Without warm-up the first step has the peak, the last almost none."""
    rate = rates(ScheduleConfig("cosine"))
    assert rate(0) == pytest.approx(0.1)
    assert rate(500) == pytest.approx(0.05)
    assert rate(1000) == pytest.approx(0.0, abs=1e-8)


def test_inverse_sqrt_is_that_of_the_transformer():
    """Equation 3 of Vaswani et al. 2017: width^-0.5 min(step^-0.5, step warm-up^-1.5), steps from 1."""
    width, warmup = 512, 400
    rate = rates(ScheduleConfig("inverse_sqrt", warmup_epochs=4), peak=(width * warmup) ** -0.5)
    for step in (1, 2, 100, 399, 400, 401, 700, 1000):
        assert rate(step - 1) == pytest.approx(width**-0.5 * min(step**-0.5, step * warmup**-1.5), rel=1e-5)
    assert rate(399) == pytest.approx((width * warmup) ** -0.5)
    assert rate(1599) == pytest.approx((width * warmup) ** -0.5 / 2)


def test_step_falls_where_an_epoch_begins():
    """The last step of an epoch has the old rate, the first of the next the new one; a warm-up moves no milestone."""
    for warmup in (0, 2):
        rate = rates(ScheduleConfig("step", warmup_epochs=warmup, milestones=(4, 7), factor=0.5))
        assert [rate(s) for s in (399, 400, 699, 700, 999)] == pytest.approx([0.1, 0.05, 0.05, 0.025, 0.025])
        assert rate(200) == pytest.approx(0.1)
    assert rate(100) == pytest.approx(0.05)


def test_step_by_a_period():
    """Every three epochs a tenth, the usual factor; milestones after the end never come."""
    rate = rates(ScheduleConfig("step", period=3))
    assert [rate(s) for s in (0, 299, 300, 599, 600, 900)] == pytest.approx([0.1, 0.1, 0.01, 0.01, 1e-3, 1e-4])
    assert make_schedule(ScheduleConfig("step", milestones=(10, 20)), 0.1, 10, 100) == 0.1


def test_exponential():
    """A factor per period, continuous in between; 0.94 by default."""
    rate = rates(ScheduleConfig("exponential", period=2, factor=0.5))
    assert [rate(s) for s in (0, 100, 200, 400)] == pytest.approx([0.1, 0.1 * 0.5**0.5, 0.05, 0.025])
    assert rates(ScheduleConfig("exponential", period=2))(200) == pytest.approx(0.094)


def test_polynomial():
    """A straight line, or a curve of another power, to the end, and no further."""
    assert [rates(ScheduleConfig("polynomial"))(s) for s in (0, 500, 1000, 1500)] == pytest.approx([0.1, 0.05, 0, 0])
    rate = rates(ScheduleConfig("polynomial", warmup_epochs=2, end=0.1, power=2))
    assert [rate(s) for s in (100, 200, 600, 1000)] == pytest.approx([0.05, 0.1, 0.01 + 0.09 * 0.25, 0.01])


def test_cosine_restarts():
    """The first cosine takes one period, the next twice as long, each from the peak (arXiv:1608.03983)."""
    rate = rates(ScheduleConfig("cosine_restarts", period=2, factor=2))
    assert [rate(s) for s in (0, 100, 200, 400, 600)] == pytest.approx([0.1, 0.05, 0.1, 0.05, 0.1], rel=1e-4)
    assert rate(199) < 1e-4
    even = rates(ScheduleConfig("cosine_restarts", warmup_epochs=1, period=3, end=0.1))
    assert [even(s) for s in (50, 100, 250, 400, 550)] == pytest.approx([0.05, 0.1, 0.055, 0.1, 0.055], rel=1e-4)


def test_one_cycle():
    """From a 25th of the peak up over 0.3 of the time, then down to the end."""
    rate = rates(ScheduleConfig("one_cycle", end=0.001))
    assert [rate(s) for s in (0, 150, 300, 650, 1000)] == pytest.approx(
        [0.1 / 25, 0.1 * (1 + 1 / 25) / 2, 0.1, 0.1 * (1 + 0.001) / 2, 1e-4], rel=1e-4
    )


def test_coslog():
    """Four cycles from 0 to the peak and back, each twice as long as the one before (arXiv:2407.04491)."""
    rate = rates(ScheduleConfig("coslog4"), steps=150)
    ends = [100 * (2**cycle - 1) for cycle in range(5)]
    assert [rate(step) for step in ends] == pytest.approx([0] * 5, abs=1e-6)
    # The middle of a cycle is where log2(1 + 15 t) is half a whole number.
    tops = [100 * (2 ** (cycle + 0.5) - 1) for cycle in range(4)]
    assert [rate(step) for step in tops] == pytest.approx([0.1] * 4, rel=1e-3)
    assert rate(2000) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("name", sorted(set(SCHEDULES) - {"one_cycle", "coslog4"}))
def test_warmup_before_each(name):
    """Linear to the peak, without a jump at its end."""
    rate = rates(ScheduleConfig(name, warmup_epochs=1, **KEYS.get(name, {})))
    first = 1 if name == "inverse_sqrt" else 0
    for step in (0, 25, 50, 99):
        assert rate(step) == pytest.approx(0.1 * (step + first) / 100, abs=1e-7)
    assert rate(100) == pytest.approx(0.1, rel=0.01)


def test_warmup_may_be_part_of_an_epoch():
    """Warm-up is counted in steps, so that half an epoch is possible."""
    rate = rates(ScheduleConfig("cosine", warmup_epochs=0.5))
    assert rate(25) == pytest.approx(0.05)
    assert rate(50) == pytest.approx(0.1)


def test_constant_never_moves():
    """A constant schedule is a number without warm-up, and stays at the peak with it."""
    assert make_schedule(ScheduleConfig("constant"), 0.1, 10, 100) == 0.1
    rate = rates(ScheduleConfig("constant", warmup_epochs=1))
    assert rate(50) == pytest.approx(0.05)
    assert [rate(step) for step in (100, 101, 500, 1000, 1500)] == pytest.approx([0.1] * 5)


@pytest.mark.parametrize("name", ["constant", "cosine", "polynomial"])
@pytest.mark.parametrize("warmup", [10, 11])
def test_warmup_must_end_before_training_does(name, warmup):
    """A warm-up as long as the training never reaches its peak, and is refused."""
    with pytest.raises(BadOption, match=r"schedule\.warmup_epochs must be less than epochs=10") as error:
        rates(ScheduleConfig(name, warmup_epochs=warmup))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "keys", "message"),
    [
        ("inverse_sqrt", {}, "inverse_sqrt needs a warm-up"),
        ("inverse_sqrt", {"warmup_epochs": 0.001}, "inverse_sqrt needs a warm-up"),
        ("inverse_sqrt", {"warmup_epochs": 1, "end": 0.1}, "does not use schedule.end"),
        ("constant", {"end": 0.1}, "does not use schedule.end"),
        ("cosine", {"milestones": (3,)}, "does not use schedule.milestones.* or use step"),
        ("cosine", {"power": 2.0}, "does not use schedule.power"),
        ("step", {}, "needs schedule.milestones or schedule.period"),
        ("step", {"milestones": (3,), "period": 2}, "and not both"),
        ("step", {"milestones": (5, 3)}, "increasing epochs"),
        ("step", {"milestones": (0, 3)}, "above 0"),
        ("step", {"warmup_epochs": 4, "milestones": (3,)}, "must end before the first drop"),
        ("exponential", {}, "needs schedule.period"),
        ("cosine_restarts", {"factor": 2}, "needs schedule.period"),
        ("one_cycle", {"warmup_epochs": 1}, "its own warm-up"),
        ("coslog4", {"warmup_epochs": 1}, "its own warm-up"),
        ("coslog4", {"factor": 3}, "does not use schedule.factor"),
        ("polynomial", {"factor": 0.5}, "does not use schedule.factor"),
    ],
)
def test_what_cannot_apply_is_refused(name, keys, message):
    """A key that a schedule does not use, or a missing one, is an error."""
    with pytest.raises(BadOption, match=message) as error:
        rates(ScheduleConfig(name, **keys))
    assert "\n" not in str(error.value)
