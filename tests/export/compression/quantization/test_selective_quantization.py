"""Selective quantization finds the fewest layers to exclude from int8."""

from __future__ import annotations

import re

import pytest

from export.compression.quantization.selective_quantization import select_layers
from export.core.layer_names import layer_patterns
from zoo.common.errors import ExportError


def costs(excluded, table):
    """The cost with some layers excluded from int8."""
    return sum(cost for name, cost in table.items() if name not in excluded)


def test_the_fewest_layers_are_excluded():
    """The layers that cost most are excluded, and no others."""
    table = {"a": 0.001, "b": 0.2, "c": 0.002, "d": 0.05, "e": 0.0}
    found = select_layers(list(table), lambda excluded: costs(excluded, table), 0.01)
    assert found.excluded == ("b", "d")
    assert found.cost == pytest.approx(0.003)
    assert found.int8_cost == pytest.approx(0.253)
    assert max(found.savings, key=found.savings.get) == "b"
    assert select_layers(list(table), lambda excluded: costs(excluded, table), 0.06).excluded == ("b",)
    assert select_layers(list(table), lambda excluded: costs(excluded, table), 0.3).excluded == ()


def test_layers_that_only_help_together():
    """Two layers around a hard tensor are found although one alone saves nothing."""

    def cost(excluded):
        return 0.0 if {"c", "d"} <= excluded else 0.4

    assert set(select_layers(list("abcdef"), cost, 0.01).excluded) == {"c", "d"}


def test_an_impossible_budget():
    """A budget below the cost of every selection is an error with both costs."""
    with pytest.raises(ExportError, match=r"int8 loses 0\.4, and 0\.2 with all"):
        select_layers(["a"], lambda excluded: 0.2 if excluded else 0.4, 0.01)


@pytest.mark.parametrize(
    ("operator", "others", "matches"),
    [
        ("net_1/net_1/stage2_conv1_1/BiasAdd;net_1/net_1/stage2_conv1_1/convolution", "net_1/input_1", True),
        ("net_1/net_1/stage2_conv1_relu_1/Relu;net_1/net_1/stage2_conv1_1/convolution", "net_1/input_1", True),
        ("net_1/net_1/stage2_conv1_1_1/convolution", "net_1/stage2_conv1_1/add", False),
        ("net_1/net_1/stage2_conv1_pad_1/Pad", "net_1/stage2_conv1_1/add", False),
        ("net_1/net_1/stage2_conv10_1/convolution", "net_1/stage2_conv1_1/add", False),
        ("net/stage2_conv1_1/convolution", "net/stage2_conv1/convolution", False),
        ("net/stage2_conv1/convolution", "net/stage2_conv1_1/convolution", True),
        ("stage2_conv1", "net/input", True),
    ],
)
def test_layer_pattern(operator, others, matches):
    """The pattern matches the operators of a layer and no others, with numbers in the file or without."""
    patterns = layer_patterns([operator, others], ["stage2_conv1"], ["stage2_conv1_1"])
    assert bool(re.search(patterns["stage2_conv1"], operator)) is matches
