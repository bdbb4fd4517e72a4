"""Twins compute the same; what is trained for int8 is int8 throughout; clustered kernels have the values asked for."""

from __future__ import annotations

import json

import pytest

from export.compression.selective_quantization import rescue, scope
from zoo.common.errors import ExportError


@pytest.fixture(scope="module")
def child(python, root):
    """Run a case in a process of its own and return what it prints."""

    def run(case, name):
        out, err = python(root / "tests/export/compression/compression_child.py", case, name).communicate(timeout=600)
        assert out, err[-2000:]
        return json.loads(out.splitlines()[-1])

    return run


@pytest.fixture(scope="module")
def quick(child):
    """What one process finds out about small networks."""
    return child("quick", "resnet_tiny,mlp_tiny")


def test_twins(quick):
    """Twins are equal; Keras 3 stays what TensorFlow calls Keras."""
    assert not quick["left"]
    assert quick["three"] == "3"
    assert all(quick[name] <= 1e-5 for name in ("resnet_tiny", "mlp_tiny"))
    assert "differs" in quick["control"]


def test_small_qat(quick):
    """Input, output and every tensor is int8, and answers as the imitation does."""
    assert quick["tflite"]["io"] == ["int8", "int8"]
    assert quick["tflite"]["floats"] == []
    assert abs(quick["tflite"]["accuracy"] - quick["imitated"]) < 0.02
    assert quick["tflite"]["accuracy"] > quick["float"] - 0.03 > 0.7


def test_small_cluster(quick):
    """At most 16 values are left in each kernel."""
    assert max(quick["distinct"]) <= 16
    assert quick["clustered"] > quick["float"] - 0.05


def test_small_refusal(quick):
    """A layer that cannot be imitated in int8 is named."""
    assert "Received: layer=stem_norm," in quick["refusal"]


@pytest.mark.slow
def test_twins_with_layers_that_tf_keras_lacks(child):
    """They are wrapped, and the twin is equal."""
    found = child("twins", "convnext_micro_tiny,densenet_tiny")
    assert all(found[name] <= 1e-5 for name in ("convnext_micro_tiny", "densenet_tiny"))


@pytest.mark.slow
@pytest.mark.parametrize(("name", "layer"), [("efficientnet_tiny", "stem_silu"), ("vit_micro_tiny", "")])
def test_qat_refuses(child, name, layer):
    """Another activation, and attention."""
    message = child("refusal", name)
    assert f"Received: layer={layer}" in message


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    ["mlp_tiny", "cnn_tiny", "vgg_bn_tiny", "resnet_tiny", "googlenet_tiny", "densenet_tiny", "mobilenet_tiny"],
)
def test_qat(child, name):
    """Input, output and every tensor is int8 (or int32, for biases), and accuracy stays."""
    found = child("qat", name)
    assert found["tflite"]["io"] == ["int8", "int8"]
    assert found["tflite"]["floats"] == []
    assert found["tflite"]["int8"] > 4
    assert abs(found["tflite"]["accuracy"] - found["imitated"]) < 0.02
    assert found["tflite"]["accuracy"] > found["float"] - 0.02 > 0.7


@pytest.mark.slow
def test_qat_keeps_zeros(child):
    """A network that is 80% zeros stays so to the weight, in the .tflite too; unheld, zeros are lost."""
    found = child("pruned_qat", "resnet_tiny")
    assert all(zeros == int(0.8 * size + 0.5) for zeros, size in found["kept"])
    # int8 rounds some small weights to zero besides.
    assert min(found["stored"].values()) >= 0.79
    assert max(found["lost"]) < 0.5


@pytest.mark.slow
def test_cluster(child):
    """At most 16 values are left in each kernel, zeros stay zeros, and accuracy stays."""
    found = child("cluster", "resnet_tiny")
    assert min(found["before"]) > 16
    assert max(found["after"]) <= 16
    assert max(found["sparse"]) <= 16
    assert min(found["zeros"]) >= 0.49
    assert found["clustered"] > found["float"] - 0.03


def costs(floating, table):
    """What is lost when all but some layers are int8."""
    return sum(cost for name, cost in table.items() if name not in floating)


def test_rescue_finds_the_fewest():
    """The layers that cost most are left in floating point, and no others."""
    table = {"a": 0.001, "b": 0.2, "c": 0.002, "d": 0.05, "e": 0.0}
    found = rescue(list(table), lambda floating: costs(floating, table), 0.01)
    assert found.floating == ("b", "d")
    assert found.cost == pytest.approx(0.003)
    assert found.unaided == pytest.approx(0.253)
    assert max(found.saves, key=found.saves.get) == "b"
    assert rescue(list(table), lambda floating: costs(floating, table), 0.06).floating == ("b",)
    assert rescue(list(table), lambda floating: costs(floating, table), 0.3).floating == ()


def test_rescue_finds_layers_that_only_help_together():
    """Two layers with a hard tensor between them are found though one alone saves nothing."""

    def cost(floating):
        return 0.0 if {"c", "d"} <= floating else 0.4

    assert set(rescue(list("abcdef"), cost, 0.01).floating) == {"c", "d"}


def test_rescue_gives_up():
    """A budget that no choice holds is an error with the figures."""
    with pytest.raises(ExportError, match=r"int8 loses 0\.4 and 0\.2 with all"):
        rescue(["a"], lambda floating: 0.2 if floating else 0.4, 0.01)


@pytest.mark.parametrize(
    ("operator", "matches"),
    [
        ("net_1/net_1/stage2_conv1_1/BiasAdd;net_1/net_1/stage2_conv1_1/convolution", True),
        ("net_1/net_1/stage2_conv1_relu_1/Relu;net_1/net_1/stage2_conv1_1/convolution", True),
        ("net_1/net_1/stage2_conv1_pad_1/Pad", False),
        ("net_1/net_1/stage2_conv10_1/convolution", False),
        ("stage2_conv1", True),
    ],
)
def test_scope(operator, matches):
    """The expression fits a layer's operators and no neighbour's."""
    import re

    assert bool(re.search(scope("stage2_conv1"), operator)) is matches
