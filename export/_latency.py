"""How long artifacts take, measured in turns in one process, so that a slow moment of the machine meets them all."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from export._format import Runtime
from export._samples import head
from zoo._lazy import np

ROUNDS, SECONDS, MOST = 5, 0.1, 200


def measure(runtimes: Mapping[str, Runtime], inputs: Any) -> dict[str, dict[str, float]]:
    """Measure the latency of one call at batch 1; a network that writes sequences writes a whole one.

    Args:
        runtimes: artifacts loaded in their runtimes; their batch must be 1 or free.
        inputs: raw values (n, *shape) or ids, of which the first is used.

    Returns:
        For each name, p50 and p95 in milliseconds.
    """
    one = head(inputs, 1)
    times: dict[str, list[float]] = {name: [] for name in runtimes}
    for runtime in runtimes.values():
        _warm_up(runtime, one)
    for _ in range(ROUNDS):
        for name, runtime in runtimes.items():
            times[name] += _time_calls(runtime, one)
    return {name: {"p50": 1e3 * _quantile(t, 0.5), "p95": 1e3 * _quantile(t, 0.95)} for name, t in times.items()}


def _warm_up(runtime: Runtime, one: Any) -> None:
    for _ in range(3):
        runtime.step(one)


def _time_calls(runtime: Runtime, one: Any) -> list[float]:
    """Return the seconds of each call in a tenth of a second, or of five calls if they take longer."""
    times: list[float] = []
    while len(times) < 5 or (sum(times) < SECONDS and len(times) < MOST):
        start = time.perf_counter()
        runtime.step(one)
        times.append(time.perf_counter() - start)
    return times


def _quantile(values: list[float], share: float) -> float:
    return float(np.quantile(values, share))
