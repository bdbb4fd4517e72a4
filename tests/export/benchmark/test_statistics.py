"""Latency statistics: noise against differences, and which artifact dominates which."""

from __future__ import annotations

import math
import random

import pytest

from export.benchmark.statistics import (
    MIN_CALLS,
    WARMUP_CALLS,
    compare_latency,
    latency_ratio,
    run_rounds,
    summarize,
    time_calls,
)
from export.reporting.comparison import compare_rows, dominating_row, fastest_rows

ROUNDS = 9


def noisy(middle, spread, draw):
    """Latencies of nine rounds around `middle`."""
    return [middle * math.exp(draw.gauss(0, spread)) for _ in range(ROUNDS)]


def test_bounds_drop_one_round_at_each_end():
    assert latency_ratio([9, 1, 5, 2, 3, 4, 6, 7, 8], [1] * 9) == (2, 5, 8)
    assert latency_ratio([1, 2, 3, 4, 5, 6], [1] * 6) == (1, 3.5, 6)


def test_few_rounds_are_not_significant():
    assert latency_ratio([1] * 5, [100] * 5) == (0.0, 0.01, math.inf)
    assert compare_latency([1] * 5, [100] * 5) == 0
    assert compare_latency([1] * 6, [100] * 6) == -1


def test_a_difference_exceeds_the_noise():
    assert (compare_latency([90] * 9, [100] * 9), compare_latency([110] * 9, [100] * 9)) == (-1, 1)
    assert compare_latency([96] * 9, [100] * 9) == compare_latency([104] * 9, [100] * 9) == 0
    # Two rounds of nine are equal: no significant difference, although the medians differ.
    assert compare_latency([50] * 7 + [100] * 2, [100] * 9) == 0
    assert compare_latency([50] * 8 + [100], [100] * 9) == -1


@pytest.mark.parametrize("spread", [0.01, 0.05, 0.2, 0.5])
def test_noise_is_no_difference(spread):
    """Of 2,000 pairs of equal latency, almost none differs; the control: half the latency differs with little noise."""
    draw = random.Random(0)
    different = sum(compare_latency(noisy(1, spread, draw), noisy(1, spread, draw)) != 0 for _ in range(2000))
    assert different <= 80  # which the sign test allows, whatever the spread
    found = sum(compare_latency(noisy(0.5, 0.1, draw), noisy(1, 0.1, draw)) == -1 for _ in range(200))
    assert found == 200


def test_rounds():
    """Each job runs once a round, in a random order."""
    calls = []
    jobs = {name: lambda name=name: calls.append(name) or [1.0] for name in "abcd"}
    found = run_rounds(jobs, rounds=5)
    assert found == {name: [[1.0]] * 5 for name in "abcd"}
    rounds = [tuple(calls[i : i + 4]) for i in range(0, 20, 4)]
    assert all(sorted(one) == list("abcd") for one in rounds)
    assert len(set(rounds)) > 1


def test_timing_warms_up():
    calls = []
    times = time_calls(lambda: calls.append(0), seconds=0)
    assert len(times) == MIN_CALLS
    assert len(calls) == WARMUP_CALLS + MIN_CALLS


def test_summary():
    found = summarize([[0.001] * 10, [0.002] * 10, [0.003] * 10])
    assert (found["p50"], found["rounds"]) == (2.0, [1.0, 2.0, 3.0])
    assert found["p95"] == 3.0


def row(name, latency, **changes):
    measured = {"latency": {"1": {"p50": 3 * latency, "rounds": [3 * latency] * 9}}, "batch": 1}
    measured["latency"]["2"] = {"p50": latency, "rounds": [latency] * 9}
    known = {"name": name, "accuracy": 0.9, "bytes": 100, "gzip_bytes": 50, "passed": True, "evaluation": "q"}
    return {**known, "measured": measured, **changes}


def test_dominated():
    """Worse in a metric and better in none; an insignificant difference of latency does not dominate."""
    plain, slow, small = row("plain", 1.0), row("slow", 1.2), row("small", 1.0, gzip_bytes=20)
    assert dominating_row(slow, [plain, slow]) == "plain"
    assert dominating_row(plain, [plain, slow]) is None
    assert dominating_row(plain, [plain, small]) == "small"
    # Not dominated: smaller after gzip, although slower and less accurate.
    pruned = row("pruned", 1.2, accuracy=0.8, gzip_bytes=10)
    assert dominating_row(pruned, [plain, pruned]) is None
    level = row("level", 1.04)
    assert dominating_row(plain, [plain, level]) is dominating_row(level, [plain, level]) is None
    assert dominating_row(slow, [slow, row("failed", 0.1, passed=False)]) is None
    assert dominating_row(slow, [slow, row("other", 0.1, evaluation="another")]) is None
    # Of two dominating artifacts, the one that is not dominated is returned.
    assert dominating_row(slow, [plain, slow, small]) == "small"


def test_comparing_latency():
    plain, level, quick = row("plain", 1.0), row("level", 0.97), row("quick", 0.5)
    assert (compare_rows(quick, plain), compare_rows(plain, quick), compare_rows(level, plain)) == (-1, 1, 0)
    assert [found["name"] for found in fastest_rows([plain, level])] == ["level", "plain"]
    assert [found["name"] for found in fastest_rows([plain, level, quick])] == ["quick"]
    assert fastest_rows([{"name": "not measured"}]) == []
    batched = row("batched", 0.1)
    batched["measured"]["batch"] = 8
    assert compare_rows(batched, plain) == 0
