"""Recipes: overrides, errors, JSON, and the documentation of registered recipes."""

from __future__ import annotations

import dataclasses
import importlib
import json
import pkgutil
import re
import types
import warnings

import pytest

import training
from training import AugmentConfig, DataConfig, ModelConfig, Recipe, TeacherConfig, parse_override
from training.data.dataset import datasets
from training.recipe.limits import CHOICES, LIMITS
from training.recipe.recipe import recipes, resolve
from zoo import PreprocessingConfig
from zoo.build import check_options
from zoo.common.errors import BadOption, DuplicateName, UnknownName

RECIPE = Recipe("test", data=DataConfig(augment=AugmentConfig(flip=True)), teacher=TeacherConfig(run="runs/teacher"))


# Keys that a key requires, where it does not apply to the base recipe.
COMPANIONS = {
    "optimizer.beta_1": {"optimizer.name": "adam"},
    "optimizer.beta_2": {"optimizer.name": "adam"},
    "optimizer.epsilon": {"optimizer.name": "adam"},
    "optimizer.rho": {"optimizer.name": "rmsprop"},
    "schedule.period": {"schedule.name": "exponential"},
    "schedule.factor": {"schedule.name": "exponential", "schedule.period": 2},
    "schedule.power": {"schedule.name": "polynomial"},
    "schedule.warmup_epochs": {"epochs": 1_000_000},
    "loss.gamma": {"loss.name": "focal"},
    "loss.delta": {"loss.name": "huber"},
    "finetune.views": {"finetune.stages": ["head"], "data.augment.flip": True, "teacher": None},
    "teacher.beta": {"teacher.features": [1]},
}
NEEDED = {
    "step": {"schedule.milestones": [1, 2]},
    "exponential": {"schedule.period": 2},
    "cosine_restarts": {"schedule.period": 2},
    "inverse_sqrt": {"schedule.warmup_epochs": 1},
}


def override(key, value):
    """Return the recipe with one value changed."""
    return RECIPE.override(**{key: value})


def override_with(key, value):
    """Return the recipe with one value changed, and with the keys that it requires; a default requires none."""
    more = {} if value == value_of(RECIPE, key) else COMPANIONS.get(key, {})
    return RECIPE.override(**more, **(NEEDED.get(value, {}) if isinstance(value, str) else {}), **{key: value})


def value_of(recipe, key):
    """Return the value at a dotted key."""
    for part in key.split("."):
        recipe = recipe[part] if isinstance(recipe, dict) else getattr(recipe, part)
    return recipe


def one_line(error):
    """Return the message, and check that it is one line with the received value."""
    message = str(error.value)
    assert "\n" not in message
    assert "Received: " in message
    return message


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


def test_recipes_are_frozen():
    """No part of a recipe can be assigned to."""
    for part, name in ((RECIPE, "epochs"), (RECIPE.data, "name"), (RECIPE.data.augment, "shift")):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(part, name, 1)


@pytest.mark.parametrize("name", recipes.names())
def test_registered_recipe_goes_through_json(name):
    """Every registered recipe survives JSON text and has its registered name."""
    recipe = recipes[name]
    text = json.dumps(recipe.to_json(), allow_nan=False)
    assert Recipe.from_json(json.loads(text)) == recipe
    assert recipe.name == name
    assert not recipe.data.path


def test_full_recipe_goes_through_json():
    """Tuples, mappings and a preprocessing come back as they were."""
    recipe = RECIPE.override(
        **{
            "data.preprocessing.std": [255],
            "data.image_size": [8, 9],
            "model.name": "mlp",
            "model.options": {"widths": [4]},
        }
    )
    assert Recipe.from_json(json.loads(json.dumps(recipe.to_json()))) == recipe


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (3, "mapping"),
        ({}, "name is missing"),
        ({"name": "x", "data": 3}, "data must be a mapping"),
        ({"name": "x", "epoch": 3}, "Did you mean 'epochs'"),
        ({"name": "x", "model": None}, "model"),
    ],
)
def test_damaged_json_is_refused(values, message):
    """JSON that is no recipe raises BadOption with the place."""
    with pytest.raises(BadOption, match=message):
        Recipe.from_json(values)


@pytest.mark.parametrize("name", recipes.names())
def test_model_takes_the_options_of_the_recipe(name):
    """Every recipe names a registered model, and options that it has."""
    recipe = recipes[name]
    check_options(recipe.model.name, recipe.model.options)
    assert resolve(name) == recipe


def recipe_modules():
    """Return the names of the files in training/recipes."""
    package = importlib.import_module("training.recipes")
    return sorted(module.name for module in pkgutil.iter_modules(package.__path__) if not module.name.startswith("_"))


@pytest.mark.parametrize("name", recipe_modules())
def test_recipe_documents_command_hardware_time_and_result(name):
    """The docstring of a recipe documents its command, hardware, time and result."""
    text = " ".join((importlib.import_module(f"training.recipes.{name}").__doc__ or "").split())
    stated = dict(re.findall(r"(Command|Hardware|Time|Result): (.*?)(?= (?:Command|Hardware|Time|Result): |$)", text))
    assert set(stated) == {"Command", "Hardware", "Time", "Result"}
    command = re.search(r"zoo train (\w+)", stated["Command"])
    assert command
    assert command[1] in recipes
    assert re.search(r"\d+ \S*\s*(cores?|GPUs?)|\d+ .*\b(cores?|GPUs?)\b", stated["Hardware"])
    assert re.search(r"\d+(\.\d+)? ?(s|seconds|min|minutes|h|hours)\b", stated["Time"])
    assert re.search(r"accuracy", stated["Result"])
    assert re.search(r"[01]\.\d{2,}|\d+(\.\d+)? ?%", stated["Result"])


def test_resolve_refuses_unknown_names_and_options():
    """An unknown recipe, model or option is reported at once, with the nearest name."""
    with pytest.raises(UnknownName, match="Did you mean 'digits_mlp'"):
        resolve("digit_mlp")
    with pytest.raises(UnknownName, match="Did you mean 'resnet20'"):
        resolve("digits_mlp", [("model", {"name": "resnet_20"})])
    with pytest.raises(BadOption, match="Did you mean 'dropout'"):
        resolve("digits_mlp", [("model.options.dropot", 0.1)])
    with pytest.raises(BadOption, match=r"dropout must be a number.*dropout='much'"):
        resolve("digits_mlp", [("model.options.dropout", "much")])
    with pytest.raises(UnknownName, match="recipe=3"):
        resolve(3)


def test_a_name_registers_once():
    """A second recipe of the same name is refused."""
    with pytest.raises(DuplicateName, match="digits_mlp"):
        training.register_recipe(dataclasses.replace(recipes["digits_mlp"]))


def test_public_names_stay_what_they_are():
    """Importing folders of recipes and datasets does not hide exported names."""
    assert recipes.names()
    assert datasets.names()
    hidden = [name for name in training.__all__ if isinstance(getattr(training, name), types.ModuleType)]
    assert hidden == []


def test_command_lists_recipes(zoo_command):
    """`zoo recipes` prints one line per recipe, and all of it as JSON."""
    code, out, err = zoo_command("recipes", "digits_*")
    assert (code, err) == (0, "")
    assert "digits_mlp" in out
    code, out, err = zoo_command("recipes", "digits_mlp", "--json")
    (values,) = json.loads(out)
    stated = values.pop("metadata")
    assert Recipe.from_json(values) == recipes["digits_mlp"]
    assert (stated["accuracy"], stated["published"]) == ("0.9231", False)
