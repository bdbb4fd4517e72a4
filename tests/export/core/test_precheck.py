"""Models that are known to fail are refused before conversion, with a fix."""

from __future__ import annotations

import numpy as np
import pytest

import zoo
from export.core.format import parse_format
from export.core.precheck import precheck
from export.source.source import SourceModel
from zoo.common.errors import UnsupportedExport
from zoo.common.lazy import keras


def layer(function):
    """A layer that computes a function."""

    class Mine(keras.layers.Layer):
        def call(self, x):
            return function(x)

    return Mine


def noisy(x):
    return x + keras.random.normal(keras.ops.shape(x))


def spectrum(x):
    return keras.ops.real(keras.ops.fft((x, keras.ops.zeros_like(x)))[0])


def gelu(x):
    return keras.activations.gelu(x, approximate=False)


def recurrent(x):
    return keras.layers.GRU(3, name="recurrent")(keras.layers.Reshape((6, 18))(x))


MODELS = {
    "plain": lambda x: keras.layers.Conv2D(3, 3)(x),
    "random": lambda x: layer(noisy)(name="noisy")(x),
    "spectrum": lambda x: layer(spectrum)(name="spectrum")(x),
    "gelu": lambda x: layer(gelu)(name="exact_gelu")(x),
    "recurrent": recurrent,
    "gaps": lambda x: keras.layers.Conv2DTranspose(3, 2, 3, name="gaps")(x),
    "wide": lambda x: keras.layers.Conv2DTranspose(3, 3, 3, name="wide")(x),
    "sums": lambda x: layer(lambda x: keras.ops.cumsum(x, axis=-1))(name="sums")(x),
    "dropout": lambda x: keras.layers.Dropout(0.5)(keras.layers.GaussianNoise(1.0)(x)),
}
FORMATS = ("saved_model", "tflite", "tflite_int8", "onnx", "onnx_int8")
# The formats that refuse each of the models, and the layer that they name.
REFUSED = {
    "random": (FORMATS, "noisy"),
    "spectrum": (FORMATS[1:], "spectrum"),
    "recurrent": (FORMATS[2:], "recurrent"),
    "gaps": (FORMATS[3:], "gaps"),
    "sums": (FORMATS[2:3], "sums"),
}


def source_of(name, folder, shape=(6, 6, 3)):
    """A source of two layers."""
    given = keras.Input(shape, name="image")
    x = MODELS[name](given)
    x = keras.layers.GlobalAveragePooling2D()(x) if len(x.shape) == 4 else x
    model = keras.Model(given, keras.layers.Dense(2)(x), name="net")
    return SourceModel(
        model, zoo.PreprocessingConfig(), ["a", "b"], lambda count: np.zeros((count, 6, 6, 3), "float32"), folder
    )


@pytest.mark.parametrize("name", MODELS)
def test_what_is_known_to_fail_is_refused(name, tmp_path):
    """Each model is refused by the formats that do not support it and by no other, with the layer, in one line."""
    source = source_of(name, tmp_path)
    formats, named = REFUSED.get(name, ((), ""))
    for fmt in FORMATS:
        if fmt not in formats:
            precheck(source, parse_format(fmt))
            continue
        with pytest.raises(UnsupportedExport, match=rf"net does not export to {fmt}: .*{named}") as raised:
            precheck(source, parse_format(fmt))
        assert "\n" not in str(raised.value)
    assert list(tmp_path.iterdir()) == []


def test_sizes_that_are_free_are_refused(tmp_path):
    """The error has the input and its shape."""
    with pytest.raises(UnsupportedExport, match=r"image of shape \(None, None, None, 3\).*input_shape="):
        precheck(source_of("plain", tmp_path, (None, None, 3)), parse_format("onnx"))


def test_what_tensorflow_has_may_be_asked_for(tmp_path):
    """flex=true allows TensorFlow's own operators."""
    source = source_of("spectrum", tmp_path)
    precheck(source, parse_format("tflite:flex=true"))
    with pytest.raises(UnsupportedExport, match="Compute with real numbers"):
        precheck(source, parse_format("tflite"))


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in REFUSED if name != "recurrent"])
def test_what_is_refused_does_fail(name, tmp_path):
    """The rules are necessary: without them the converter raises, or the file computes another function."""
    source = source_of(name, tmp_path)
    for fmt in REFUSED[name][0]:
        if name == "random" and fmt == "saved_model":
            continue  # it is written, and gives two outputs for one input
        with pytest.raises(Exception, match=r"."):
            source.artifact_path(fmt)


@pytest.mark.slow
def test_loops_do_fail(tmp_path, monkeypatch):
    """The formats without loops raise unless the steps are unrolled, which they are: the control."""
    source = source_of("recurrent", tmp_path)
    for fmt in REFUSED["recurrent"][0]:
        monkeypatch.setattr("export.source.loops.LONGEST", 5)
        with pytest.raises(Exception, match=r"."):
            source.artifact_path(fmt)
        monkeypatch.undo()
