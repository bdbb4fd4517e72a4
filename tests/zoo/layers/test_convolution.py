"""Convolutions against Keras' own: plain, depthwise and in groups, and how their gradients are computed."""

from __future__ import annotations

import pytest
from layer_pairs import TOLERANCE, close, draw, gradients_of, layer_pair, operations

from zoo.layers import bfloat16 as bfloat16_module

# Each is (height, width), then the layer's options; all have maps small enough for the gradient by patches, or patches
# that are cut without copying pixels twice.
SMALL = [
    pytest.param((14, 14), {"kernel_size": 1}, id="1x1"),
    pytest.param((14, 14), {"kernel_size": 1, "use_bias": True}, id="1x1 bias"),
    pytest.param((14, 14), {"kernel_size": 1, "strides": 2, "padding": "same"}, id="1x1 stride 2 same"),
    pytest.param((15, 13), {"kernel_size": 1, "strides": 2}, id="1x1 stride 2 valid, odd"),
    pytest.param((14, 14), {"kernel_size": 1, "strides": 2}, id="1x1 stride 2 valid, even"),
    pytest.param((7, 7), {"kernel_size": 3, "padding": "same"}, id="3x3"),
    pytest.param((5, 9), {"kernel_size": 3, "padding": "same", "use_bias": True}, id="3x3 odd bias"),
    pytest.param((14, 14), {"kernel_size": 3, "strides": 2, "padding": "same"}, id="3x3 stride 2 same"),
    pytest.param((15, 14), {"kernel_size": 3, "strides": 2}, id="3x3 stride 2 valid"),
    pytest.param((7, 7), {"kernel_size": 3, "padding": "same", "activation": "relu"}, id="3x3 relu"),
    pytest.param((46, 51), {"kernel_size": 4, "strides": 4, "use_bias": True}, id="4x4 patches that touch"),
    pytest.param((33, 40), {"kernel_size": (2, 3), "strides": (2, 3)}, id="2x3 patches that touch"),
    pytest.param((6, 8), {"kernel_size": (1, 3), "strides": (1, 2), "padding": "same"}, id="1x3"),
]
# Here the kernel gradient is TensorFlow's.
LARGE = [
    pytest.param((11, 10), {"kernel_size": 3, "padding": "same"}, id="110 positions"),
    pytest.param((None, None), {"kernel_size": 3, "padding": "same"}, id="free size"),
    pytest.param((None, None), {"kernel_size": 2, "strides": 2}, id="free size, patches that touch"),
    pytest.param((44, 44), {"kernel_size": 4, "strides": 4, "padding": "same"}, id="padded patches"),
    pytest.param((7, 7), {"kernel_size": 3, "padding": "same", "dilation_rate": 2}, id="dilation"),
]


def conv_pair(size, options, dtype="mixed_bfloat16"):
    """The shape of four examples, our convolution and Keras' own."""
    shape = (4, *size, 6)
    return shape, *layer_pair("Conv2D", shape, filters=8, dtype=dtype, **{"use_bias": False, **options})


@pytest.mark.parametrize(("size", "options"), SMALL)
def test_conv_is_keras_conv(size, options):
    """Outputs and gradients of input, kernel and bias are Keras' own up to a rounding to bfloat16."""
    shape, ours, theirs = conv_pair(size, options)
    for actual, expected in zip(gradients_of(ours, draw(*shape)), gradients_of(theirs, draw(*shape)), strict=True):
        close(actual, expected, TOLERANCE["mixed_bfloat16"])


@pytest.mark.parametrize(("size", "options"), SMALL)
def test_conv_takes_the_patches(size, options):
    """In bfloat16 training on CPU the kernel gradient is a matrix product; Keras' own is not."""
    shape, ours, theirs = conv_pair(size, options)
    assert ("Conv2DBackpropFilter" in operations(ours, shape)) != bfloat16_module.is_fast()
    assert "Conv2DBackpropFilter" in operations(theirs, shape)


@pytest.mark.parametrize(("size", "options"), LARGE)
def test_conv_leaves_large_maps_alone(size, options):
    """Large or dynamic maps and dilation use Keras' operation."""
    shape, ours, theirs = conv_pair(size, options)
    assert operations(ours, shape) == operations(theirs, shape)


@pytest.mark.parametrize(
    ("dtype", "training"), [("float32", True), ("mixed_float16", True), ("float32", False), ("mixed_bfloat16", False)]
)
def test_conv_is_untouched_elsewhere(dtype, training):
    """In float32, in float16 and in inference the graph is that of Keras, without a trace of a custom gradient."""
    shape, ours, theirs = conv_pair((7, 7), {"kernel_size": 3, "padding": "same"}, dtype)
    found = operations(ours, shape, training)
    assert found == operations(theirs, shape, training)
    assert "IdentityN" not in found


DEPTHWISE = [
    pytest.param((9, 8), {"kernel_size": 3, "padding": "same"}, id="3x3"),
    pytest.param((9, 8), {"kernel_size": 7, "padding": "same", "use_bias": True}, id="7x7 bias"),
    pytest.param((9, 8), {"kernel_size": 3, "strides": 2}, id="3x3 stride 2 valid"),
    pytest.param((9, 8), {"kernel_size": 5, "strides": 2, "padding": "same"}, id="5x5 stride 2 same"),
    pytest.param((9, 8), {"kernel_size": 4, "padding": "same", "activation": "relu"}, id="4x4 relu"),
]


@pytest.mark.parametrize("dtype", ["mixed_bfloat16", "float32"])
@pytest.mark.parametrize(("size", "options"), DEPTHWISE)
def test_depthwise_is_keras_depthwise(size, options, dtype):
    """Outputs and gradients of input, kernel and bias are Keras' own up to a rounding."""
    shape = (4, *size, 6)
    ours, theirs = layer_pair("DepthwiseConv2D", shape, dtype=dtype, **options)
    for actual, expected in zip(gradients_of(ours, draw(*shape)), gradients_of(theirs, draw(*shape)), strict=True):
        close(actual, expected, TOLERANCE[dtype])
    found = operations(ours, shape)
    if dtype == "float32" or not bfloat16_module.is_fast():
        assert found == operations(theirs, shape)
    elif options.get("strides") != 2 and options["kernel_size"] % 2:
        assert "DepthwiseConv2dNativeBackpropInput" not in found
    assert operations(ours, shape, training=False) == operations(theirs, shape, training=False)


# 4 groups of 2 channels; XLA, which Keras asks for, is the reference and takes seconds each.
GROUPED = [
    pytest.param({"kernel_size": 3, "padding": "same"}, id="3x3"),
    pytest.param({"kernel_size": 3, "strides": 2, "use_bias": True, "activation": "relu"}, id="3x3 stride 2 bias relu"),
]


@pytest.mark.parametrize("dtype", ["float32", pytest.param("mixed_bfloat16", marks=pytest.mark.slow)])
@pytest.mark.parametrize("options", GROUPED)
def test_groups_are_keras_groups(options, dtype):
    """Outputs, in training and not, and gradients are Keras' own, without a function for XLA in the graph."""
    shape = (4, 7, 9, 8)
    ours, theirs = layer_pair("Conv2D", shape, filters=8, groups=4, dtype=dtype, **options)
    for actual, expected in zip(gradients_of(ours, draw(*shape)), gradients_of(theirs, draw(*shape)), strict=True):
        close(actual, expected, TOLERANCE[dtype])
    close(ours(draw(*shape)), theirs(draw(*shape)), TOLERANCE[dtype])
    assert not any("Call" in name for name in operations(ours, shape) | operations(ours, shape, training=False))


@pytest.mark.parametrize("training", [True, False])
def test_groups_of_a_dilated_kernel_use_keras(training):
    """Keras handles what the operation does not support."""
    shape = (2, 7, 7, 4)
    ours, theirs = layer_pair("Conv2D", shape, filters=4, groups=2, kernel_size=3, dilation_rate=2)
    close(ours(draw(*shape), training=training), theirs(draw(*shape)), 1e-5)


def test_conv_of_any_size_by_patches():
    """A 1x1 kernel needs no known map size."""
    shape, ours, _ = conv_pair((None, None), {"kernel_size": 1})
    assert ("Conv2DBackpropFilter" in operations(ours, shape)) != bfloat16_module.is_fast()
