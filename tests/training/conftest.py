"""Fixtures of the training tests."""

from __future__ import annotations

import numpy as np
import pytest

# Two steps along a direction: a difference between their slopes shows a corner between them.
STEPS = (1e-7, 2.5e-8)
SMOOTH = 1e-5
TRIES = 48


@pytest.fixture
def gradient_check():
    """Compare a gradient with central differences; returns the largest relative error over some directions.

    The function takes (loss, variables, directions=2): `loss` of no arguments gives a float64 scalar, `variables` are
    what it depends on, as TensorFlow's or Keras' variables. A direction along which two step sizes disagree crosses a
    corner, of a ReLU or a maximum, and another one is drawn.
    """
    import tensorflow as tf

    def check(loss, variables, directions=2):
        with tf.GradientTape() as tape:
            value = loss()
        found = tape.gradient(value, [tf_variable(v) for v in variables], unconnected_gradients="zero")
        gradients = [tf.convert_to_tensor(g).numpy() for g in found]
        start = [np.array(v) for v in variables]
        random = np.random.default_rng(0)
        errors = []
        for _ in range(TRIES):
            # Each variable moves by its own scale, so that no variable dominates.
            ways = [random.normal(size=w.shape) * (np.std(w) + 0.01) for w in start]
            slopes = [slope(loss, variables, start, ways, step) for step in STEPS]
            if abs(slopes[0] - slopes[1]) > SMOOTH * max(map(abs, slopes)):
                continue
            expected = sum(float(np.sum(g * w)) for g, w in zip(gradients, ways, strict=True))
            errors.append(abs(expected - slopes[1]) / max(abs(expected), abs(slopes[1])))
            if len(errors) == directions:
                return max(errors)
        raise ArithmeticError(f"no smooth direction in {TRIES} tries but {len(errors)}")

    return check


def slope(loss, variables, start, ways, step):
    """Return the central difference of a loss along a direction, and restore the variables."""
    values = []
    for sign in (1, -1):
        for variable, place, way in zip(variables, start, ways, strict=True):
            variable.assign(place + sign * step * way)
        values.append(float(loss()))
    for variable, place in zip(variables, start, strict=True):
        variable.assign(place)
    return (values[0] - values[1]) / (2 * step)


def tf_variable(variable):
    """Return the TensorFlow variable of a Keras variable."""
    return getattr(variable, "value", variable) if hasattr(variable, "path") else variable
