"""Our layers against Keras' own, and the blocks against arithmetic that is written out."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

import zoo
from zoo.common.errors import BadOption
from zoo.layers import bfloat16 as bfloat16_module
from zoo.layers import blocks, core
from zoo.models import resnet

# Fractions of the largest value. bfloat16 keeps 8 bits of a number and float16 11: the kernels sum in another order,
# and an output or gradient that is rounded once more is off by up to one unit in the last place.
TOLERANCE = {"float32": 1e-5, "mixed_bfloat16": 1e-2, "mixed_float16": 2e-3, "bfloat16": 2e-2, "float16": 2e-3}


def close(actual, expected, tolerance):
    """Assert equal shapes and dtypes, and that no value differs by more than this fraction of the largest."""
    assert actual.dtype == expected.dtype
    actual, expected = (np.asarray(tf.cast(v, "float64")) for v in (actual, expected))
    assert actual.shape == expected.shape
    assert np.abs(actual - expected).max() <= tolerance * max(np.abs(expected).max(), 1e-3)


def draw(*shape, seed=0):
    """Standard normal values."""
    return np.random.default_rng(seed).standard_normal(shape).astype("float32")


def layer_pair(kind, shape, **options):
    """Our layer and Keras' own with the same weights, none of them trivial."""
    pair = getattr(core, kind)(**options), getattr(keras.layers, kind)(**options)
    for layer in pair:
        layer.build((None, *shape[1:]))
    for number, (ours, theirs) in enumerate(zip(*(layer.weights for layer in pair), strict=True)):
        value = 0.5 + np.abs(draw(*ours.shape, seed=number)) if len(ours.shape) == 1 else draw(*ours.shape, seed=number)
        ours.assign(value)
        theirs.assign(value)
    return pair


def gradients_of(layer, values, training=True):
    """Return outputs, the gradients of the input and of each weight, and the non-trainable weights."""
    x = tf.cast(values, layer.compute_dtype)
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = layer(x, training=training)
        loss = tf.reduce_sum(tf.cast(y, "float32") * draw(*y.shape, seed=9))
    weights = [w.value for w in layer.trainable_weights]
    return [y, *tape.gradient(loss, [x, *weights]), *(w.value for w in layer.non_trainable_weights)]


def operations(layer, shape, training=True, dtype=None):
    """Names of the operations in the graph of a forward and a backward pass of inputs of this shape."""

    @tf.function(autograph=False)
    def step(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = layer(x, training=training)
        return y, tape.gradient(y, [x, *(w.value for w in layer.trainable_weights)])

    spec = tf.TensorSpec((None, *shape[1:]), dtype or layer.compute_dtype)
    graph = step.get_concrete_function(spec).graph.as_graph_def()
    inner = [node for function in graph.library.function for node in function.node_def]
    return {node.op for node in [*graph.node, *inner]}


NORM_SHAPE = (8, 5, 7, 6)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("dtype", TOLERANCE)
def test_norm_is_keras_norm(dtype, training):
    """Outputs, gradients and moving statistics are Keras' own, in training and inference."""
    ours, theirs = layer_pair("BatchNormalization", NORM_SHAPE, dtype=dtype, momentum=0.9, epsilon=1e-5)
    values = draw(*NORM_SHAPE) * 3 + 1
    for actual, expected in zip(
        gradients_of(ours, values, training), gradients_of(theirs, values, training), strict=True
    ):
        close(actual, expected, TOLERANCE[dtype])


@pytest.mark.parametrize("options", [{"scale": False}, {"center": False}, {"scale": False, "center": False}])
@pytest.mark.parametrize("training", [True, False])
def test_norm_without_scale_or_offset(options, training):
    """The same without scale, without offset and without both."""
    ours, theirs = layer_pair("BatchNormalization", NORM_SHAPE, **options)
    values = draw(*NORM_SHAPE) * 3 + 1
    for actual, expected in zip(
        gradients_of(ours, values, training), gradients_of(theirs, values, training), strict=True
    ):
        close(actual, expected, 1e-5)


def furthest(actual, expected):
    """Largest difference of any tensor, as a fraction of its largest value."""
    pairs = [[np.asarray(tf.cast(v, "float64")) for v in pair] for pair in zip(actual, expected, strict=True)]
    return max(np.abs(a - b).max() / np.abs(b).max() for a, b in pairs)


@pytest.mark.parametrize("shape", [(64, 8, 8, 6), (64, 2, 2, 6), (4, 1, 1, 6)])
@pytest.mark.parametrize("spread", [3, 0.01])
@pytest.mark.parametrize("options", [{}, {"scale": False}])
def test_norm_is_that_of_float64(shape, spread, options):
    """Outputs, gradients and moving statistics are as exact as float32 is, as Keras' own are; another epsilon shows."""
    values = draw(*shape) * spread + spread
    _, exact = layer_pair("BatchNormalization", shape, dtype="float64", **options)
    expected = gradients_of(exact, values)
    for layer in layer_pair("BatchNormalization", shape, **options):
        assert furthest(gradients_of(layer, values), expected) <= 1e-5
    other, _ = layer_pair("BatchNormalization", shape, epsilon=2e-3, **options)
    assert furthest(gradients_of(other, values), expected) > 1e-5


def model_gradients(model, values, dtype):
    """The gradients of a model with two heads, for the labels 0 to 9 in turn."""
    labels = np.arange(len(values)) % 10
    with tf.GradientTape() as tape:
        logits = model(values.astype(dtype), training=True)
        losses = [keras.losses.sparse_categorical_crossentropy(labels, v, from_logits=True) for v in logits.values()]
        loss = tf.reduce_mean(losses)
    return tape.gradient(loss, [w.value for w in model.trainable_weights])


@pytest.mark.slow
def test_gradients_of_many_norms_match_float64(monkeypatch):
    """All gradients of 40 serial and parallel normalizations with smooth functions between them.

    Average pooling replaces max pooling: if two values of a window differ by a rounding error, the other one gets the
    gradient. As a control, weights that differ by 1e-2 fail.
    """
    monkeypatch.setattr(keras.layers, "MaxPooling2D", keras.layers.AveragePooling2D)
    keras.utils.set_random_seed(0)
    options = {"auxiliary": True, "activation": "silu", "dropout": 0.0, "input_shape": (16, 16, 1)}
    ours = zoo.get("inception_tiny", **options)
    exact = zoo.get("inception_tiny", dtype="float64", **options)
    weights = ours.get_weights()
    exact.set_weights(weights)
    values = draw(32, 16, 16, 1)
    found, expected = model_gradients(ours, values, "float32"), model_gradients(exact, values, "float64")
    assert furthest(found, expected) <= 1e-4
    ours.set_weights([1.01 * w for w in weights])
    assert furthest(model_gradients(ours, values, "float32"), expected) > 1e-3


def test_norm_of_a_single_value():
    """One value a channel has no variance, not a division by zero."""
    ours, theirs = layer_pair("BatchNormalization", (1, 1, 1, 6))
    for actual, expected in zip(
        gradients_of(ours, draw(1, 1, 1, 6)), gradients_of(theirs, draw(1, 1, 1, 6)), strict=True
    ):
        close(actual, expected, 1e-5)


def test_frozen_norm_uses_moving_averages():
    """With trainable=False a training call is inference, and moves nothing."""
    layer, _ = layer_pair("BatchNormalization", NORM_SHAPE)
    expected = layer(draw(*NORM_SHAPE), training=False)
    before = [w.numpy() for w in layer.weights]
    layer.trainable = False
    np.testing.assert_array_equal(layer(draw(*NORM_SHAPE), training=True), expected)
    for weight, value in zip(layer.weights, before, strict=True):
        np.testing.assert_array_equal(weight.numpy(), value)


@pytest.mark.parametrize(
    ("shape", "options"), [((8, 6), {}), ((8, 5, 6), {}), ((2, 3, 4, 5, 6), {}), (NORM_SHAPE, {"axis": 1})]
)
def test_norm_falls_back(shape, options):
    """Other ranks and another axis use Keras' operations, bit for bit."""
    ours, theirs = layer_pair("BatchNormalization", shape, **options)
    for actual, expected in zip(gradients_of(ours, draw(*shape)), gradients_of(theirs, draw(*shape)), strict=True):
        np.testing.assert_array_equal(actual, expected)
    assert "FusedBatchNormV3" not in operations(ours, shape)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(
    ("kind", "options"),
    [("BatchNormalization", {"renorm": True}), ("LayerNormalization", {"rms_scaling": True})],
)
def test_options_that_kernels_do_not_support(kind, options, training):
    """Renormalization and RMS scaling use Keras' own operations."""
    ours, theirs = layer_pair(kind, NORM_SHAPE, **options)
    values = draw(*NORM_SHAPE) * 3 + 1
    for actual, expected in zip(
        gradients_of(ours, values, training), gradients_of(theirs, values, training), strict=True
    ):
        close(actual, expected, 1e-6)


def test_norm_is_fused():
    """The graph of our layer has the fused kernel and its gradient, on bfloat16; Keras' own has not."""
    ours, theirs = layer_pair("BatchNormalization", NORM_SHAPE, dtype="mixed_bfloat16")
    assert {"FusedBatchNormV3", "FusedBatchNormGradV3"} <= operations(ours, NORM_SHAPE)
    assert "FusedBatchNormV3" not in operations(theirs, NORM_SHAPE)


def test_norm_reads_bfloat16():
    """The fused kernel is given the bfloat16 activations themselves, with float32 statistics."""
    layer, _ = layer_pair("BatchNormalization", NORM_SHAPE, dtype="mixed_bfloat16")
    step = tf.function(lambda x: layer(x, training=True))
    graph = step.get_concrete_function(tf.TensorSpec(NORM_SHAPE, "bfloat16")).graph.as_graph_def()
    [node] = [
        node
        for nodes in (graph.node, *(function.node_def for function in graph.library.function))
        for node in nodes
        if node.op == "FusedBatchNormV3"
    ]
    assert tf.dtypes.as_dtype(node.attr["T"].type) == tf.bfloat16
    assert tf.dtypes.as_dtype(node.attr["U"].type) == tf.float32


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


@pytest.mark.parametrize("dtype", ["float32", "mixed_bfloat16"])
def test_gelu_is_keras_gelu(dtype):
    """The exact GELU and its gradient; in float32 without the operation that ONNX does not have."""
    ours, theirs = layer_pair("Activation", (4, 5, 6), activation="gelu", dtype=dtype)
    values = 3 * draw(4, 5, 6)
    for training, tolerance in ((True, TOLERANCE[dtype]), (False, TOLERANCE[dtype] / 10)):
        for actual, expected in zip(
            gradients_of(ours, values, training), gradients_of(theirs, values, training), strict=True
        ):
            close(actual, expected, tolerance)
    assert ("Erfc" in operations(ours, (4, 5, 6), training=False)) == (dtype != "float32")


def test_other_activations_are_keras_own():
    """Other activations than the exact GELU are unchanged."""
    for name in ("relu", "silu", "tanh", "relu6"):
        ours, theirs = layer_pair("Activation", (4, 5), activation=name)
        assert operations(ours, (4, 5)) == operations(theirs, (4, 5))


@pytest.mark.parametrize("shape", [pytest.param((4, 5, 6, 8), marks=pytest.mark.slow), (4, 7, 8)])
@pytest.mark.parametrize("dtype", ["float32", "mixed_bfloat16"])
def test_layer_norm_is_keras_layer_norm(shape, dtype):
    """Outputs and gradients are Keras' own, and there is no negation in the graph."""
    ours, theirs = layer_pair("LayerNormalization", shape, epsilon=1e-6, dtype=dtype)
    for actual, expected in zip(
        gradients_of(ours, 3 * draw(*shape) + 1), gradients_of(theirs, 3 * draw(*shape) + 1), strict=True
    ):
        close(actual, expected, TOLERANCE[dtype])


def test_layer_norm_over_other_axes_uses_keras():
    """Any other axis, and none of the weights."""
    for options in ({"axis": (1, 2)}, {"center": False, "scale": False}, {"axis": 1}):
        ours, theirs = layer_pair("LayerNormalization", (3, 4, 5), **options)
        close(ours(draw(3, 4, 5)), theirs(draw(3, 4, 5)), 1e-5)


def lrn_by_hand(x, radius=2, bias=2.0, alpha=1e-4, beta=0.75):
    """Section 3.3 of the paper, channel by channel."""
    y = np.empty_like(x)
    for i in range(x.shape[-1]):
        near = x[..., max(0, i - radius) : i + radius + 1]
        y[..., i] = x[..., i] / (bias + alpha * (near**2).sum(-1)) ** beta
    return y


@pytest.mark.parametrize("options", [{}, {"alpha": 0.5, "bias": 1.0}, {"radius": 1, "beta": 0.5, "alpha": 0.1}])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("dtype", ["float32", "mixed_bfloat16"])
def test_local_response_normalization(options, training, dtype):
    """It is the paper's formula, in training, where it is one operation, as in inference."""
    x = 5 * draw(2, 3, 4, 7)
    layer = core.LocalResponseNormalization(dtype=dtype, **options)
    close(tf.cast(layer(x, training=training), "float32"), lrn_by_hand(x, **options), 2 * TOLERANCE[dtype])


def test_layer_scale():
    """Each channel is multiplied by its own scale, which starts at the given value."""
    layer = core.LayerScale(0.5)
    np.testing.assert_array_equal(layer(draw(2, 3, 4)), 0.5 * draw(2, 3, 4))
    layer.gamma.assign([1.0, 2.0, 3.0, 4.0])
    np.testing.assert_array_equal(layer(draw(2, 3, 4)), draw(2, 3, 4) * np.array([1, 2, 3, 4], "float32"))
    assert core.LayerScale.from_config(layer.get_config()).initial == 0.5


@pytest.mark.parametrize("dtype", ["float32", "mixed_bfloat16"])
def test_drop_connect(dtype):
    """Training sets a fraction of the weights to 0 and scales the others up; inference uses all weights."""
    ours, theirs = layer_pair("Dense", (4, 50), units=40, dtype=dtype)
    close(ours(draw(4, 50)), theirs(draw(4, 50)), 1e-6)
    layer = core.DropConnectDense(40, drop_connect=0.25, use_bias=False, dtype=dtype)
    layer.build((None, 50))
    layer.kernel.assign(np.ones((50, 40)))
    kernel = np.asarray(tf.cast(layer(np.eye(50, dtype="float32"), training=True), "float32"))
    assert set(np.unique(kernel)) == {0.0, np.float32(tf.cast(tf.cast(1 / 0.75, layer.compute_dtype), "float32"))}
    assert 0.2 < (kernel == 0).mean() < 0.3
    assert (np.asarray(layer(np.eye(50, dtype="float32"))) == 1).all()


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


def test_skip_initialization():
    """Kernels start at zero inside, and are drawn again afterwards, also after an error."""
    with core.skip_initialization():
        assert not np.any(zoo.get("mlp_tiny").get_layer("dense1").kernel.numpy())
    with pytest.raises(BadOption), core.skip_initialization():
        zoo.get("mlp_tiny", depth=-1)
    model = zoo.get("mlp_tiny")
    assert np.all(model.get_layer("dense1").kernel.numpy() != 0)
    assert keras.Model.from_config(model.get_config()).get_layer("dense1").kernel.numpy().any()
