"""Overrides: one value in its type, another model, unknown keys with the nearest, and their text form."""

from __future__ import annotations

import dataclasses
import re
import warnings

import pytest
from changed_recipes import RECIPE, one_line, override, value_of

from training import AugmentConfig, DataConfig, ModelConfig, parse_override
from training.recipe.recipe import recipes
from zoo import PreprocessingConfig
from zoo.common.errors import BadOption


@pytest.mark.parametrize(
    ("key", "given", "wanted"),
    [
        ("epochs", 3, 3),
        ("optimizer.learning_rate", 0.05, 0.05),
        ("optimizer.learning_rate", 1, 1.0),
        ("optimizer.nesterov", False, False),
        ("data.name", "mnist", "mnist"),
        ("data.path", 2012, "2012"),
        ("data.augment.shift", 0.2, 0.2),
        ("data.augment.fill", "nearest", "nearest"),
        ("data.image_size", [32, 48], (32, 48)),
        ("data.image_size", (32, 48), (32, 48)),
        ("data.image_size", [], ()),
        ("model.options.dropout", 0.2, 0.2),
        ("model.options", {"zero_init": True}, {"zero_init": True}),
        ("model", {"name": "mlp"}, ModelConfig("mlp")),
        ("data.augment", {"shift": 0.1}, AugmentConfig(shift=0.1)),
        ("data.preprocessing.std", [255], PreprocessingConfig(std=(255.0,))),
        ("data.preprocessing", {"mean": [1, 2, 3]}, None),
        ("data.preprocessing", None, None),
    ],
)
def test_override_sets_one_value(key, given, wanted):
    """An override changes the named value, in the type of the recipe."""
    if key == "data.preprocessing" and given:
        wanted = PreprocessingConfig(mean=(1.0, 2.0, 3.0))
    changed = override(key, given)
    place = "data.preprocessing" if key.startswith("data.preprocessing") else key
    assert value_of(changed, place) == wanted
    assert type(value_of(changed, place)) is type(wanted)


def test_override_leaves_the_rest_and_the_original():
    """Overrides return a new recipe that differs only in the overridden values."""
    changed = RECIPE.override(**{"epochs": 3, "data.augment.shift": 0.1})
    assert RECIPE.epochs == 10
    assert RECIPE.data.augment.shift == 0.0
    assert changed.data.augment.flip
    wanted = dataclasses.replace(RECIPE, epochs=3, data=DataConfig(augment=AugmentConfig(flip=True, shift=0.1)))
    assert changed == wanted


@pytest.mark.parametrize(
    ("recipe", "given", "left", "named"),
    [
        ("folder_resnet18", {"model.name": "cnn"}, {}, "model.options.zero_init"),
        ("digits_mlp", {"model.name": "mlp_tiny"}, {"dropout": 0.2}, "model.options.widths"),
        (
            "digits_mlp",
            {"model.name": "mlp_tiny", "model.options.widths": [3]},
            {"dropout": 0.2, "widths": [3]},
            "widths",
        ),
        ("imagenet_resnet50_a2", {"model.name": "vgg16"}, {}, "model.options.drop_path"),
    ],
)
def test_another_model_leaves_out_what_is_stated_for_the_own(recipe, given, left, named):
    """Options of the recipe that the other model lacks, or defines itself, are left out, in one line."""
    with pytest.warns(
        UserWarning, match=rf"{recipe} states .*{named}.*; {given['model.name']} is trained without"
    ) as lines:
        assert recipes[recipe].override(**given).model.options == left
    assert len(lines) == 1


def test_what_another_model_has_stays():
    """Its options are kept without a word, and what the user gives is refused if it does not fit."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        kept = recipes["folder_resnet18"].override(**{"model.name": "resnet34", "model.weights": "x.keras"})
        assert kept.model.options == {"zero_init": True}
        with pytest.raises(BadOption, match=r"model\.options\.zero_init=False"):
            recipes["folder_resnet18"].override(**{"model.name": "cnn", "model.options": {"zero_init": False}})


def test_several_overrides_of_a_missing_dataclass_add_up():
    """Keys below a preprocessing of None start from its defaults and add up."""
    changed = RECIPE.override(**{"data.preprocessing.mean": [3], "data.preprocessing.crop": 0.5})
    assert changed.data.preprocessing == PreprocessingConfig(mean=(3.0,), crop=0.5)


@pytest.mark.parametrize(
    ("key", "nearest"),
    [
        ("epoch", "epochs"),
        ("optimizer.lerning_rate", "optimizer.learning_rate"),
        ("optimiser.learning_rate", "optimizer.learning_rate"),
        ("data.augment.shft", "data.augment.shift"),
        ("data.preprocessing.means", "data.preprocessing.mean"),
    ],
)
def test_unknown_key_names_the_nearest(key, nearest):
    """An unknown key is refused with the nearest one, given in full."""
    with pytest.raises(BadOption, match=re.escape(f"'{key}'")) as error:
        override(key, 1)
    assert f"Did you mean '{nearest}'?" in str(error.value)


def test_unknown_key_inside_a_mapping_is_refused():
    """A mapping is checked key by key."""
    with pytest.raises(BadOption, match=r"'data\.augment\.shft'.*'data\.augment\.shift'"):
        override("data.augment", {"shft": 0.1})


@pytest.mark.parametrize("key", ["model.name.x", "epochs.x", "data.image_size.0"])
def test_key_below_a_single_value_is_refused(key):
    """A key cannot go below a number, a text or a list."""
    with pytest.raises(BadOption, match="holds one value, not keys") as error:
        override(key, 1)
    one_line(error)


@pytest.mark.parametrize("key", ["model.options.head.dropout", "model.", "data..path", ""])
def test_odd_keys_are_refused_in_one_line(key):
    """Keys with empty parts, or below an option that does not exist, raise BadOption and never KeyError."""
    with pytest.raises(BadOption):
        override(key, 1)


@pytest.mark.parametrize(
    ("text", "key", "value"),
    [
        ("epochs=3", "epochs", 3),
        ("optimizer.learning_rate=5e-2", "optimizer.learning_rate", 0.05),
        ("optimizer.nesterov=false", "optimizer.nesterov", False),
        ("data.preprocessing=null", "data.preprocessing", None),
        ("data.image_size=[8, 8]", "data.image_size", [8, 8]),
        ('model.options={"dropout": 0.1}', "model.options", {"dropout": 0.1}),
        ("data.name=mnist", "data.name", "mnist"),
        ('data.name="mnist"', "data.name", "mnist"),
        ("data.path=/data/a=b c", "data.path", "/data/a=b c"),
        ("data.path=", "data.path", ""),
        (" epochs =3", "epochs", 3),
    ],
)
def test_parse_override_reads_json_or_text(text, key, value):
    """The value is JSON if it parses, and text otherwise; only the first "=" separates."""
    assert parse_override(text) == (key, value)
    override(key, value)


@pytest.mark.parametrize("text", ["epochs", "=3", "  =3", ""])
def test_parse_override_needs_a_key_and_a_value(text):
    """Text other than key=value is refused with an example."""
    with pytest.raises(BadOption, match=r"key=value, such as optimizer\.learning_rate=0\.05") as error:
        parse_override(text)
    one_line(error)
