"""Noise in the place of examples, of their shape, type and range."""

from __future__ import annotations

import numpy as np
import pytest

from export.conversion.generated_samples import _noise


@pytest.mark.parametrize(
    ("values", "whole"),
    [
        (np.array([[0.0, 255.0], [7.0, 3.0]], "float32"), True),
        (np.array([[-3, 5]], "int32"), True),
        (np.array([[0.25, -1.5]], "float32"), False),
        (np.array([[1e20, 3.0], [-1e20, 2.0]], "float32"), False),  # whole, but no numbers of a random generator
        (np.array([[3.4e38, -3.4e38]], "float32"), False),
        (np.array([[np.nan, 2.0]], "float32"), True),
        (np.array([[np.nan, np.nan]], "float32"), True),
    ],
)
def test_noise_is_like_the_values(values, whole):
    """Whole numbers become whole numbers; what is not finite has no part in the range."""
    found = _noise(values, np.random.default_rng(0))
    finite = values[np.isfinite(values)]
    low, high = (finite.min(), finite.max()) if finite.size else (0, 1)
    assert (found.shape, found.dtype) == (values.shape, values.dtype)
    assert np.isfinite(found).all()
    assert found.min() >= low
    assert found.max() <= high
    assert np.array_equal(found, np.round(found)) == whole or abs(high) > 1e6
