"""Types, ranges and choices of the values of a recipe: what is outside is refused, and the limits are not."""

from __future__ import annotations

import re

import pytest
from changed_recipes import RECIPE, one_line, override, override_with, value_of

from training.recipe.limits import CHOICES, LIMITS
from zoo.common.errors import BadOption


@pytest.mark.parametrize(
    ("key", "value", "wanted"),
    [
        ("epochs", 1.5, "a whole number"),
        ("epochs", True, "a whole number"),
        ("epochs", "3", "a whole number"),
        ("epochs", None, "a whole number"),
        ("optimizer.learning_rate", "fast", "a number"),
        ("optimizer.learning_rate", False, "a number"),
        ("optimizer.nesterov", 1, "a true or false"),
        ("data.image_size", 32, "a list of whole numbers"),
        ("data.image_size", [8.5, 8], "a list of whole numbers"),
        ("model.options", [1], "a mapping"),
        ("data.preprocessing.std", "255", "a list of numbers"),
    ],
)
def test_wrong_type_is_refused(key, value, wanted):
    """A value of the wrong type is refused, with the key and what it must be; nothing is converted silently."""
    with pytest.raises(BadOption, match=re.escape(f"{key} must be {wanted}")) as error:
        override(key, value)
    assert repr(value) in one_line(error)


@pytest.mark.parametrize("key", sorted(LIMITS))
def test_out_of_range_is_refused_and_the_ends_are_not(key):
    """Each limit holds on both sides, and the limits themselves are allowed."""
    low, high = LIMITS[key]
    for value in (low - 1, high * 1.01 + 1):
        with pytest.raises(BadOption, match=re.escape(key)) as error:
            override(key, int(value) if type(value_of(RECIPE, key)) is int else value)
        one_line(error)
    # The warm-up is shorter than all epochs.
    high = high - 1 if key == "schedule.warmup_epochs" else high
    for value in (low, high):
        override_with(key, int(value) if type(value_of(RECIPE, key)) is int else value)


@pytest.mark.parametrize("key", ["optimizer.learning_rate", "checkpoint_seconds", "loss.label_smoothing"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_numbers_that_are_not_finite_are_refused(key, value):
    """NaN and infinity, which Python's JSON accepts, are out of every range."""
    with pytest.raises(BadOption, match=re.escape(key)):
        override(key, value)


@pytest.mark.parametrize("seed", [-1, 2**63])
def test_seed_outside_64_bits_is_refused(seed):
    """A seed that NumPy or TensorFlow cannot take is refused before anything starts."""
    with pytest.raises(BadOption, match="seed"):
        override("seed", seed)


@pytest.mark.parametrize("name", ["", "../elsewhere", "/tmp/elsewhere", "a/b"])
def test_name_that_is_no_folder_name_is_refused(name):
    """A recipe's name is the folder of its runs, so it cannot be a path elsewhere."""
    with pytest.raises(BadOption, match="name"):
        override("name", name)


def test_two_channels_are_refused():
    """Images decode to 1, 3 or 4 channels, never to 2."""
    with pytest.raises(BadOption, match=r"data\.channels"):
        override("data.channels", 2)


@pytest.mark.parametrize("key", sorted(CHOICES))
def test_choices_name_all_and_the_nearest(key):
    """An invalid choice is refused with all choices and the nearest; each valid choice passes."""
    allowed = CHOICES[key]
    with pytest.raises(BadOption, match=re.escape(key)) as error:
        override(key, f"{allowed[-1]}x" if isinstance(allowed[-1], str) else 99)
    message = one_line(error)
    assert all(str(choice) in message for choice in allowed)
    assert f"Did you mean '{allowed[-1]}'?" in message or isinstance(allowed[-1], int)
    for choice in allowed:
        assert value_of(override_with(key, choice), key) == choice


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("data.preprocessing.std", [0]),
        ("data.preprocessing.crop", 0),
        ("data.preprocessing.interpolation", "cubic"),
        ("data.preprocessing.mean", []),
    ],
)
def test_impossible_preprocessing_is_refused(key, value):
    """The preprocessing config checks its own values."""
    with pytest.raises(BadOption, match=key.rpartition(".")[2]):
        override(key, value)
