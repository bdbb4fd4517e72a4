"""Names of models that have their weights, in recipes."""

from __future__ import annotations

import json

import pytest

import zoo
from training.recipe.config import ModelConfig, TeacherConfig
from training.recipe.recipe import Recipe, resolve
from zoo.common.errors import BadOption, UnknownName

TAG = "resnet50.a1_in1k"


def names(recipe):
    """Name and weights of the model of a recipe."""
    return recipe.model.name, recipe.model.weights


def test_tag():
    """It becomes the registered name and its weights: by override, in JSON and in Python; the recipe's weights go."""
    expected = ("resnet50", f"timm/{TAG}")
    changed = resolve("finetune", [("model.name", TAG)])
    assert names(changed) == names(Recipe.from_json(changed.to_json())) == expected
    assert names(Recipe(name="own", model=ModelConfig(TAG))) == expected
    with_weights = resolve("finetune", [("model.name", "mobilenet_v2"), ("model.weights", "imagenet")])
    assert names(with_weights.override(**{"model.name": TAG})) == expected
    # The control: a registered name keeps them.
    assert names(with_weights.override(**{"model.name": "resnet50"})) == ("resnet50", "imagenet")


def test_teacher():
    """A teacher too, whose weights are "imagenet" unless they are stated."""
    expected = ("resnet50", f"timm/{TAG}")
    changed = resolve("digits_resnet", [("teacher.model", TAG)])
    again = Recipe.from_json(changed.to_json())
    assert [(r.teacher.model, r.teacher.weights) for r in (changed, again)] == [expected] * 2
    own = Recipe(name="own", model=ModelConfig("resnet_tiny"), teacher=TeacherConfig(model=TAG))
    assert (own.teacher.model, own.teacher.weights) == expected
    with pytest.raises(BadOption, match="names its own weights"):
        resolve("digits_resnet", [("teacher.model", TAG), ("teacher.weights", "imagenet")])
    # The control: a registered name keeps its default.
    plain = resolve("digits_resnet", [("teacher.model", "resnet50")]).teacher
    assert (plain.model, plain.weights) == ("resnet50", "imagenet")


def test_both_are_refused():
    """Weights next to a name that has its own; an unknown name."""
    for make in (
        lambda: resolve("finetune", [("model.name", TAG), ("model.weights", "imagenet")]),
        lambda: Recipe(name="own", model=ModelConfig(TAG, weights="imagenet")),
    ):
        with pytest.raises(BadOption, match="names its own weights"):
            make()
    with pytest.raises(UnknownName, match=r"Received: model\.name='resnot50\.a1_in1k'"):
        resolve("finetune", [("model.name", "resnot50.a1_in1k")])


def test_options_of_another_model_are_left_out():
    """As for a registered name."""
    with pytest.warns(UserWarning, match="for vit_micro_tiny alone; resnet50 is trained without"):
        resolve("digits_vit", [("model.name", TAG)])


@pytest.mark.tensorflow
def test_repository(local_hub, tmp_path):
    """An address on the hub, and a local folder."""
    from zoo.weights.configs import StoredModel, own_config

    model = zoo.get("cnn_tiny", preprocessing="unit")
    zoo.save_weights(model, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(own_config(StoredModel(zoo.info(model)))))
    local_hub.publish("me/own", {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()})
    for name in ("hf://me/own", str(tmp_path)):
        assert names(resolve("finetune", [("model.name", name)])) == ("cnn_tiny", name)
