"""Layers to exclude: those around the activation whose rounding changes the logits most."""

from __future__ import annotations

import json

import numpy as np
import pytest

import zoo
from export.core.format import parse_format
from export.core.guarantees import check_guarantees
from export.core.layer_names import matching
from export.inspection.inspect import read_artifact
from export.quantization.options import QuantizationOptions
from export.quantization.prepare import prepared
from export.quantization.run import run_layers
from export.quantization.selection import activation_noise, quantized_outputs, select_layers
from export.quantization.write import signal_to_noise
from export.source.source import SourceModel, record_path
from zoo.common.errors import BadOption, ParityError
from zoo.common.lazy import keras

FORMATS = ("tflite_int8", "onnx_int8", "openvino_int8")
NUMBERED = ("conv2d", "conv2d_1", "conv2d_2", "conv2d_3")


@pytest.fixture(scope="module")
def folded(source):
    """The model without batch normalization."""
    return prepared(source, QuantizationOptions(exclude=1)).inner


def measured(model, examples, name):
    """The error of the logits if one activation is rounded to 8 bits."""

    def run(layer, *inputs, **options):
        x = layer(*inputs, **options)
        if layer.name != name:
            return x
        low, high = min(0.0, float(np.min(x))), max(0.0, float(np.max(x)))
        step = (high - low) / 255
        return keras.ops.round(x / step) * step

    error = np.asarray(run_layers(model, examples, run)) - np.asarray(model(examples))
    error -= error.mean(axis=-1, keepdims=True)
    return float(np.sum(error**2))


def test_the_estimate_is_the_measured_error(source, folded):
    """Within a factor of three for each activation, where the errors themselves differ by more than ten."""
    examples = source.preprocessed(32)
    noise = activation_noise(folded, examples)
    assert set(noise) <= set(quantized_outputs(folded))
    found = {name: measured(folded, examples, name) for name in noise}
    assert max(found.values()) > 10 * min(found.values())
    for name, power in noise.items():
        assert found[name] / 3 < power < 3 * found[name], name


def test_layers_around_an_activation(source, folded):
    """The layer that makes it, the one that is fused with it, and all that read it."""
    examples = source.preprocessed(8)
    noise = activation_noise(folded, examples)
    chosen = select_layers(folded, examples, 1)
    assert chosen[0] == max(noise, key=noise.__getitem__)
    assert 2 <= len(chosen) <= 4
    assert set(chosen) < set(select_layers(folded, examples, 3))


def test_outputs_and_calls_are_those_of_the_model():
    """Running layer by layer computes the same, with shared layers, sums of a tensor with itself, and two outputs."""
    keras.utils.set_random_seed(0)
    image = keras.Input((6, 6, 2))
    shared = keras.layers.Conv2D(2, 1)
    x = keras.layers.Dropout(0.5)(shared(shared(image)))
    model = keras.Model(image, [keras.layers.Add()([x, x]), x])
    examples = np.random.default_rng(0).normal(size=(4, 6, 6, 2)).astype("float32")
    found = run_layers(model, examples, lambda layer, *inputs, **options: layer(*inputs, **options))
    for output, expected in zip(found, model(examples), strict=True):
        np.testing.assert_array_equal(output, expected)


@pytest.mark.parametrize("name", FORMATS)
def test_excluded_layers_are_float_and_allowed(name, source):
    """The signal-to-noise ratio rises; the guarantee of the format allows the recorded layers, and no others."""
    request = parse_format(f"{name}:exclude=2")
    path = source.artifact_path(name, request.options)
    graph = read_artifact(path).graph
    inner = prepared(source, request.options).inner
    layers, names = select_layers(inner, source.preprocessed(8), 2), [layer.name for layer in inner.layers]
    manifest = {"format": name, "options": {}, "metadata": source.metadata, "compression": None}
    record = {"excluded": list(layers), "layers": names}
    check_guarantees(graph, request.format.guarantees, {**manifest, "quantization": record})
    with pytest.raises(ParityError, match=f"{name} guarantees int"):
        check_guarantees(graph, request.format.guarantees, {**manifest, "quantization": {"excluded": []}})
    examples = source.calibration
    ratios = [
        signal_to_noise(request.format.load(found)(examples), source.model.predict(examples, verbose=0))
        for found in (path, source.artifact_path(name))
    ]
    assert ratios[0] > ratios[1]


def test_names_of_operators():
    """Whole names between separators, in any of the fused ones, of scopes that are numbered or not."""
    plain = ["m/conv_1/Conv2D", "m/a;m/conv/Relu", "m/conv2/Conv2D", "conv", "m/my_conv/Conv2D"]
    numbers = ["m_1/conv_1_1/Conv2D", "m_1/a_1;m_1/conv_1/Relu", "m_1/conv2_1/Conv2D", "m_1/my_conv_1/Conv2D"]
    assert matching(plain, ["conv"]) == matching(plain, ["conv"], ["conv_1"]) == ["m/a;m/conv/Relu", "conv"]
    assert matching(numbers, ["conv"]) == matching(numbers, ["conv"], ["conv_1"]) == ["m_1/a_1;m_1/conv_1/Relu"]
    assert matching(plain, ["conv_1"], ["conv"]) == ["m/conv_1/Conv2D"]
    assert matching(numbers, ["conv_1"], ["conv"]) == ["m_1/conv_1_1/Conv2D"]
    assert matching(plain, []) == []


@pytest.fixture(scope="module")
def numbered(tmp_path_factory):
    """A source model of layers with Keras' own names, conv2d, conv2d_1, …; the activation of the first is noisiest."""
    keras.utils.set_random_seed(0)
    image = x = keras.Input((8, 8, 3), name="image")
    for name in NUMBERED:
        x = keras.layers.Conv2D(8, 3, padding="same", activation="relu", name=name)(x)
    logits = keras.layers.Dense(4, name="logits")(keras.layers.GlobalAveragePooling2D()(x))
    model = keras.Model(image, logits, name="numbered")
    for name, axis, factor in (("conv2d", -1, 300.0), ("conv2d_1", -2, 1 / 300)):
        kernel, bias = model.get_layer(name).get_weights()
        np.moveaxis(kernel, axis, 0)[0] *= factor
        model.get_layer(name).set_weights([kernel, bias])
    images = np.rint(np.random.default_rng(0).uniform(0, 255, (24, 8, 8, 3))).astype("float32")
    folder = tmp_path_factory.mktemp("numbered")
    return SourceModel(model, zoo.PreprocessingConfig(), list("abcd"), lambda count: images[:count], folder)


@pytest.mark.parametrize("name", FORMATS)
def test_layers_with_numbered_names(name, numbered):
    """Where conv2d is excluded, conv2d_2 is not."""
    path = numbered.artifact_path(name, parse_format(f"{name}:exclude=1").options)
    record = json.loads(record_path(path if path.is_dir() else path.parent).read_text())
    assert set(record["excluded"]) == {"conv2d", "conv2d_1"}
    assert {*NUMBERED, "logits"} <= set(record["layers"])
    operators = read_artifact(path).graph.operators
    names, integer = [o.name for o in operators], {o.name: o.integer for o in operators if o.kernels}
    found = {layer: {integer.get(n) for n in matching(names, [layer], NUMBERED)} - {None} for layer in NUMBERED}
    assert found == {"conv2d": {False}, "conv2d_1": {False}, "conv2d_2": {True}, "conv2d_3": {True}}


def test_a_negative_number_is_refused():
    """In one line."""
    with pytest.raises(BadOption, match=r"exclude must be 0 or more activations\. Received: exclude=-1"):
        parse_format("onnx_int8:exclude=-1")
