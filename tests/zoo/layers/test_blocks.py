"""The blocks of families, and the options of a few, against arithmetic that is written out."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf
from layer_pairs import close, draw

import zoo
from zoo.layers import blocks
from zoo.models import resnet


@pytest.mark.parametrize("size", [8, 9])
@pytest.mark.parametrize("kernel", [1, 3, 7])
@pytest.mark.parametrize("stride", [1, 2])
def test_block_pads_evenly(size, kernel, stride):
    """`conv` pads by kernel // 2 on every side, which TensorFlow's own "same" does not when it strides."""
    image = keras.Input((size, size, 3))
    model = keras.Model(image, blocks.conv(image, 4, kernel, stride, name="conv"))
    values, edge = draw(2, size, size, 3), kernel // 2
    weights = model.get_layer("conv").kernel.value
    padded = np.pad(values, [(0, 0), (edge, edge), (edge, edge), (0, 0)])
    close(model(values), tf.nn.conv2d(padded, weights, stride, "VALID"), 1e-5)
    if stride == 2 and kernel > 1 and size % 2 == 0:
        same = tf.nn.conv2d(values, weights, stride, "SAME")
        assert np.abs(model(values) - same).max() > 0.1


@pytest.mark.parametrize("size", [(8, 8), (7, 9)])
@pytest.mark.parametrize(("filters", "stride"), [(8, 2), (7, 2), (4, 2), (8, 1), (4, 1)])
def test_shortcut_of_option_a(size, filters, stride):
    """Option A takes every stride-th pixel and puts zeros where channels are missing."""
    image = keras.Input((*size, 4))
    values = draw(2, *size, 4)
    before = (filters - 4) // 2
    expected = np.pad(values[:, ::stride, ::stride], [(0, 0)] * 3 + [(before, filters - 4 - before)])
    # Keras before 3.13 makes no model of an input that is its own output.
    model = keras.Model(
        image, keras.layers.Identity()(resnet.zero_padding(image, filters, stride, resnet.BlockConfig(), name="a"))
    )
    assert model.weights == []
    np.testing.assert_array_equal(model(values), expected)


def test_zero_init():
    """With zero_init the last scale of each branch starts at 0 and the others at 1; without it all start at 1."""
    for zero_init in (True, False):
        model = zoo.get("resnet_tiny", zero_init=zero_init)
        scales = {layer.name: layer.gamma.numpy() for layer in model.layers if hasattr(layer, "gamma")}
        assert len(scales) == 7
        for name, scale in scales.items():
            assert (scale == (0 if zero_init and name.endswith("conv2_norm") else 1)).all()


def test_options_of_fcnn():
    """Depth, width, penalties and dropout of `zoo.get` are in the model."""
    model = zoo.get("mlp", widths=(16,), depth=3, l1=0.01, l2=0.1, dropout=0.25)
    hidden = [layer for layer in model.layers if layer.name.startswith("dense")]
    dropped = [layer for layer in model.layers if isinstance(layer, keras.layers.Dropout)]
    assert [layer.units for layer in hidden] == [16, 16, 16]
    assert [layer.rate for layer in dropped] == [0.25] * 3
    kernels = [layer.kernel.numpy() for layer in hidden]
    expected = sum(0.01 * np.abs(k).sum() + 0.1 * np.square(k).sum() for k in kernels)
    np.testing.assert_allclose(sum(float(loss) for loss in model.losses), expected, rtol=1e-5)


def test_defaults_of_fcnn():
    """Without options there is no dropout and no penalty."""
    model = zoo.get("mlp")
    assert model.losses == []
    assert [layer.name for layer in model.layers] == ["features", "dense1", "logits"]


@pytest.mark.parametrize("name", ["resnet_tiny", "mlp_tiny"])
def test_dropout_acts_in_training_only(name):
    """Dropout changes a training call and no inference."""
    model = zoo.get(name, dropout=0.5)
    values = draw(4, *model.input_shape[1:])
    model.trainable = False  # so that batch statistics do not differ between the calls
    assert not np.array_equal(model(values, training=True), model(values, training=True))
    np.testing.assert_array_equal(model(values, training=False), model(values, training=False))


def pooled(x, size, axis):
    """Means over the windows of PyTorch's adaptive average pooling along one axis."""
    n = x.shape[axis]
    windows = [range(i * n // size, -(-(i + 1) * n // size)) for i in range(size)]
    return np.stack([x.take(list(w), axis).mean(axis) for w in windows], axis)


@pytest.mark.parametrize("shape", [(7, 7), (14, 21), (3, 2), (1, 1), (9, 30), (7, 10)])
def test_adaptive_pool(shape):
    """Any map becomes 7x7 by the means of PyTorch's windows."""
    image = keras.Input((*shape, 3))
    model = keras.Model(image, keras.layers.Identity()(blocks.adaptive_pool(image, 7, name="pool")))
    values = draw(2, *shape, 3)
    close(model(values), tf.constant(pooled(pooled(values, 7, 1), 7, 2)), 1e-6)
