"""The switch of fused kernels: with it off, layers compute with Keras' own kernels, to the precision of bfloat16."""

from __future__ import annotations

import numpy as np
import pytest

from zoo.common.fused import SWITCH, use_fused


@pytest.mark.parametrize(("value", "expected"), [(None, True), ("1", True), ("0", False)])
def test_switch_is_an_environment_variable(value, expected, monkeypatch):
    """ZOO_FUSED=0 is off; all else, and no value, is on."""
    monkeypatch.delenv(SWITCH, raising=False)
    if value is not None:
        monkeypatch.setenv(SWITCH, value)
    assert use_fused() == expected


def test_gradients_agree_with_the_switch_on_and_off(monkeypatch):
    """A 1x1 convolution in bfloat16 has the same gradient from the fused kernel and from Keras' own."""
    import tensorflow as tf

    from zoo.layers import bfloat16
    from zoo.layers.convolution import Conv2D
    from zoo.layers.kernels import trains_in_bfloat16_on_cpu

    layer = Conv2D(8, 1, dtype="mixed_bfloat16")
    x = tf.cast(np.random.default_rng(0).normal(size=(2, 6, 6, 4)), tf.bfloat16)
    layer.build(x.shape)
    gradients = []
    for value in ("1", "0"):
        monkeypatch.setenv(SWITCH, value)
        assert trains_in_bfloat16_on_cpu(x) == (value == "1" and bfloat16.is_fast())
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(tf.square(tf.cast(layer(x, training=True), tf.float32)))
        gradients.append(tf.cast(tape.gradient(loss, layer.kernel.value), tf.float32).numpy())
    np.testing.assert_allclose(*gradients, rtol=0.05, atol=0.05 * np.abs(gradients[0]).max())
