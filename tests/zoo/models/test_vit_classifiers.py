"""The two classifiers of distilled vision transformers, and new classifiers over published weights."""

from __future__ import annotations

import numpy as np
import pytest
from vit_cases import close, draw, randomized

import zoo


@pytest.fixture(scope="module")
def distilled(tmp_path_factory):
    """Images, a model with two classifiers averaged, and its file."""
    model = randomized(zoo.get("deit_micro_tiny"))
    path = tmp_path_factory.mktemp("deit") / "deit.safetensors"
    zoo.save_weights(model, path)
    return draw(3, 32, 32, 3), model, path


@pytest.mark.parametrize(
    "kind", [".safetensors", "model", *(pytest.param(k, marks=pytest.mark.slow) for k in (".weights.h5", ".keras"))]
)
def test_classifiers_average_and_separate(kind, distilled, tmp_path):
    """One set of weights gives the average of both classifiers' logits, or both, each from its own token."""
    images, model, _ = distilled
    path = tmp_path / f"deit{kind}"
    if kind == ".safetensors":
        zoo.save_weights(model, path)
    elif kind != "model":
        model.save(path) if kind == ".keras" else model.save_weights(path)
    both = zoo.get("deit_micro_tiny", distillation="separate", weights=model if kind == "model" else path)
    assert both.count_params() == model.count_params()
    found = {name: np.asarray(logits) for name, logits in both(images).items()}
    assert list(found) == ["logits", "distillation_logits"]
    assert np.abs(found["logits"] - found["distillation_logits"]).max() > 0.1
    close(model(images), (found["logits"] + found["distillation_logits"]) / 2)


def test_weights_of_separate_classifiers_load_into_average(distilled, tmp_path):
    """A model trained with both outputs predicts with their average."""
    images, model, path = distilled
    both = zoo.get("deit_micro_tiny", distillation="separate", weights=path)
    zoo.save_weights(both, tmp_path / "both.safetensors")
    average = zoo.get("deit_micro_tiny", distillation="average", weights=tmp_path / "both.safetensors")
    close(average(images), model(images))


def test_activation_follows_the_average(distilled):
    """Scores are those of the average logits, not the average of two scores."""
    images, model, path = distilled
    scores = zoo.get("deit_micro_tiny", weights=path, classifier_activation="softmax")(images)
    logits = np.asarray(model(images), "float64")
    close(scores, np.exp(logits) / np.exp(logits).sum(-1, keepdims=True))


def test_other_tasks_have_two_classifiers_too(distilled):
    """Each task is the average of a classifier on either token; without tasks the features are averaged."""
    images, _, path = distilled
    tasks = zoo.get("deit_micro_tiny", weights=path, heads={"species": 4, "age": zoo.Regression()})
    names = {layer.name for layer in tasks.layers}
    assert {"species_logits", "species_distillation_logits", "age_logits", "age_distillation_logits"} <= names
    assert {name: y.shape for name, y in tasks(images).items()} == {"species": (3, 4), "age": (3, 1)}
    features = zoo.get("deit_micro_tiny", weights=path, classes=0)
    last = zoo.get("deit_micro_tiny", weights=path)
    tokens = [layer.output for layer in last.layers if layer.name in ("pool", "distillation_pool")]
    import keras

    first, second = keras.Model(last.input, tokens)(images)
    close(features(images), (np.asarray(first) + np.asarray(second)) / 2)


@pytest.mark.parametrize("name", [pytest.param("vit_micro_tiny", marks=pytest.mark.slow), "deit_micro_tiny"])
def test_new_classifiers_over_published_weights(name, monkeypatch, tmp_path):
    """Published weights leave every classifier of another size random and load the rest."""
    import dataclasses

    from zoo.specs.registry import models
    from zoo.weights.published.vit import TIMM

    model = randomized(zoo.get(name))
    names = {layer.name: TIMM.rename(layer.name) for layer in model.layers if layer.weights}
    path = tmp_path / "timm" / "some.tag.safetensors"
    path.parent.mkdir()
    save_as_timm(model, names, path)
    monkeypatch.setenv("ZOO_HOME", str(tmp_path))
    spec = dataclasses.replace(models[name].spec, weights=(zoo.PublishedWeights("timm/some.tag", 0.0),))
    monkeypatch.setitem(
        models._entries, name, dataclasses.replace(models[name], spec=spec, name_mappings={"timm": TIMM})
    )
    images = draw(2, 32, 32, 3)
    close(zoo.get(name, weights="imagenet")(images), model(images))
    other = zoo.get(name, weights="imagenet", classes=7)
    assert other.output_shape == (None, 7)
    np.testing.assert_array_equal(other.get_layer("token").token, model.get_layer("token").token)


def save_as_timm(model, names, path):
    """Write the weights of a model under the names and in the shapes of timm."""
    from safetensors.numpy import save_file

    theirs = {"kernel": "weight", "gamma": "weight", "beta": "bias", "bias": "bias"}
    arrays = {}
    for layer in model.layers:
        for variable in layer.weights:
            array = variable.numpy()
            if variable.name == "kernel":
                array = array.transpose(3, 2, 0, 1) if array.ndim == 4 else array.T
            if layer.name == "positions":
                array = array[None]
            plain = layer.name.endswith("token") or layer.name == "positions"
            key = names[layer.name] if plain else f"{names[layer.name]}.{theirs[variable.name]}"
            arrays[key] = np.ascontiguousarray(array)
    save_file(arrays, path)
