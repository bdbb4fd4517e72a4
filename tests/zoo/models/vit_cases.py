"""Random images, weights and comparisons for the tests of vision transformers."""

from __future__ import annotations

import numpy as np


def draw(*shape, seed=0):
    """Standard normal values."""
    return np.random.default_rng(seed).standard_normal(shape).astype("float32")


def randomized(model):
    """The model with random weights large enough to affect the outputs."""
    for i, variable in enumerate(model.weights):
        scale = 0.3 if len(variable.shape) > 1 else 0.1
        variable.assign(variable + scale * draw(*variable.shape, seed=i))
    return model


def close(actual, expected, tolerance=1e-5):
    """Assert that no difference exceeds this fraction of the largest expected value."""
    actual, expected = np.asarray(actual), np.asarray(expected)
    assert actual.shape == expected.shape
    assert np.abs(actual - expected).max() <= tolerance * np.abs(expected).max()
