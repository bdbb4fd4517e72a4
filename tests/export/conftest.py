"""Fixtures of the compression tests: the digits as arrays, and a short training."""

from __future__ import annotations

import types

import pytest


@pytest.fixture(scope="session")
def digits():
    """The digits' splits, normalized: x and y to train on, test_x and test_y to evaluate on."""
    import numpy as np

    from training.datasets.digits import TEST, TRAIN, VALIDATION, load_pixels

    pixels, labels = load_pixels()
    values = ((pixels - np.float32(78.0)) / np.float32(95.7)).astype("float32")
    fit = slice(TRAIN.start, VALIDATION.stop)
    test = slice(TEST.start, TEST.stop)
    return types.SimpleNamespace(x=values[fit], y=labels[fit], test_x=values[test], test_y=labels[test])


@pytest.fixture(scope="session")
def trained(digits):
    """Train a model on the digits: `trained(model, epochs, callbacks)`, the signature that compressions use."""
    from training.optim.sgd import fused_sgd
    from zoo.common.lazy import keras

    def train(model, epochs, callbacks=(), rate=0.05, **options):
        steps = -(-len(digits.x) // 64) * epochs
        schedule = keras.optimizers.schedules.CosineDecay(rate, steps)
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        optimizer = fused_sgd()(schedule, momentum=0.9, nesterov=True, **options)
        model.compile(optimizer, loss, metrics=["accuracy"], jit_compile=False)
        model.fit(digits.x, digits.y, batch_size=64, epochs=epochs, callbacks=list(callbacks), verbose=0)
        return model

    return train


@pytest.fixture(scope="session")
def accuracy(digits):
    """The accuracy of a model on the test digits."""

    def evaluate(model):
        return float((model.predict(digits.test_x, verbose=0).argmax(-1) == digits.test_y).mean())

    return evaluate
