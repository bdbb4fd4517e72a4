"""Outputs that say nothing are refused, whatever the artifact outputs; small ones are compared by their own scale."""

from __future__ import annotations

import numpy as np
import pytest

from export.core.tolerance import FLOAT32_TOLERANCE, INT8_TOLERANCE
from export.verification.comparable import check_outputs, check_samples, check_weights
from zoo.common.errors import ParityError


def logits(count=64, classes=10, seed=0):
    """Logits of a classifier (count, 10)."""
    return np.random.default_rng(seed).normal(size=(count, classes)).astype("float32") * 5


def refused(source, task="classify"):
    """Return the one-line reason for which a source cannot be compared."""
    with pytest.raises(ParityError) as error:
        check_outputs(source, task)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("task", ["classify", "multilabel", "tag", "embed", "regress"])
def test_outputs_that_say_nothing_cannot_be_compared(task):
    """Vanishing, constant, zero and infinite outputs of every task; the control passes."""
    source = logits(seed=1)
    check_outputs(source, task)
    assert "vanishing" in refused(np.zeros_like(source), task)
    assert "vanishing" in refused(source.astype("float64") * 1e-35, task)
    assert "the same ones for all 64 examples" in refused(np.repeat(source[:1], 64, 0), task)
    assert "the same ones" in refused(np.repeat(source[:1], 64, 0) * (1 + 1e-8 * source), task)
    for value in (np.nan, np.inf):
        broken = source.copy()
        broken[3, 4] = value
        assert "on 1 of 64 examples" in refused(broken, task)


def test_every_output_of_several_is_checked():
    """The one that says nothing is named."""
    outputs = [{"name": "kind", "task": "classify"}, {"name": "price", "task": "regress"}]
    metadata = {"task": "several", "outputs": outputs}
    found = {"kind": logits(), "price": logits(classes=1)}
    check_samples({"logits": found}, metadata)
    for name in found:
        with pytest.raises(ParityError, match=f"vanishing.* in '{name}'"):
            check_samples({"logits": {**found, name: found[name] * 0}}, metadata)


def test_logits_of_1e_28_do_not_pass(decide):
    """Equal ones, and those of another function: nothing can be said of either."""
    source = logits() * np.float32(1e-28)
    for outputs in (source, -source, np.zeros_like(source)):
        with pytest.raises(ParityError, match="vanishing"):
            decide(outputs, source, tolerance=FLOAT32_TOLERANCE)


@pytest.mark.parametrize("scale", [1e-9, 1e-3, 1.0, 1e9])
@pytest.mark.parametrize("tolerance", [FLOAT32_TOLERANCE, INT8_TOLERANCE])
def test_errors_are_compared_by_the_scale_of_the_outputs(decide, scale, tolerance):
    """The same function in any unit passes, another one of the same size does not."""
    source = logits() * np.float32(scale)
    fine = source * np.float32(1 + 1e-6)
    assert decide(fine, source, tolerance=tolerance).passed
    assert decide(fine, source, tolerance=tolerance).relative == pytest.approx(1e-6, rel=0.2)
    for broken in (-source, logits(seed=1) * np.float32(scale), np.zeros_like(source)):
        assert not decide(broken, source, tolerance=tolerance).passed


def test_each_target_is_compared_by_its_own_range(decide):
    """Millions next to thousandths: an error in either is seen; a target in any unit may be small."""
    source = logits(classes=2) * np.array([1e6, 1e-3], "float32")
    assert decide(source * np.float32(1 + 1e-6), source, tolerance=FLOAT32_TOLERANCE, task="regress").passed
    for target in (0, 1):
        broken = source.copy()
        broken[:, target] = broken[::-1, target]
        found = decide(broken, source, tolerance=FLOAT32_TOLERANCE, task="regress")
        assert "relative" in found.failed
        assert found.relative > 0.1
        assert "snr" in decide(broken, source, tolerance=INT8_TOLERANCE, task="regress").failed
    small = logits(classes=2) * np.float32(1e-20)
    assert decide(small, small, tolerance=FLOAT32_TOLERANCE, task="regress").passed
    assert not decide(-small, small, tolerance=FLOAT32_TOLERANCE, task="regress").passed


@pytest.mark.parametrize("value", [7.0, 0.0])
def test_a_constant_target_is_compared_by_its_value(decide, value):
    """Next to one that varies; all of them constant cannot be compared."""
    source = logits(classes=2)
    source[:, 1] = value
    close = source + np.array([0.0, 1e-6], "float32")
    assert decide(close, source, tolerance=FLOAT32_TOLERANCE, task="regress").passed
    far = source + np.array([0.0, 1.0], "float32")
    assert not decide(far, source, tolerance=FLOAT32_TOLERANCE, task="regress").passed
    source[:, 0] = 3.0
    with pytest.raises(ParityError, match="the same ones"):
        decide(source, source, task="regress")


@pytest.mark.tensorflow
def test_weights_that_are_no_numbers_or_all_zero_are_refused():
    """NaN in any weight, and kernels of zeros; biases of zeros, integers and one kernel of zeros are no fault."""
    import keras

    image = keras.Input((4,))
    model = keras.Model(image, keras.layers.Dense(2, name="last")(keras.layers.Dense(3, name="first")(image)))
    first, last = (model.get_layer(name).kernel for name in ("first", "last"))
    check_weights(model)
    last.assign(np.zeros((3, 2)))
    check_weights(model)
    first.assign(np.zeros((4, 3)))
    with pytest.raises(ParityError, match="only zeros in all kernels"):
        check_weights(model)
    first.assign(np.ones((4, 3)))
    model.get_layer("last").bias.assign([np.inf, 0.0])
    with pytest.raises(ParityError, match="infinity in last/bias"):
        check_weights(model)


@pytest.mark.slow
@pytest.mark.tensorflow
def test_exports_of_weights_without_content_are_refused(tmp_path):
    """Before anything is converted: nothing is written."""
    import export
    import zoo

    model = zoo.get("resnet_tiny", input_shape=(16, 16, 3), classes=3)
    for weight in model.weights:
        weight.assign(np.zeros(weight.shape))
    zoo.save_weights(model, tmp_path / "zeros.safetensors")
    options = {"input_shape": (16, 16, 3), "classes": 3}
    with pytest.raises(ParityError, match="only zeros in all kernels"):
        export.convert(
            "resnet_tiny", ["onnx"], weights=str(tmp_path / "zeros.safetensors"), out=tmp_path / "o", options=options
        )
    assert not list(tmp_path.glob("o/*/*"))
