"""The loss of a metric between a source model and its artifact on the same examples, with interval and test."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from zoo.common.lazy import LazyModule, np

if TYPE_CHECKING:
    import numpy as _np

special = LazyModule("scipy.special")

SIGNIFICANCE = 0.05  # of the test, and of each bound of an interval
GROUPS = 20  # of examples that the jackknife leaves out


@dataclasses.dataclass(frozen=True)
class Drop:
    """A loss of accuracy, or of another metric.

    Args:
        value: as measured; negative for a gain.
        low: lower bound; the true loss is above it with 95%.
        high: upper bound; the true loss is below it with 95%.
        p: how often an artifact that loses nothing shows such a loss.
    """

    value: float
    low: float
    high: float
    p: float

    def exceeds(self, allowed: float) -> bool:
        """Return whether the loss is more than is allowed, and not due to the choice of examples."""
        return (self.value > allowed + 1e-9 and self.p < SIGNIFICANCE) or self.low > allowed

    def is_decided(self, allowed: float) -> bool:
        """Return whether there are enough examples to tell if the loss is within what is allowed."""
        return self.exceeds(allowed) or self.high <= allowed


def paired_drop(right: _np.ndarray, source_right: _np.ndarray) -> Drop:
    """Return the loss of accuracy by the examples where only one of the two models is right.

    The test is McNemar's exact one: a loss and a gain are equally likely if the two models are equally accurate. The
    interval combines the exact intervals of the fractions lost and gained (Zou and Donner 2008, MOVER), so that it has
    a width where all predictions agree: no loss in n examples leaves 3 / n possible.

    Args:
        right: whether the artifact is right, by example (n,).
        source_right: whether the source is.
    """
    count = len(right)
    lost, gained = int((source_right & ~right).sum()), int((right & ~source_right).sum())
    a, b = _Fraction.of(lost, count), _Fraction.of(gained, count)
    overlap = a.correlation(b)
    low = _norm(a.value - a.low, b.high - b.value, overlap)
    high = _norm(a.high - a.value, b.value - b.low, overlap)
    value = a.value - b.value
    return Drop(value, max(-1.0, value - low), min(1.0, value + high), sign_test(lost, gained))


def sign_test(lost: int, gained: int) -> float:
    """Return the probability of at least so many losses if losses and gains are equally likely."""
    return float(special.bdtrc(lost - 1, lost + gained, 0.5)) if lost else 1.0


@dataclasses.dataclass(frozen=True)
class _Fraction:
    """A fraction of examples with its exact bounds (Clopper and Pearson 1934)."""

    value: float
    low: float
    high: float

    @classmethod
    def of(cls, k: int, n: int) -> _Fraction:
        low = float(special.betaincinv(k, n - k + 1, SIGNIFICANCE)) if k else 0.0
        high = float(special.betaincinv(k + 1, n - k, 1 - SIGNIFICANCE)) if k < n else 1.0
        return cls(k / n, low, high)

    def correlation(self, other: _Fraction) -> float:
        """Return the correlation of two fractions of the same examples that exclude each other."""
        rest = (1 - self.value) * (1 - other.value)
        return -math.sqrt(self.value * other.value / rest) if rest else 0.0


def _norm(a: float, b: float, correlation: float) -> float:
    """Return the margin of the difference of two correlated values with the margins a and b."""
    return math.sqrt(max(0.0, a * a + b * b - 2 * correlation * a * b))


def jackknife_drop(drop: Callable[[_np.ndarray], float], count: int) -> Drop:
    """Return the loss of a metric that is no fraction of examples, by leaving out one of 20 groups of them at a time.

    Groups are consecutive, so that the positions of a sequence stay together.

    Args:
        drop: returns the loss on the examples of these numbers.
        count: number of examples.
    """
    numbers = np.arange(count)
    value, groups = drop(numbers), np.array_split(numbers, min(GROUPS, count))
    left = np.array([drop(np.setdiff1d(numbers, group)) for group in groups] if len(groups) > 1 else [value])
    freedom = max(1, len(left) - 1)
    error = math.sqrt(freedom / (freedom + 1) * float(((left - left.mean()) ** 2).sum()))
    margin = error * float(special.stdtrit(freedom, 1 - SIGNIFICANCE))
    p = float(special.stdtr(freedom, -value / error)) if error else float(value <= 0)
    return Drop(value, value - margin, value + margin, p)


def drop_of(parts: dict[str, Any]) -> Drop | None:
    """Return the loss in the fields of a `Parity`; None without labels."""
    if parts["drop"] is None:
        return None
    return Drop(parts["drop"], *parts["drop_interval"], parts["drop_p"])
