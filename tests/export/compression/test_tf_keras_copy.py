"""tf_keras copies, quantization-aware training and clustering, each in a child process."""

from __future__ import annotations

import json

import pytest


@pytest.fixture(scope="module")
def child(python, root):
    """Run a case in a child process and return its result."""

    def run(case, name):
        script = root / "tests/export/compression/compression_child.py"
        out, err = python(script, case, name, warm=True).communicate(timeout=600)
        assert out, err[-2000:]
        return json.loads(out.splitlines()[-1])

    return run


@pytest.fixture(scope="module")
def quick(child):
    """Results of one process for small models."""
    return child("quick", "mlp_tiny")


def test_copies(quick):
    """Copies compute the same; tf.keras stays Keras 3."""
    assert not quick["left"]
    assert quick["three"] == "3"
    assert quick["mlp_tiny"] <= 1e-5
    assert "differs" in quick["control"]


def test_small_qat(quick):
    """Input, output and every tensor is int8, and the accuracy is that of the simulation."""
    assert quick["tflite"]["io"] == ["int8", "int8"]
    assert quick["tflite"]["floats"] == []
    assert abs(quick["tflite"]["accuracy"] - quick["simulated"]) < 0.02
    assert quick["tflite"]["accuracy"] > quick["float"] - 0.03 > 0.7


def test_small_cluster(quick):
    """Each kernel has at most 16 distinct values."""
    assert max(quick["distinct"]) <= 16
    assert quick["clustered"] > quick["float"] - 0.05


def test_small_refusal(quick):
    """The message names the unsupported layer."""
    assert "Received: layer=stem_norm," in quick["refusal"]


@pytest.mark.slow
def test_copies_with_wrapped_layers(child):
    """Layers that tf_keras lacks are wrapped, and the copy computes the same."""
    names = ("resnet_tiny", "convnext_micro_tiny", "densenet_tiny")
    found = child("copies", ",".join(names))
    assert all(found[name] <= 1e-5 for name in names)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "layer"), [("efficientnet_tiny", "stem_silu"), ("vit_micro_tiny", "")])
def test_qat_refuses(child, name, layer):
    """An unsupported activation, and attention."""
    message = child("refusal", name)
    assert f"Received: layer={layer}" in message


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    ["mlp_tiny", "cnn_tiny", "vgg_bn_tiny", "resnet_tiny", "googlenet_tiny", "densenet_tiny", "mobilenet_tiny"],
)
def test_qat(child, name):
    """Input, output and every tensor is int8 (or int32, for biases), and accuracy is preserved."""
    found = child("qat", name)
    assert found["tflite"]["io"] == ["int8", "int8"]
    assert found["tflite"]["floats"] == []
    assert found["tflite"]["int8"] > 4
    assert abs(found["tflite"]["accuracy"] - found["simulated"]) < 0.02
    assert found["tflite"]["accuracy"] > found["float"] - 0.02 > 0.7


@pytest.mark.slow
def test_qat_preserves_zeros(child):
    """QAT preserves every zero of a model with 80% zeros, also in the .tflite; without a constraint, zeros are lost."""
    found = child("pruned_qat", "resnet_tiny")
    assert all(zeros == int(0.8 * size + 0.5) for zeros, size in found["preserved"])
    # int8 also rounds some small weights to zero.
    assert min(found["stored"].values()) >= 0.79
    assert max(found["lost"]) < 0.5


@pytest.mark.slow
def test_cluster(child):
    """Each kernel has at most 16 distinct values, zeros stay zero, and accuracy is preserved."""
    found = child("cluster", "resnet_tiny")
    assert min(found["before"]) > 16
    assert max(found["after"]) <= 16
    assert max(found["sparse"]) <= 16
    assert min(found["zeros"]) >= 0.49
    assert found["clustered"] > found["float"] - 0.03
