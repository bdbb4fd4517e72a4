"""What to hold against what: how much of the figure was lost, how sure it is, and which artifact nobody needs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from export.benchmark.latency import MATTERS, judge, ratio

Z_95 = 1.959964  # two-sided 95% quantile of the normal distribution


def wilson_interval(share: float, count: int) -> tuple[float, float]:
    """Give the 95% interval of a share (Wilson 1927), which stays inside 0 to 1 also for few examples.

    Args:
        share: Measured share, 0 to 1.
        count: How many examples it was measured on, at least 1.

    Returns:
        Lower and upper bound, 0 to 1.
    """
    scale = 1 + Z_95**2 / count
    middle = (share + Z_95**2 / (2 * count)) / scale
    reach = Z_95 * math.sqrt(share * (1 - share) / count + Z_95**2 / (4 * count**2)) / scale
    return max(0.0, middle - reach), min(1.0, middle + reach)


def latency_of(row: dict[str, Any], threads: int | None = None) -> dict[str, Any] | None:
    """Return the latency of a row with so many threads, the most that were measured by default; None if it was not."""
    found = (row.get("measured") or {}).get("latency") or {}
    return found.get(str(threads or max(map(int, found), default=0)))


def faster(row: dict[str, Any], other: dict[str, Any], threads: int | None = None) -> int:
    """Return 1 if a row is faster than another beyond the spread of the rounds, -1 if slower, 0 otherwise.

    Args:
        row: of a report's artifacts.
        other: another, measured in the same rounds.
        threads: with so many threads; the most that were measured by default.
    """
    one, two = latency_of(row, threads), latency_of(other, threads)
    if not one or not two or batch_of(row) != batch_of(other):
        return 0
    return -judge(one["rounds"], two["rounds"])


def fastest(rows: Sequence[dict[str, Any]], threads: int | None = None) -> list[dict[str, Any]]:
    """Return the rows that the quickest is no faster than beyond the spread of rounds; itself first."""
    known = [row for row in rows if latency_of(row, threads)]
    if not known:
        return []
    first = min(known, key=lambda row: latency_of(row, threads)["p50"])
    level = [row for row in known if row is not first and batch_of(row) == batch_of(first)]
    return [first, *(row for row in level if faster(first, row, threads) <= 0)]


def batch_of(row: dict[str, Any]) -> int:
    """Return how many examples a call of a row answers."""
    return (row.get("measured") or {}).get("batch") or row.get("batch") or 1


def dominates(other: dict[str, Any], row: dict[str, Any]) -> bool:
    """Tell whether an artifact is at least as good as a row in all that was measured, and better in something.

    That is accuracy, bytes raw and gzipped, and latency. To be faster it must be so beyond the spread of the rounds; to
    be as fast, within 5% in the median. Answers to other questions are not compared.
    """
    if not other.get("passed") or other.get("question") != row.get("question"):
        return False
    signs = [_sign(row, other, key) for key in ("bytes", "gzip_bytes")]
    signs += [-_sign(row, other, "accuracy"), faster(other, row) or _level(other, row)]
    return min(signs) >= 0 and max(signs) > 0


def _level(other: dict[str, Any], row: dict[str, Any]) -> int:
    """Return -1 if the other took longer than a row, though perhaps by chance; 0 otherwise."""
    one, two = latency_of(other), latency_of(row)
    return -1 if one and two and ratio(one["rounds"], two["rounds"])[1] > 1 + MATTERS else 0


def _sign(row: dict[str, Any], other: dict[str, Any], key: str) -> int:
    """Return 1 if the other has less of a thing, -1 if more, 0 if as much or where that is not known."""
    a, b = row.get(key), other.get(key)
    return 0 if a is None or b is None else (a > b) - (a < b)


def dominator(row: dict[str, Any], rows: Sequence[dict[str, Any]]) -> str | None:
    """Return the name of an artifact that dominates a row, itself not dominated; None if nothing does."""
    better = [other for other in rows if dominates(other, row)]
    best = [other for other in better if not any(dominates(third, other) for third in better)]
    return (best or better)[0]["name"] if better else None
