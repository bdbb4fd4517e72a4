"""How long calls take: measured in short bursts that take turns, and compared round by round.

A slow moment of the machine then meets all that are compared, and what differs from round to round is known as noise.
"""

from __future__ import annotations

import itertools
import math
import random
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from export.core.format import Runtime
from export.core.samples import head

ROUNDS = 9
SECONDS, LEAST, MOST = 0.04, 3, 200  # a burst: so long, and at least and at most so many calls
WARM = 3
# A difference below is none, for the same artifact loaded twice may differ by so much.
MATTERS = 0.05
UNSURE = 0.05  # how seldom an interval misses the median


def measure(runtimes: Mapping[str, Runtime], inputs: Any, rounds: int = ROUNDS) -> dict[str, dict[str, Any]]:
    """Measure in this process the latency of one call at batch 1; a network that writes sequences writes a whole one.

    Args:
        runtimes: artifacts loaded in their runtimes; their batch must be 1 or free.
        inputs: raw values (n, *shape) or ids, of which the first is used.
        rounds: how many turns each takes.

    Returns:
        For each name what `sum_up` returns.
    """
    one = head(inputs, 1)
    jobs = {name: _burst_of(runtime, one) for name, runtime in runtimes.items()}
    return {name: sum_up(bursts) for name, bursts in in_turns(jobs, rounds).items()}


def _burst_of(runtime: Runtime, one: Any) -> Callable[[], list[float]]:
    return lambda: burst(lambda: runtime.step(one))


def in_turns(jobs: Mapping[Any, Callable[[], list[float]]], rounds: int = ROUNDS) -> dict[Any, list[list[float]]]:
    """Call each job once a round, in an order that is another one each time, and collect what they return."""
    found: dict[Any, list[list[float]]] = {key: [] for key in jobs}
    for number in range(rounds):
        for key in random.Random(number).sample(list(jobs), len(jobs)):
            found[key].append(jobs[key]())
    return found


def burst(call: Callable[[], Any], seconds: float = SECONDS) -> list[float]:
    """Return the seconds of each of several calls, after a few that do not count: others ran since the last burst."""
    for _ in range(WARM):
        call()
    times: list[float] = []
    while len(times) < LEAST or (sum(times) < seconds and len(times) < MOST):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return times


def sum_up(bursts: Sequence[Sequence[float]]) -> dict[str, Any]:
    """Return p50 and p95 of all calls, and the median of each round, in milliseconds, from bursts in seconds."""
    calls = [1e3 * seconds for one in bursts for seconds in one]
    p95 = statistics.quantiles(calls, n=20, method="inclusive")[-1] if len(calls) > 1 else calls[0]
    return {"p50": statistics.median(calls), "p95": p95, "rounds": [1e3 * statistics.median(one) for one in bursts]}


def ratio(times: Sequence[float], others: Sequence[float]) -> tuple[float, float, float]:
    """Return how many times as long `times` are as `others`: the lower bound, the median and the upper bound.

    The bounds are the second smallest and the second largest of nine ratios, one a round: whatever the noise is like,
    the median ratio lies between them in 96% of all measurements (that of the sign test). With fewer than six rounds
    there are no bounds.

    Args:
        times: what each round took, in any unit.
        others: what it took another, in the same rounds.
    """
    ratios = sorted(a / b for a, b in zip(times, others, strict=True))
    cut = _cut(len(ratios))
    middle = statistics.median(ratios)
    return (0.0, middle, math.inf) if cut < 0 else (ratios[cut], middle, ratios[-1 - cut])


def _cut(count: int) -> int:
    """Return how many values to leave out at each end, so that the median lies between the rest in 95% of all cases."""
    beyond = itertools.accumulate(2 * math.comb(count, k) / 2**count for k in range(count // 2 + 1))
    return sum(share <= UNSURE for share in beyond) - 1


def judge(times: Sequence[float], others: Sequence[float]) -> int:
    """Return -1 if `times` are shorter than `others`, 1 if longer; 0 unless both bounds of `ratio` are beyond 5%."""
    low, _, high = ratio(times, others)
    return -1 if high < 1 - MATTERS else 1 if low > 1 + MATTERS else 0
