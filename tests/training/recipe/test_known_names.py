"""Names that a recipe knows are those that exist: optimizers, schedules, datasets, and keys of other libraries."""

from __future__ import annotations

import inspect

import pytest
from bad_values import BASE, one_line

from training import (
    Recipe,
)
from training.common.registries import is_dataset
from training.recipe.keys import SYNONYMS, all_keys
from training.recipe.limits import OPTIMIZERS
from training.recipe.rules import SCHEDULE_KEYS
from zoo.common.errors import BadOption, UnknownName


@pytest.mark.parametrize("name", ["Adam", "SGD", "momentum", "lbfgs", "LBFGS"])
def test_optimizers_are_named_in_any_case(name):
    """As `make_optimizer` takes them."""
    assert BASE.override(**{"optimizer.name": name}).optimizer.name == name


@pytest.mark.tensorflow
def test_the_table_of_optimizers_is_what_keras_has():
    """Each optimizer that `make_optimizer` accepts is in the table with its options, and no other."""
    import keras

    from training.optim.optimizer import MOMENTS, keras_class

    found = {}
    for name, cls in inspect.getmembers(keras.optimizers, inspect.isclass):
        own = issubclass(cls, keras.optimizers.Optimizer) and cls is not keras.optimizers.Optimizer
        if own and "weight_decay" in inspect.signature(cls).parameters:
            found[name.lower()] = inspect.signature(keras_class(name)).parameters
    found["muon"] = inspect.signature(keras_class("muon")).parameters
    assert {n: tuple(m for m in MOMENTS if m in p or f"adam_{m}" in p) for n, p in found.items()} == dict(OPTIMIZERS)


def test_the_table_of_schedules_is_that_of_the_schedules():
    """Each schedule that is made has its keys in the table, and no other."""
    from training.optim.schedules import SCHEDULES

    assert set(SCHEDULES) == set(SCHEDULE_KEYS)


@pytest.mark.tensorflow
def test_datasets_of_tfds_are_known():
    """Every dataset of the installed TFDS passes, with a config, a version or a namespace; other names do not."""
    import tensorflow_datasets as tfds

    assert all(map(is_dataset, tfds.list_builders()))
    assert is_dataset("imdb_reviews/plain_text")
    assert is_dataset("mnist:3.0.1")
    assert is_dataset("huggingface:squad")
    assert not is_dataset("digts")
    assert BASE.override(**{"data.name": "mine", "data.path": "somewhere"}).data.name == "mine"


@pytest.mark.parametrize(
    ("key", "nearest"),
    [
        ("optimizer.lr", "optimizer.learning_rate"),
        ("lr", "optimizer.learning_rate"),
        ("optimiser.lr", "optimizer.learning_rate"),
        ("bs", "data.batch_size"),
        ("optimizer.batch_size", "data.batch_size"),
        ("optimizer.wd", "optimizer.weight_decay"),
        ("optimizer.eps", "optimizer.epsilon"),
        ("model.nam", "model.name"),
        ("model.pretrained", "model.weights"),
        ("warmup", "schedule.warmup_epochs"),
        ("scheduler.name", "schedule.name"),
        ("dropout", "regularize.dropout"),
        ("max_epochs", "epochs"),
        ("data.augment.mix_up", "data.augment.mixup"),
        ("data.augment.hflip", "data.augment.flip"),
        ("aug.flip", "data.augment.flip"),
        ("loss.smoothing", "loss.label_smoothing"),
        ("Seed", "seed"),
        ("log.mistakes", "log.misclassified"),
    ],
)
def test_keys_of_other_libraries_name_ours(key, nearest):
    """Synonyms, abbreviations and keys without their table, or in a wrong one, suggest the right key."""
    with pytest.raises(BadOption) as error:
        BASE.override(**{key: 1})
    assert f"Did you mean '{nearest}'?" in one_line(error, key)


@pytest.mark.parametrize("key", ["zzz", "optimizer.qqqq"])
def test_no_key_is_suggested_for_nonsense(key):
    """A key unlike all others suggests none."""
    with pytest.raises(BadOption, match="Known: "):
        BASE.override(**{key: 1})


def test_synonyms_lead_to_keys():
    """Each synonym maps to the last part of a key, and is no key itself."""
    parts = {key.rpartition(".")[2] for key in all_keys(Recipe)}
    assert set(SYNONYMS.values()) <= parts
    assert not set(SYNONYMS) & parts


def test_unknown_dataset_and_model_are_unknown_names():
    """They raise UnknownName, like lookups in a registry."""
    for key in ("data.name", "model.name"):
        with pytest.raises(UnknownName):
            BASE.override(**{key: "digts"})
