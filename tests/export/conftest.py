"""What the tests of the compressions share: the digits as arrays, and a short training."""

from __future__ import annotations

import types

import pytest


@pytest.fixture(scope="session")
def digits():
    """The digits' splits, normalized: x and y to train on, test_x and test_y to judge by."""
    import numpy as np

    from training.datasets.digits import TEST, TRAIN, VALIDATION, load_pixels

    pixels, labels = load_pixels()
    values = ((pixels - np.float32(78.0)) / np.float32(95.7)).astype("float32")
    fit = slice(TRAIN.start, VALIDATION.stop)
    test = slice(TEST.start, TEST.stop)
    return types.SimpleNamespace(x=values[fit], y=labels[fit], test_x=values[test], test_y=labels[test])


@pytest.fixture(scope="session")
def trained(digits):
    """Train a network on the digits: trained(network, epochs, callbacks), which is what compressions take."""
    from training.optim.sgd import fused_sgd
    from zoo.common.lazy import keras

    def train(network, epochs, callbacks=(), rate=0.05, **options):
        steps = -(-len(digits.x) // 64) * epochs
        schedule = keras.optimizers.schedules.CosineDecay(rate, steps)
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        optimizer = fused_sgd()(schedule, momentum=0.9, nesterov=True, **options)
        network.compile(optimizer, loss, metrics=["accuracy"], jit_compile=False)
        network.fit(digits.x, digits.y, batch_size=64, epochs=epochs, callbacks=list(callbacks), verbose=0)
        return network

    return train


@pytest.fixture(scope="session")
def accuracy(digits):
    """The share of the test digits that a network gets right."""

    def judge(network):
        return float((network.predict(digits.test_x, verbose=0).argmax(-1) == digits.test_y).mean())

    return judge
