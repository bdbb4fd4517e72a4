"""Models prepared for int8: every runtime reads the learned kernels without error, and defaults change nothing."""

from __future__ import annotations

import copy

import numpy as np
import pytest

from export.backends.litert.options import IntegerOptions
from export.compression.batch_norm_folding import fold
from export.core.format import parse_format
from export.core.samples import predict_in_batches
from export.inspection.stored_weights import stored_weights
from export.quantization.grid import LARGEST_CODE, scales_of
from export.quantization.layer_inputs import is_supported, kernel_matrices
from export.quantization.prepare import learn, prepared
from export.quantization.write import signal_to_noise
from export.source.source import record_path
from zoo.common.errors import BadOption
from zoo.common.lazy import keras
from zoo.reading.json_files import read_json

FORMATS = ("tflite_int8", "onnx_int8", "openvino_int8")


def codes_of(model):
    """The int8 codes of each kernel, by layer."""
    layers = [layer for layer in model.layers if is_supported(layer)]
    matrices = {layer.name: kernel_matrices(layer) for layer in layers}
    return {name: np.rint(matrix / scales_of(matrix)) for name, matrix in matrices.items()}


@pytest.mark.parametrize("name", FORMATS)
def test_runtimes_store_the_learned_codes(name, source):
    """Each runtime's own quantizer finds the scales and the codes; rounding to nearest gives others."""
    request = parse_format(f"{name}:rounding=learned")
    path = source.artifact_path(name, request.options)
    stored = [np.sort(weights.ravel()) for weights in stored_weights(path)]
    inner = prepared(source, request.options).inner
    for layer, codes in codes_of(inner).items():
        assert any(np.array_equal(np.sort(codes.ravel()), found) for found in stored), layer
    plain = codes_of(fold(source.inner))
    assert sum((codes != plain[layer]).sum() for layer, codes in codes_of(inner).items()) > 20
    assert abs(codes_of(inner)["stem"]).max() == LARGEST_CODE


@pytest.mark.parametrize("name", FORMATS)
def test_learned_rounding_raises_the_signal_to_noise_ratio(name, source):
    """Of the int8 artifact in its own runtime."""
    examples = source.calibration[32:]
    expected, found = predict_in_batches(source.model, examples), {}
    for text in (name, f"{name}:rounding=learned,equalize=true"):
        request = parse_format(text)
        runtime = request.format.load(source.artifact_path(name, request.options))
        found[text] = signal_to_noise(runtime(examples), expected)
    plain, learned = found.values()
    assert learned > plain + 1


@pytest.mark.parametrize("name", FORMATS)
def test_the_best_calibration_is_recorded(name, source, tmp_path):
    """The method with the largest ratio on held-back examples."""
    # Without VNNI, the kernels of OpenVINO saturate.
    options = "calibration=best,reduce_range=true" if name == "openvino_int8" else "calibration=best"
    request = parse_format(f"{name}:{options}")
    record = request.format.write(source, make(tmp_path, request), request.options)
    ratios = record["calibration_snr"]
    assert set(ratios) == {"minmax", "mse", "percentile", "entropy"}
    assert ratios[record["calibration"]] == max(ratios.values()) > 10


def make(folder, request):
    """The path for an artifact."""
    return folder / request.format.file if request.format.file else folder


@pytest.mark.parametrize("name", FORMATS)
def test_percentiles_give_another_file(name, source, tmp_path):
    """The control: the method reaches the file, and min-max is what the format does without the option."""
    files = {}
    for method in ("minmax", "percentile"):
        request = parse_format(f"{name}:calibration={method}")
        folder = tmp_path / method
        folder.mkdir()
        request.format.write(source, make(folder, request), request.options)
        files[method] = request.format.load(make(folder, request))(source.calibration)
    default = parse_format(name).format.load(source.artifact_path(name))(source.calibration)
    np.testing.assert_array_equal(files["minmax"], default)
    assert (files["percentile"] != default).any()


def test_defaults_prepare_nothing(source):
    """The same source, with its own float artifacts."""
    assert prepared(source, IntegerOptions()) is source
    assert prepared(source, IntegerOptions(rounding="learned")) is prepared(source, IntegerOptions(rounding="learned"))


def test_a_compression_that_quantizes_takes_no_options(source):
    """Its writer would ignore them; with the defaults it writes."""

    def write(_source, _path, options):
        return {"written": options.rounding}

    own = copy.copy(source)
    own._converted, own.writers = set(), {"tflite_int8": write}
    with pytest.raises(BadOption, match=r"The compression quantizes tflite_int8 itself.*\['equalize', 'rounding'\]"):
        own.artifact_path("tflite_int8", IntegerOptions(rounding="learned", equalize=True))
    path = own.artifact_path("tflite_int8", IntegerOptions(batch=7))
    assert read_json(record_path(path.parent)) == {"written": "nearest"}


def test_biases_keep_the_means():
    """Biases keep the means, and a layer that is called twice keeps its weights."""
    keras.utils.set_random_seed(0)
    image = keras.Input((6, 6, 2))
    shared = keras.layers.Conv2D(2, 1, name="shared")
    x = keras.layers.Conv2D(2, 1, use_bias=False, name="exact")(shared(shared(image)))
    model = keras.Model(image, x)
    model.get_layer("exact").set_weights([np.array([[[[1.0, -0.503], [0.0, 1.0]]]], "float32")])
    examples = np.random.default_rng(0).normal(size=(8, 6, 6, 2)).astype("float32")
    changed = learn(model, examples)
    np.testing.assert_array_equal(changed.get_layer("shared").kernel, model.get_layer("shared").kernel)
    means = [np.mean(m(examples), axis=(0, 1, 2)) for m in (changed, model)]
    np.testing.assert_allclose(*means, atol=1e-5)
