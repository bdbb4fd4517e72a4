"""Layers to exclude: those around the activation whose rounding changes the logits most."""

from __future__ import annotations

import numpy as np
import pytest

from export.core.format import parse_format
from export.core.guarantees import check_guarantees
from export.core.layer_names import matching
from export.inspection.inspect import read_artifact
from export.quantization.options import QuantizationOptions
from export.quantization.prepare import prepared
from export.quantization.run import run_layers
from export.quantization.selection import activation_noise, quantized_outputs, select_layers
from export.quantization.write import signal_to_noise
from zoo.common.errors import BadOption, ParityError
from zoo.common.lazy import keras

FORMATS = ("tflite_int8", "onnx_int8", "openvino_int8")


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
    layers = select_layers(prepared(source, request.options).inner, source.preprocessed(8), 2)
    manifest = {"format": name, "options": {}, "metadata": source.metadata, "compression": None}
    check_guarantees(graph, request.format.guarantees, {**manifest, "quantization": {"excluded": list(layers)}})
    with pytest.raises(ParityError, match=f"{name} guarantees int"):
        check_guarantees(graph, request.format.guarantees, {**manifest, "quantization": {"excluded": []}})
    examples = source.calibration
    ratios = [
        signal_to_noise(request.format.load(found)(examples), source.model.predict(examples, verbose=0))
        for found in (path, source.artifact_path(name))
    ]
    assert ratios[0] > ratios[1]


def test_names_of_operators():
    """Whole names between separators, in any of the fused ones; Keras may number them."""
    names = ["m/conv_1/Conv2D", "m/a;m/conv/Relu", "m/conv2/Conv2D", "conv", "m/my_conv/Conv2D"]
    assert matching(names, ["conv"]) == ["m/conv_1/Conv2D", "m/a;m/conv/Relu", "conv"]
    assert matching(names, []) == []


def test_a_negative_number_is_refused():
    """In one line."""
    with pytest.raises(BadOption, match=r"exclude must be 0 or more activations\. Received: exclude=-1"):
        parse_format("onnx_int8:exclude=-1")
