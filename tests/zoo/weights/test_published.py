"""Tables of published weights and name mappings: complete, consistent with the registry, and pure data."""

from __future__ import annotations

import importlib
import pkgutil

import pytest

import zoo
import zoo.weights.published
from zoo.specs.registry import models

FAMILIES = [module.name for module in pkgutil.iter_modules(zoo.weights.published.__path__)]


@pytest.mark.parametrize("family", FAMILIES)
def test_tables_are_those_of_the_registered_models(family):
    """Every entry belongs to a registered model of the family, which has these weights and name mappings."""
    tables = importlib.import_module(f"zoo.weights.published.{family}")
    assert tables.NAME_MAPPINGS.keys() == tables.WEIGHTS.keys() != set()
    for name, weights in tables.WEIGHTS.items():
        assert models[name].spec.family == family
        assert models[name].spec.weights == weights
        assert models[name].name_mappings == tables.NAME_MAPPINGS[name]


def test_every_published_model_is_in_a_table():
    """A registered model has published weights or name mappings only if a table has them."""
    tables = [importlib.import_module(f"zoo.weights.published.{family}") for family in FAMILIES]
    names = {name for name in models.names() if models[name].spec.weights or models[name].name_mappings}
    assert names == {name for table in tables for name in table.WEIGHTS}


def test_weights_of_timm_and_keras_have_a_name_mapping():
    """Weights that the zoo can load have a name mapping of their library."""
    for name in models.names():
        libraries = {weights.source.partition("/")[0] for weights in models[name].spec.weights}
        assert libraries <= models[name].name_mappings.keys(), name


IMPORTS = """
import importlib, sys
for family in sys.argv[1:]:
    importlib.import_module(f"zoo.weights.published.{family}")
print(sorted({"keras", "numpy", "tensorflow", "torch", "safetensors", "huggingface_hub"} & sys.modules.keys()))
"""


def test_tables_import_no_framework(python):
    """The tables are pure data."""
    out, err = python("-c", IMPORTS, *FAMILIES).communicate(timeout=60)
    assert out.strip() == "[]", err
