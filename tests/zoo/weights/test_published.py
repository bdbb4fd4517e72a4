"""Tables of published weights and name mappings: complete, consistent with the registry, and pure data."""

from __future__ import annotations

import importlib
import importlib.util
import pkgutil
from pathlib import Path

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


def keras_sources():
    """The source of keras.applications, not imported."""
    folder = Path(importlib.util.find_spec("keras").origin).parent / "src" / "applications"
    return "".join(path.read_text() for path in sorted(folder.glob("*.py")))


def test_digests_are_those_of_keras_applications():
    """Each file has the name and the digest in Keras' source; one file has none there."""
    source = keras_sources()
    entries = [w for name in models.names() for w in models[name].spec.weights if w.source.startswith("keras/")]
    assert len(entries) == 18
    for entry in entries:
        known = entry.sha256 or entry.md5
        assert known is None or f'"{known}"' in source, entry.source
        assert entry.url.startswith("https://storage.googleapis.com/")
        assert entry.url.split("/")[-2] in source
    assert [w.source for w in entries if not (w.sha256 or w.md5)] == ["keras/MobileNetV2"]
    assert f'"{"0" * 32}"' not in source  # the control


def test_every_entry_states_its_size():
    """`zoo show --json` has the size in megabytes, the license, the digest and the native size of each entry."""
    for name in models.names():
        for entry in models[name].spec.to_json()["weights"]:
            assert entry["megabytes"] == pytest.approx(4e-6 * models[name].spec.params, abs=0.1)
            assert {"license", "revision", "sha256", "md5", "url", "size"} <= entry.keys()


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
