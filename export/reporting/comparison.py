"""Comparison of artifacts: confidence intervals, latencies, and domination (the Pareto front)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from export.benchmark.statistics import MIN_DIFFERENCE, compare_latency, latency_ratio

Z_95 = 1.959964  # two-sided 95% quantile of the normal distribution


def wilson_interval(fraction: float, count: int) -> tuple[float, float]:
    """Return the 95% interval of a fraction (Wilson 1927), which stays inside 0 to 1 also for few examples.

    Args:
        fraction: measured fraction, 0 to 1.
        count: number of examples, at least 1.

    Returns:
        Lower and upper bound, 0 to 1.
    """
    scale = 1 + Z_95**2 / count
    center = (fraction + Z_95**2 / (2 * count)) / scale
    margin = Z_95 * math.sqrt(fraction * (1 - fraction) / count + Z_95**2 / (4 * count**2)) / scale
    return max(0.0, center - margin), min(1.0, center + margin)


def latency_of(row: dict[str, Any], threads: int | None = None) -> dict[str, Any] | None:
    """Return the latency of a row for a number of threads, by default the largest; None if it was not measured."""
    latency = (row.get("measured") or {}).get("latency") or {}
    return latency.get(str(threads or max(map(int, latency), default=0)))


def compare_rows(row: dict[str, Any], other: dict[str, Any], threads: int | None = None) -> int:
    """Return -1 if a row is significantly faster than another, 1 if slower, 0 otherwise.

    Args:
        row: an artifact of a report.
        other: another one, measured in the same rounds.
        threads: number of threads, by default the largest.
    """
    one, two = latency_of(row, threads), latency_of(other, threads)
    if not one or not two or batch_of(row) != batch_of(other):
        return 0
    return compare_latency(one["rounds"], two["rounds"])


def fastest_rows(rows: Sequence[dict[str, Any]], threads: int | None = None) -> list[dict[str, Any]]:
    """Return the row with the lowest latency, and those that are not significantly slower."""
    known = [row for row in rows if latency_of(row, threads)]
    if not known:
        return []
    first = min(known, key=lambda row: latency_of(row, threads)["p50"])
    others = [row for row in known if row is not first and batch_of(row) == batch_of(first)]
    return [first, *(row for row in others if compare_rows(first, row, threads) >= 0)]


def fastest_row(
    rows: Sequence[dict[str, Any]], threads: int | None = None, size: str = "bytes"
) -> dict[str, Any] | None:
    """Return the smallest, then the most accurate of the rows that are not significantly slower than the fastest.

    Args:
        rows: artifacts of a report, measured in the same rounds.
        threads: number of threads, by default the largest.
        size: key of the size, "bytes" or "gzip_bytes".

    Returns:
        The row; None if none was measured.
    """

    def order(row: dict[str, Any]) -> tuple[float, float, float]:
        drop = row.get("drop")
        return row.get(size) or math.inf, 1 if drop is None else drop, latency_of(row, threads)["p50"]

    return min(fastest_rows(rows, threads), key=order, default=None)


def batch_of(row: dict[str, Any]) -> int:
    """Return the number of examples in a call."""
    return (row.get("measured") or {}).get("batch") or row.get("batch") or 1


def dominates(other: dict[str, Any], row: dict[str, Any]) -> bool:
    """Return whether an artifact is at least as good as a row in every metric, and better in one.

    The metrics are accuracy, size, size after gzip, and latency. Faster means significantly faster; equally fast means
    within 5% in the median. Artifacts with different evaluations are not compared.
    """
    if not other.get("passed") or other.get("evaluation") != row.get("evaluation"):
        return False
    signs = [_sign(row, other, key) for key in ("bytes", "gzip_bytes")]
    signs += [-_sign(row, other, "accuracy"), -compare_rows(other, row) or _if_slower(other, row)]
    return min(signs) >= 0 and max(signs) > 0


def _if_slower(other: dict[str, Any], row: dict[str, Any]) -> int:
    """Return -1 if the other's median latency is higher, even if not significantly; 0 otherwise."""
    one, two = latency_of(other), latency_of(row)
    return -1 if one and two and latency_ratio(one["rounds"], two["rounds"])[1] > 1 + MIN_DIFFERENCE else 0


def _sign(row: dict[str, Any], other: dict[str, Any], key: str) -> int:
    """Return 1 if the other's value is lower, -1 if higher, 0 if equal or unknown."""
    a, b = row.get(key), other.get(key)
    return 0 if a is None or b is None else (a > b) - (a < b)


def dominating_row(row: dict[str, Any], rows: Sequence[dict[str, Any]]) -> str | None:
    """Return the name of an artifact that dominates a row, preferably from the Pareto front; None without one."""
    better = [other for other in rows if dominates(other, row)]
    best = [other for other in better if not any(dominates(third, other) for third in better)]
    return (best or better)[0]["name"] if better else None
