"""Products with negative constants before int8, which OpenVINO alone computes wrongly."""

from __future__ import annotations

import keras
import numpy as np
import pytest

import export
from export.backends.openvino.negative_scales import split_negative_scales
from export.quantization.write import signal_to_noise

openvino = pytest.importorskip("openvino")
ops = pytest.importorskip("openvino.opset13")

VALUES, UNITS, LIMIT = 64, 32, 4.0
RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(16, VALUES)).astype("float32")
FACTORS = RANDOM.normal(size=(1, VALUES)).astype("float32")
KERNEL = RANDOM.integers(-127, 128, (UNITS, VALUES)).astype("int8")
# The factor of each kind of product.
PRODUCTS = {
    "x * factor": (lambda x, w: ops.multiply(x, w), FACTORS),
    "factor * x": (lambda x, w: ops.multiply(w, x), FACTORS),
    "x / divisor": (lambda x, _: ops.divide(x, ops.constant(1 / FACTORS)), FACTORS),
    "positive": (lambda x, w: ops.multiply(x, w), np.abs(FACTORS)),
    "number": (lambda x, w: ops.multiply(x, w), np.float32(-0.7)),
    "normalized": (
        lambda x, w: ops.multiply(ops.mvn(x, ops.constant([1]), True, 1e-6, "inside_sqrt"), w),
        FACTORS,
    ),
}


def quantized(product, factors):
    """A product of a scaled tensor in int8, and what it has to compute."""
    x = ops.parameter([-1, VALUES], np.float32, name="x")
    limits = [np.float32(-LIMIT), np.float32(LIMIT)] * 2
    codes = ops.fake_quantize(product(x, ops.constant(factors)), *limits, 256)
    kernel = ops.multiply(ops.convert(ops.constant(KERNEL), np.float32), ops.constant(np.full((UNITS, 1), 0.01, "f4")))
    return openvino.Model([ops.matmul(codes, kernel, False, True)], [x])


def expected(name, factors):
    """The same in NumPy."""
    x = (X - X.mean(1, keepdims=True)) / X.std(1, keepdims=True) if name == "normalized" else X
    step = 2 * LIMIT / 255
    codes = np.round((np.clip(x * factors, -LIMIT, LIMIT) + LIMIT) / step) * step - LIMIT
    return codes @ (KERNEL.astype("float32").T * 0.01)


def run(model):
    """The outputs in OpenVINO."""
    compiled = openvino.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return next(iter(compiled([X]).values()))


@pytest.mark.parametrize("name", PRODUCTS)
def test_products_are_computed_right(name):
    """Whatever the sign of a factor, and on which side it is."""
    product, factors = PRODUCTS[name]
    model = quantized(product, factors)
    split_negative_scales(model)
    assert signal_to_noise(run(model), expected(name, factors)) > 60


def test_openvino_needs_it():
    """Control: when this fails, OpenVINO computes such products right, and the module can go."""
    product, factors = PRODUCTS["x * factor"]
    assert signal_to_noise(run(quantized(product, factors)), expected("x * factor", factors)) < 10


def test_what_is_right_stays():
    """Positive factors, and numbers, are left as they are."""
    for name in ("positive", "number"):
        model = quantized(*PRODUCTS[name])
        count = len(model.get_ops())
        split_negative_scales(model)
        assert len(model.get_ops()) == count


def test_a_model_with_negative_scales(tmp_path):
    """A scale of channels between an activation and a dense layer, as a user's own layer computes it."""
    keras.utils.set_random_seed(0)
    x = given = keras.Input((VALUES,), name="given")
    x = keras.layers.Dense(VALUES, activation="gelu", name="first")(x)
    x = x * keras.ops.convert_to_tensor(FACTORS)
    model = keras.Model(given, keras.layers.Dense(5, name="second")(x), name="scaled")
    data = RANDOM.normal(size=(200, VALUES)).astype("float32")
    (artifact,) = export.convert(model, "openvino_int8", calibration=data, out=tmp_path)
    assert artifact.parity["snr"] > 25
