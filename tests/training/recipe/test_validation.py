"""Every field of a recipe is validated when the recipe is made, in one line and without TensorFlow."""

from __future__ import annotations

import dataclasses
import json

import pytest
from bad_values import BAD, BASE, TABLES, one_line

from training import (
    Recipe,
)
from training.recipe.keys import all_keys
from training.recipe.recipe import recipes
from training.recipe.starter import read_recipe
from zoo import PreprocessingConfig
from zoo.common.errors import ZooError

STAGES = {"finetune.stages": ["head", "all"], "finetune.milestones": [4]}

# Values that are valid with the base of the file, or given by its name.
FINE_IN_A_FILE = ("name", "optimizer.beta_1", "schedule.warmup_epochs")


def test_the_table_covers_every_field():
    """Every field has an invalid value."""
    assert {key for key in all_keys(Recipe) if key not in TABLES} == {key for key, _, _ in BAD} - {"model.options.stem"}


@pytest.mark.parametrize(("key", "value", "message"), [row for row in BAD if row[2]])
def test_bad_value_is_refused_when_the_recipe_is_made(key, value, message):
    """An override, and the same recipe as JSON, give one line."""
    with pytest.raises(ZooError) as error:
        BASE.override(**{key: value})
    assert message in one_line(error, key)


@pytest.mark.parametrize(("key", "value", "message"), [row for row in BAD if "options." not in row[0]])
def test_bad_value_is_refused_in_python(key, value, message):
    """The constructors also refuse it, so that every Recipe is valid. Numbers for texts are refused here only."""
    *parents, name = key.split(".")
    with pytest.raises(ZooError) as error:
        dataclasses.replace(BASE, **_nested(BASE, parents, name, value))
    assert (message or "must be a text") in one_line(error, key)


def _nested(owner, parents, name, value):
    """Return the change of a field, through the configs that it is in."""
    if not parents:
        return {name: tuple(value) if isinstance(value, list) else value}
    inner = getattr(owner, parents[0]) or PreprocessingConfig()
    return {parents[0]: dataclasses.replace(inner, **_nested(inner, parents[1:], name, value))}


@pytest.mark.parametrize(
    ("key", "value"),
    [(k, v) for k, v, m in BAD if m and not isinstance(v, dict) and k[:7] != "teacher" and k not in FINE_IN_A_FILE],
)
def test_bad_value_in_toml_is_refused(tmp_path, key, value):
    """A recipe in a TOML file is refused too."""
    table, _, name = key.rpartition(".")
    text = json.dumps(value).replace("NaN", "nan").replace("Infinity", "inf")
    (tmp_path / "mine.toml").write_text(f'base = "digits_mlp"\n{f"[{table}]" if table else ""}\n{name} = {text}\n')
    with pytest.raises(ZooError) as error:
        read_recipe(tmp_path / "mine.toml")
    one_line(error, key)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"schedule.name": "step"}, "needs schedule.milestones or schedule.period"),
        ({"schedule.name": "step", "schedule.period": 2, "schedule.milestones": [1]}, "and not both"),
        ({"schedule.name": "inverse_sqrt"}, "needs a warm-up"),
        ({"schedule.name": "one_cycle", "schedule.warmup_epochs": 1}, "its own warm-up"),
        ({"optimizer.name": "momentum", "optimizer.momentum": 0}, "needs momentum"),
        ({"optimizer.clip_norm": 1, "optimizer.clip_value": 1}, "at most one kind"),
        ({"optimizer.name": "lion", "optimizer.epsilon": 0.1}, "lion has no epsilon"),
        ({"loss.class_weight": [1, 2], "loss.balanced": True}, "loss.class_weight or loss.balanced"),
        ({"data.augment.repeats": 8, "data.batch_size": 4}, "data.augment.repeats=8, data.batch_size=4"),
        ({"data.normalize": "zscore", "data.preprocessing.std": [2]}, "Leave one out"),
        ({"data.preprocessing.channel_order": "bgr"}, "Save the weights with zoo.save_weights"),
        ({"data.target": "a", "data.columns": ["a", "b"]}, "without the target"),
        ({"model.name": "mlp", "model.options.dropout": 0.1, "regularize.dropout": 0.1}, "given twice"),
        ({"regularize.spectral_norm": True, "optimizer.ema": 0.9}, "Leave one out"),
        ({**STAGES, "finetune.milestones": [10]}, "below epochs=10"),
        ({**STAGES, "finetune.milestones": [0]}, "above 0"),
        ({**STAGES, "finetune.learning_rates": [0.1, 0]}, "above 0 for each stage"),
        ({**STAGES, "schedule.warmup_epochs": 4}, "a stage of 4 epochs"),
        ({**STAGES, "optimizer.name": "lbfgs"}, "stochastic optimizer"),
        ({**STAGES, "finetune.views": 1}, "needs the images"),
        ({**STAGES, "finetune.views": 2, "teacher": None}, "without augmentation"),
        ({"finetune.stages": ["all"], "finetune.views": 1}, "needs a stage of the head"),
        ({"strategy": "one", "replicas": 2}, "Use strategy=mirrored"),
        ({"teacher.run": "", "teacher.model": "resnet_tyni"}, "teacher.model='resnet_tyni'"),
        ({"teacher.run": "", "teacher.model": "resnet50", "teacher.weights": ""}, "needs weights"),
        ({"teacher.features": [1, 1], "teacher.beta": 1}, "different stages"),
    ],
)
def test_contradictions_are_refused(changes, message):
    """Fields that do not go together are refused when the recipe is made."""
    with pytest.raises(ZooError) as error:
        BASE.override(**changes)
    assert message in one_line(error, "")


@pytest.mark.parametrize("name", recipes.names())
def test_every_registered_recipe_is_valid(name):
    """The control: all registered recipes are valid."""
    assert Recipe.from_json(recipes[name].to_json()) == recipes[name]


def test_lbfgs_ignores_the_schedule():
    """Schedules do not apply to it, so its epochs may be fewer than those of the warm-up."""
    assert BASE.override(**{"optimizer.name": "lbfgs", "schedule.warmup_epochs": 20}).epochs == 10


def test_validation_needs_no_tensorflow(printed):
    """Names of models, datasets, optimizers and weights are checked in a process without TensorFlow, Keras or NumPy."""
    code = (
        "import json, sys\nfrom training import Recipe\nfound = []\n"
        "for change in ({'optimizer.name': 'adamm'}, {'data.name': 'digts'}, {'model.name': 'resnet_tyni'},\n"
        "               {'model.weights': 'x'}, {'data.augment.crop_scale': [5, -1]}, {'optimizer.lr': 1}):\n"
        "    try:\n        Recipe('t').override(**change)\n"
        "    except Exception as error:\n        found.append(type(error).__name__)\n"
        "heavy = sorted({'tensorflow', 'keras', 'numpy', 'tensorflow_datasets'} & set(sys.modules))\n"
        "print(json.dumps([found, heavy]))"
    )
    found, heavy = printed("-c", code)
    assert found == ["BadOption", "UnknownName", "UnknownName", "BadOption", "BadOption", "BadOption"]
    assert heavy == []
