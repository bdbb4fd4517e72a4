"""How latencies are measured and compared: that noise is told from a difference, and what stands aside for what."""

from __future__ import annotations

import math
import random

import pytest

from export.benchmark.latency import LEAST, WARM, burst, in_turns, judge, ratio, sum_up
from export.reporting.tradeoffs import dominator, faster, fastest

ROUNDS = 9


def noisy(middle, spread, draw):
    """What nine rounds took something that takes `middle`."""
    return [middle * math.exp(draw.gauss(0, spread)) for _ in range(ROUNDS)]


def test_bounds_leave_one_round_out_at_each_end():
    assert ratio([9, 1, 5, 2, 3, 4, 6, 7, 8], [1] * 9) == (2, 5, 8)
    assert ratio([1, 2, 3, 4, 5, 6], [1] * 6) == (1, 3.5, 6)


def test_few_rounds_tell_nothing():
    assert ratio([1] * 5, [100] * 5) == (0.0, 0.01, math.inf)
    assert judge([1] * 5, [100] * 5) == 0
    assert judge([1] * 6, [100] * 6) == -1


def test_a_difference_is_one_beyond_the_spread():
    assert (judge([90] * 9, [100] * 9), judge([110] * 9, [100] * 9)) == (-1, 1)
    assert judge([96] * 9, [100] * 9) == judge([104] * 9, [100] * 9) == 0
    # As fast in two rounds of nine: not faster, though the median is.
    assert judge([50] * 7 + [100] * 2, [100] * 9) == 0
    assert judge([50] * 8 + [100], [100] * 9) == -1


@pytest.mark.parametrize("spread", [0.01, 0.05, 0.2, 0.5])
def test_noise_is_no_difference(spread):
    """Of 2,000 pairs that take equally long, next to none is told apart; the control: half as long is, in calm."""
    draw = random.Random(0)
    told = sum(judge(noisy(1, spread, draw), noisy(1, spread, draw)) != 0 for _ in range(2000))
    assert told <= 80  # which the sign test allows, whatever the spread
    found = sum(judge(noisy(0.5, 0.1, draw), noisy(1, 0.1, draw)) == -1 for _ in range(200))
    assert found == 200


def test_turns():
    """Each job once a round, in an order of its own."""
    calls = []
    jobs = {name: lambda name=name: calls.append(name) or [1.0] for name in "abcd"}
    found = in_turns(jobs, rounds=5)
    assert found == {name: [[1.0]] * 5 for name in "abcd"}
    rounds = [tuple(calls[i : i + 4]) for i in range(0, 20, 4)]
    assert all(sorted(one) == list("abcd") for one in rounds)
    assert len(set(rounds)) > 1


def test_a_burst_warms_up():
    calls = []
    times = burst(lambda: calls.append(0), seconds=0)
    assert len(times) == LEAST
    assert len(calls) == WARM + LEAST


def test_summary():
    found = sum_up([[0.001] * 10, [0.002] * 10, [0.003] * 10])
    assert (found["p50"], found["rounds"]) == (2.0, [1.0, 2.0, 3.0])
    assert found["p95"] == 3.0


def row(name, latency, **changes):
    measured = {"latency": {"1": {"p50": 3 * latency, "rounds": [3 * latency] * 9}}, "batch": 1}
    measured["latency"]["2"] = {"p50": latency, "rounds": [latency] * 9}
    known = {"name": name, "accuracy": 0.9, "bytes": 100, "gzip_bytes": 50, "passed": True, "question": "q"}
    return {**known, "measured": measured, **changes}


def test_dominated():
    """Worse in something and better in nothing; what only may be slower does not stand aside."""
    plain, slow, small = row("plain", 1.0), row("slow", 1.2), row("small", 1.0, gzip_bytes=20)
    assert dominator(slow, [plain, slow]) == "plain"
    assert dominator(plain, [plain, slow]) is None
    assert dominator(plain, [plain, small]) == "small"
    # Not dominated: smaller compressed, though slower and less accurate.
    pruned = row("pruned", 1.2, accuracy=0.8, gzip_bytes=10)
    assert dominator(pruned, [plain, pruned]) is None
    level = row("level", 1.04)
    assert dominator(plain, [plain, level]) is dominator(level, [plain, level]) is None
    assert dominator(slow, [slow, row("failed", 0.1, passed=False)]) is None
    assert dominator(slow, [slow, row("other", 0.1, question="another")]) is None
    # Of two that are better the one is named that nothing beats.
    assert dominator(slow, [plain, slow, small]) == "small"


def test_faster():
    plain, level, quick = row("plain", 1.0), row("level", 0.97), row("quick", 0.5)
    assert (faster(quick, plain), faster(plain, quick), faster(level, plain)) == (1, -1, 0)
    assert [found["name"] for found in fastest([plain, level])] == ["level", "plain"]
    assert [found["name"] for found in fastest([plain, level, quick])] == ["quick"]
    assert fastest([{"name": "not measured"}]) == []
    batched = row("batched", 0.1)
    batched["measured"]["batch"] = 8
    assert faster(batched, plain) == 0
