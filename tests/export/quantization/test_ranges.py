"""Calibration methods: the range that each chooses, and the errors that it has."""

from __future__ import annotations

import numpy as np
import pytest

from export.quantization.ranges import METHODS, Histogram, choose_range


def histogram_of(values):
    found = Histogram.over((float(values.min()), float(values.max())))
    for part in np.array_split(values, 3):
        found.add(part)
    return found


def squared_error(values, low, high):
    """The mean squared error of quantizing to 8 bits."""
    step = (high - low) / 255
    return np.mean((np.clip(np.rint(values / step) * step, low, high) - values) ** 2)


@pytest.fixture(scope="module")
def outliers():
    """A million values of a normal distribution, and three far outside."""
    rng = np.random.default_rng(0)
    return np.concatenate([rng.normal(size=1_000_000), [60.0, 55.0, -20.0]]).astype("float32")


@pytest.mark.parametrize("method", METHODS)
def test_ranges_contain_zero_and_are_inside(outliers, method):
    """Of signed values, of those after a ReLU, and of a tensor of zeros."""
    for values in (outliers, np.maximum(outliers, 0), -abs(outliers), np.zeros(10, "float32")):
        low, high = choose_range(histogram_of(values), method)
        assert min(values.min(), 0) <= low <= 0 <= high <= max(values.max(), 0)


def test_minmax_is_the_whole_range(outliers):
    """It clips nothing."""
    assert choose_range(histogram_of(outliers), "minmax") == (-20.0, 60.0)


@pytest.mark.parametrize("method", ["mse", "percentile", "entropy"])
def test_outliers_are_clipped(outliers, method):
    """The squared error of the others falls to less than half."""
    low, high = choose_range(histogram_of(outliers), method)
    assert high < 45
    assert squared_error(outliers[:-3], low, high) < 0.5 * squared_error(outliers[:-3], -20, 60)


def test_mse_has_the_least_squared_error(outliers):
    """Of all methods, on all values."""
    errors = {m: squared_error(outliers, *choose_range(histogram_of(outliers), m)) for m in METHODS}
    assert min(errors, key=errors.__getitem__) == "mse"


@pytest.mark.parametrize("method", METHODS)
def test_equal_values_keep_their_range(method):
    """The control: without rare values there is nothing to clip."""
    values = np.random.default_rng(0).uniform(-3, 1, 100_000).astype("float32")
    low, high = choose_range(histogram_of(values), method)
    assert (low, high) == pytest.approx((-3, 1), abs=0.05)
