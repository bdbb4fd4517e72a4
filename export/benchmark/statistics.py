"""Statistics of latencies: rounds that take turns, medians, and comparisons that know the noise of the machine.

A slow moment of the machine affects all artifacts of a round, so that latencies are compared round by round.
"""

from __future__ import annotations

import itertools
import math
import random
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

ROUNDS = 9
TIMING_SECONDS, MIN_CALLS, MAX_CALLS = 0.04, 3, 200  # of a timing: its duration, and bounds for its number of calls
WARMUP_CALLS = 3
# Relative differences below this are no difference: the same artifact loaded twice may differ by as much.
MIN_DIFFERENCE = 0.05
SIGNIFICANCE = 0.05  # probability that an interval misses the median


def run_rounds(jobs: Mapping[Any, Callable[[], list[float]]], rounds: int = ROUNDS) -> dict[Any, list[list[float]]]:
    """Call each job once a round, in a random order, and return its results."""
    results: dict[Any, list[list[float]]] = {key: [] for key in jobs}
    for seed in range(rounds):
        for key in random.Random(seed).sample(list(jobs), len(jobs)):
            results[key].append(jobs[key]())
    return results


def time_calls(call: Callable[[], Any], seconds: float = TIMING_SECONDS) -> list[float]:
    """Return the seconds of each of several calls, after warm-up calls."""
    for _ in range(WARMUP_CALLS):
        call()
    times: list[float] = []
    while len(times) < MIN_CALLS or (sum(times) < seconds and len(times) < MAX_CALLS):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return times


def summarize(rounds: Sequence[Sequence[float]]) -> dict[str, Any]:
    """Return p50 and p95 of all calls and the median of each round, in milliseconds, from rounds in seconds."""
    calls = [1e3 * seconds for times in rounds for seconds in times]
    p95 = statistics.quantiles(calls, n=20, method="inclusive")[-1] if len(calls) > 1 else calls[0]
    medians = [1e3 * statistics.median(times) for times in rounds]
    return {"p50": statistics.median(calls), "p95": p95, "rounds": medians}


def latency_ratio(times: Sequence[float], others: Sequence[float]) -> tuple[float, float, float]:
    """Return the ratio of two latencies: lower bound, median and upper bound.

    The bounds are the second smallest and the second largest of nine ratios, one a round. For any noise the true median
    lies between them in 96% of all measurements (sign test). With fewer than six rounds there are no bounds.

    Args:
        times: latency of each round, in any unit.
        others: the other latency, of the same rounds.
    """
    ratios = sorted(a / b for a, b in zip(times, others, strict=True))
    cut = _dropped(len(ratios))
    median = statistics.median(ratios)
    return (0.0, median, math.inf) if cut < 0 else (ratios[cut], median, ratios[-1 - cut])


def _dropped(count: int) -> int:
    """Return how many values to drop at each end so that the rest encloses the median in 95% of all cases."""
    outside = itertools.accumulate(2 * math.comb(count, k) / 2**count for k in range(count // 2 + 1))
    return sum(probability <= SIGNIFICANCE for probability in outside) - 1


def compare_latency(times: Sequence[float], others: Sequence[float]) -> int:
    """Return -1 if `times` are shorter than `others`, 1 if longer; 0 unless both bounds of the ratio exceed 5%."""
    low, _, high = latency_ratio(times, others)
    return -1 if high < 1 - MIN_DIFFERENCE else 1 if low > 1 + MIN_DIFFERENCE else 0
