"""Ranges of activations for 8 bits, from the histogram of their values: all of them, or without the rarest.

A narrower range has smaller steps and clips more. The methods differ in what they minimize: "mse" the squared error,
"entropy" the Kullback-Leibler divergence of the quantized distribution (TensorRT's calibration, Migacz 2017);
"percentile" clips a fixed fraction of the values, "minmax" none.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING

from zoo.common.lazy import np

if TYPE_CHECKING:
    import numpy as _np

BINS, LEVELS = 2048, 256
PERCENTILE = 99.99
# Ranges that "mse" and "entropy" compare, as fractions of the whole one.
FRACTIONS = tuple(1 - step / 40 for step in range(31))
METHODS = ("minmax", "mse", "percentile", "entropy")

Range = tuple[float, float]


@dataclasses.dataclass
class Histogram:
    """How often the values of a tensor are in each of `BINS` equal bins.

    Args:
        low: the smallest value, at most 0.
        high: the largest value, at least 0.
        counts: number of values in each bin.
    """

    low: float
    high: float
    counts: _np.ndarray

    @classmethod
    def over(cls, bounds: Range) -> Histogram:
        """Return an empty histogram over a range, which is extended to contain 0."""
        return cls(min(0.0, bounds[0]), max(0.0, bounds[1]), np.zeros(BINS, "int64"))

    def add(self, values: _np.ndarray) -> None:
        """Count values; those outside are counted in the first and in the last bin."""
        width = (self.high - self.low) / BINS
        if width > 0:
            bins = ((np.asarray(values, "float32").ravel() - np.float32(self.low)) / np.float32(width)).astype("int32")
            self.counts += np.bincount(np.clip(bins, 0, BINS - 1), minlength=BINS)

    @property
    def centers(self) -> _np.ndarray:
        """The values in the middle of the bins."""
        return self.low + (np.arange(BINS) + 0.5) * (self.high - self.low) / BINS


def choose_range(histogram: Histogram, method: str) -> Range:
    """Return the range for a tensor, which contains 0 and is inside that of the histogram.

    Args:
        histogram: of its values.
        method: one of `METHODS`.
    """
    if not histogram.counts.sum() or method == "minmax":
        return histogram.low, histogram.high
    if method == "percentile":
        return _percentiles(histogram)
    cost = _squared_error if method == "mse" else _divergence
    candidates = [(low * histogram.low, high * histogram.high) for low, high in _fractions(histogram)]
    return min(candidates, key=lambda bounds: cost(histogram, bounds))


def choose_ranges(histograms: Mapping[str, Histogram], method: str) -> dict[str, Range]:
    """Return the range of each tensor, by name."""
    return {name: choose_range(histogram, method) for name, histogram in histograms.items()}


def _fractions(histogram: Histogram) -> list[tuple[float, float]]:
    """Return the fractions of both ends to compare; the short end is clipped only where the long one reaches it."""
    longest = max(-histogram.low, histogram.high)
    ends = (-histogram.low / longest, histogram.high / longest)
    return [tuple(min(1.0, fraction / end) if end else 1.0 for end in ends) for fraction in FRACTIONS]


def _percentiles(histogram: Histogram) -> Range:
    """Return the range without the rarest values on each side of 0 that has any."""
    below = np.cumsum(histogram.counts) / histogram.counts.sum()
    edges = np.linspace(histogram.low, histogram.high, BINS + 1)
    tail = 1 - PERCENTILE / 100
    low = edges[np.searchsorted(below, tail, side="right")]
    high = edges[np.searchsorted(below, 1 - tail) + 1]
    return min(0.0, float(low)), max(0.0, float(high))


def _squared_error(histogram: Histogram, bounds: Range) -> float:
    """Return the mean squared error of the quantized values."""
    step = (bounds[1] - bounds[0]) / (LEVELS - 1)
    values, weights = histogram.centers, histogram.counts / histogram.counts.sum()
    clipped = np.clip(values, *bounds)
    # Values that 8 bits represent exactly, such as the zeros of a ReLU, are no reason for small steps.
    inside = (clipped == values) & (np.abs(values) > (histogram.high - histogram.low) / BINS)
    return float(np.sum(weights * ((clipped - values) ** 2 + inside * step**2 / 12)))


def _without_zeros(histogram: Histogram) -> _np.ndarray:
    """Return the counts, float64, with no more zeros than values next to them: every range has a code for zero."""
    counts = histogram.counts.astype("float64")
    zero = int(np.argmin(np.abs(histogram.centers)))
    others = [counts[i] for i in (zero - 2, zero - 1, zero + 1, zero + 2) if 0 <= i < BINS]
    near = slice(max(0, zero - 1), zero + 2)
    counts[near] = np.minimum(counts[near], np.median(others))
    return counts


def _divergence(histogram: Histogram, bounds: Range) -> float:
    """Return the divergence of the clipped and quantized distribution from the whole one."""
    values, counts = histogram.centers, _without_zeros(histogram)
    step = (bounds[1] - bounds[0]) / (LEVELS - 1)
    levels = np.rint((np.clip(values, *bounds) - bounds[0]) / step).astype(int)
    inside = (values >= bounds[0]) & (values <= bounds[1])
    reference = counts.copy()
    # The counts of values that are clipped are at the ends of the range.
    first, last = np.flatnonzero(inside)[[0, -1]]
    reference[first] += counts[:first].sum()
    reference[last] += counts[last + 1 :].sum()
    reference[~inside] = 0.0
    filled = inside & (counts > 0)
    sums = np.bincount(levels[filled], counts[filled], LEVELS)
    bins = np.bincount(levels[filled], minlength=LEVELS)
    quantized = np.where(filled, sums[levels] / np.maximum(bins[levels], 1), 0.0)
    p, q = reference / reference.sum(), quantized / max(quantized.sum(), 1e-12)
    used = p > 0
    return float(np.sum(p[used] * np.log(p[used] / np.maximum(q[used], 1e-12))))
