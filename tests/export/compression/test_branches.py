"""Whole branches of sums go, those that add least, and what is left computes what the network does without them."""

from __future__ import annotations

import numpy as np
import pytest

import zoo
from export.compression.branches import branches, shorten, without
from export.compression.channels import Shrinking, _cost, multiply_adds, shrink
from export.core.keras_graph import check_same, probe
from zoo.common.errors import ExportError
from zoo.common.lazy import keras


@pytest.fixture(scope="module")
def network():
    """A ResNet of nine blocks with random weights."""
    keras.utils.set_random_seed(1)
    return zoo.get("resnet20", input_shape=(8, 8, 1))


def silent(network, branch):
    """The network, in place, with a branch that adds zeros."""
    norm = network.get_layer(branch.join.replace("_add", "_conv2_norm"))
    norm.gamma.assign(np.zeros(norm.gamma.shape))
    norm.beta.assign(np.zeros(norm.beta.shape))
    return network


def test_branches_are_found(network):
    """Each block has one, its five or six layers; the shortcut, which costs nothing, stays."""
    found = branches(network, _cost, probe(network))
    assert len(found) == 9
    assert {len(branch.layers) for branch in found} == {5, 6}
    assert all(branch.join.rpartition("_")[0] in name for branch in found for name in branch.layers)
    worth = [branch.worth for branch in found]
    assert worth == sorted(worth)
    assert branches(zoo.get("vgg_tiny"), _cost, np.zeros((1, 32, 32, 3), "float32")) == []


def test_what_is_left_is_the_same_function(network):
    """Without a branch the network computes what it does if the branch adds zeros, and not what it did before."""
    for branch in branches(network, _cost, probe(network))[:2]:
        after = without(network, [branch])
        assert multiply_adds(after) < multiply_adds(network)
        assert not branch.layers & {layer.name for layer in after.layers}
        expected = silent(without(network, []), branch)
        assert check_same(expected, after, probe(network), 1e-5) <= 1e-5
        with pytest.raises(ExportError, match="differs"):
            check_same(network, after, probe(network), 1e-5)


def test_a_branch_that_adds_nothing_goes_first(network):
    """Worth is measured: a silenced branch is the first to go."""
    chosen = branches(network, _cost, probe(network))[4]
    quiet = silent(without(network, []), chosen)
    assert branches(quiet, _cost, probe(network))[0].join == chosen.join
    shorter = shorten(quiet, _cost, probe(network), 0.85)
    assert not chosen.layers & {layer.name for layer in shorter.layers}


@pytest.mark.parametrize("name", ["resnet20", "vit_micro_tiny", pytest.param("mobilenet_tiny", marks=pytest.mark.slow)])
def test_half_the_multiply_adds(name):
    """Branches go first and channels for the rest, so that the share is reached and fewer layers are left."""
    before = zoo.get(name)
    after = shrink(before, Shrinking(0.5, branches=True))
    assert 0.4 < multiply_adds(after) / multiply_adds(before) <= 0.5
    assert len(after.layers) < len(before.layers)
    assert [t.shape for t in after.outputs] == [t.shape for t in before.outputs]
    assert len(shrink(before, Shrinking(0.5)).layers) == len(before.layers)
