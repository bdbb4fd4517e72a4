"""Removing whole branches: the least important first; the rest computes what the model does without them."""

from __future__ import annotations

import numpy as np
import pytest

import zoo
from export.compression.structured.branches import find_branches, remove_branches, without_branches
from export.compression.structured.channels import StructuredPruning, _cost, multiply_adds, prune_structure
from export.core.keras_graph import check_same, probe
from zoo.common.errors import ExportError
from zoo.common.lazy import keras

SLOW = [pytest.param(name, marks=pytest.mark.slow) for name in ("resnet20", "mobilenet_tiny")]


@pytest.fixture(scope="module")
def model():
    """A ResNet of nine blocks with random weights."""
    keras.utils.set_random_seed(1)
    return zoo.get("resnet20", input_shape=(8, 8, 1))


def silent(model, branch):
    """The model, in place, with a branch that adds zeros."""
    norm = model.get_layer(branch.join.replace("_add", "_conv2_norm"))
    norm.gamma.assign(np.zeros(norm.gamma.shape))
    norm.beta.assign(np.zeros(norm.beta.shape))
    return model


def test_branches_are_found(model):
    """Each block has one branch of five or six layers; the shortcut without cost is not removable."""
    found = find_branches(model, _cost, probe(model))
    assert len(found) == 9
    assert {len(branch.layers) for branch in found} == {5, 6}
    assert all(branch.join.rpartition("_")[0] in name for branch in found for name in branch.layers)
    importance = [branch.importance for branch in found]
    assert importance == sorted(importance)
    assert find_branches(zoo.get("vgg_tiny"), _cost, np.zeros((1, 32, 32, 3), "float32")) == []


def test_outputs_without_a_branch(model):
    """Without a branch the model computes what it does if the branch adds zeros, and not what it did before."""
    for branch in find_branches(model, _cost, probe(model))[:2]:
        after = without_branches(model, [branch])
        assert multiply_adds(after) < multiply_adds(model)
        assert not branch.layers & {layer.name for layer in after.layers}
        expected = silent(without_branches(model, []), branch)
        assert check_same(expected, after, probe(model), 1e-5) <= 1e-5
        with pytest.raises(ExportError, match="differs"):
            check_same(model, after, probe(model), 1e-5)


def test_an_unimportant_branch_is_removed_first(model):
    """Importance is measured: a branch that adds zeros is removed first."""
    chosen = find_branches(model, _cost, probe(model))[4]
    quiet = silent(without_branches(model, []), chosen)
    assert find_branches(quiet, _cost, probe(model))[0].join == chosen.join
    shorter = remove_branches(quiet, _cost, probe(model), 0.85)
    assert not chosen.layers & {layer.name for layer in shorter.layers}


@pytest.mark.parametrize("name", ["vit_micro_tiny", *SLOW])
def test_half_the_multiply_adds(name):
    """Branches are removed first and then channels, so that the target is reached with fewer layers."""
    before = zoo.get(name)
    after = prune_structure(before, StructuredPruning(0.5, branches=True))
    assert 0.4 < multiply_adds(after) / multiply_adds(before) <= 0.5
    assert len(after.layers) < len(before.layers)
    assert [t.shape for t in after.outputs] == [t.shape for t in before.outputs]
    assert len(prune_structure(before, StructuredPruning(0.5)).layers) == len(before.layers)
