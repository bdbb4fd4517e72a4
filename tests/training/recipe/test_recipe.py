"""Recipes: frozen, through JSON, and the documentation, names and models of registered ones."""

from __future__ import annotations

import dataclasses
import importlib
import json
import pkgutil
import re
import types

import pytest
from changed_recipes import RECIPE

import training
from training import Recipe
from training.data.dataset import datasets
from training.recipe.recipe import recipes, resolve
from zoo.build import check_options
from zoo.common.errors import BadOption, DuplicateName, UnknownName


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
