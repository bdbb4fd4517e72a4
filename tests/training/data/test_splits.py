"""Splitting data: the default split of folders, exact counts, stratification, and refused options."""

from __future__ import annotations

import numpy as np
import pytest

import training
import zoo
from training import DataConfig, ModelConfig, Recipe
from training.data.pipeline.opening import open_pipeline
from training.data.readers.loading import load_dataset
from training.data.splits import split_indices
from zoo.common.errors import BadOption, DataError


def one_line(error):
    """Return the message, and check that it has one line."""
    assert "\n" not in str(error.value)
    return str(error.value)


def split_like_folders(counts):
    """Split as folders do by default: each class by its own shuffle from seed 0, 80 : 10 : 10."""
    splits, first = {"train": [], "validation": [], "test": []}, 0
    for count in counts:
        order = np.random.default_rng(0).permutation(count)
        ends = [0, max(1, round(0.8 * count)), max(1, round(0.9 * count)), count]
        for name, low, high in zip(splits, ends, ends[1:], strict=False):
            splits[name] += [first + i for i in order[low:high]]
        first += count
    return {name: sorted(part) for name, part in splits.items() if part}


@pytest.mark.parametrize("counts", [(10, 10), (1, 5, 25), (178, 3), (2, 2), (37, 41, 59), (1437,)])
def test_default_split_of_folders_is_unchanged(counts):
    """Folders have the same images in the same splits as in earlier versions."""
    classes = np.repeat(np.arange(len(counts)), counts)
    assert split_indices(sum(counts), DataConfig(), classes) == split_like_folders(counts)


@pytest.mark.parametrize("stratify", [True, False])
@pytest.mark.parametrize("fractions", [(), (0.5, 0.25, 0.25), (0.7, 0.2, 0.1), (0.9, 0.1), (0.6, 0.4, 0.0)])
@pytest.mark.parametrize("seed", [0, 7])
def test_every_example_is_in_one_split_and_counts_are_exact(fractions, stratify, seed):
    """No example is lost or duplicated; each split has its exact fraction of each class, or of all 300 examples."""
    classes = np.tile([0, 1, 2], 100)
    found = split_indices(300, DataConfig(split_fractions=fractions, stratify=stratify, split_seed=seed), classes)
    assert sorted(i for part in found.values() for i in part) == list(range(300))
    wanted = dict(zip(("train", "validation", "test"), fractions or (0.8, 0.1, 0.1), strict=False))
    assert {name: len(part) for name, part in found.items()} == {n: round(300 * s) for n, s in wanted.items() if s}
    alike = all(len(set(np.bincount(classes[part]))) == 1 for part in found.values())
    assert alike == stratify


def test_each_seed_gives_its_own_split():
    """Another seed gives another split with the same sizes."""
    one, again, other = (split_indices(50, DataConfig(split_seed=seed)) for seed in (3, 3, 4))
    assert one == again
    assert one != other
    assert list(map(len, one.values())) == list(map(len, other.values()))


@pytest.mark.parametrize(
    "fractions",
    [(0.8,), (0.8, 0.3), (0.5, 0.5, 0.5), (1.2, -0.2), (0.0, 0.5, 0.5), (1.0, 0.0, 0.0), (0.7, 0.1, 0.1, 0.1)],
)
def test_invalid_fractions_are_refused(fractions):
    """Fractions are two or three, sum to 1, and leave training and validation examples."""
    with pytest.raises(BadOption, match=r"data\.split_fractions must be.*Received: data\.split_fractions=\[") as error:
        split_indices(10, DataConfig(split_fractions=fractions))
    one_line(error)


@pytest.mark.parametrize("option", [{"split_fractions": (0.5, 0.3, 0.2)}, {"split_seed": 3}, {"stratify": False}])
def test_options_of_splitting_are_refused_for_existing_splits(option):
    """The digits have splits; a recipe that would split them is refused before training."""
    made = Recipe("t", ModelConfig("mlp_tiny"), DataConfig("digits", **option))
    name = next(iter(option))
    with pytest.raises(BadOption, match=rf"data\.{name} applies to data without splits.*digits") as error:
        open_pipeline(made, zoo.spec("mlp_tiny"))
    one_line(error)


@pytest.mark.parametrize("option", [{"target": "x"}, {"columns": ("x",)}, {"task": "regress"}])
def test_options_of_tables_are_refused_elsewhere(option):
    """Images have no columns."""
    made = Recipe("t", ModelConfig("mlp_tiny"), DataConfig("digits", **option))
    with pytest.raises(BadOption, match=rf"data\.{next(iter(option))} applies to tables") as error:
        open_pipeline(made, zoo.spec("mlp_tiny"))
    one_line(error)


def test_tables_obey_fractions_and_seed():
    """Iris by halves and quarters: 25 of each species train; another seed selects others; also without a test split."""
    counts = {n: s.count for n, s in load_dataset(DataConfig("iris", split_fractions=(0.5, 0.3, 0.2))).splits.items()}
    assert counts == {"train": 75, "validation": 45, "test": 30}
    assert set(load_dataset(DataConfig("iris", split_fractions=(0.8, 0.2))).splits) == {"train", "validation"}
    first, other = (
        [
            x.tolist()
            for x, _ in load_dataset(DataConfig("iris", split_seed=seed)).splits["test"].examples.as_numpy_iterator()
        ]
        for seed in (0, 1)
    )
    assert first != other


def test_a_class_with_one_example_is_refused(tmp_path):
    """It cannot be in both the training and the validation split."""
    rows = "".join(f"{i},{'rare' if i == 7 else 'ab'[i % 2]}\n" for i in range(20))
    (tmp_path / "t.csv").write_text("x,kind\n" + rows)
    with pytest.raises(DataError, match=r"2 examples of each class of kind.*'rare' with 1") as error:
        load_dataset(DataConfig("table", path=str(tmp_path / "t.csv")))
    one_line(error)


def test_public_configuration_has_the_options():
    """They are part of a recipe, and of its JSON."""
    changes = {"data.split_fractions": [0.6, 0.2, 0.2], "data.split_seed": 5, "data.stratify": False}
    made = Recipe("t").override(**changes)
    assert training.Recipe.from_json(made.to_json()) == made
