"""Files of every family opened by Keras without the zoo, and its outputs under JAX."""

from __future__ import annotations

import numpy as np
import pytest
from conformance_cases import inputs, outputs

import zoo

LOAD = """
import sys
import keras, numpy as np
for folder in sys.argv[1:]:
    model = keras.saving.load_model(folder + "/model.keras")
    case = np.load(folder + "/case.npz")
    found, expected = np.asarray(model(case["values"])), case["outputs"]
    assert np.abs(found - expected).max() <= 1e-4 * np.abs(expected).max(), folder
assert not {"zoo", "zoo.layers.core"} & set(sys.modules)
"""


def own_layers(model):
    """Names of the layers that Keras does not have."""
    return {type(layer).__name__ for layer in model.layers if type(layer).__module__.startswith("zoo")}


def saved_cases(names, folder, suffix):
    """Save each model with its outputs, one folder each; return the layers that Keras does not have, by family."""
    own = {}
    for name in names:
        model = zoo.get(name)
        place = folder / name
        if own_layers(model):
            own[zoo.spec(name).family] = own_layers(model)
            if suffix == ".keras":
                continue
        place.mkdir()
        model.save(place / "model.keras") if suffix == ".keras" else zoo.save_weights(model, place / f"model{suffix}")
        values = inputs(name)
        named = values if isinstance(values, dict) else {"values": values}
        np.savez(place / "case.npz", outputs=outputs(model, values), **named)
    return own


def smallest_of_each_family():
    """The name of the smallest model of each family."""
    return [min(zoo.list_models(family=family), key=lambda n: zoo.spec(n).params) for family in zoo.list_families()]


@pytest.mark.slow
def test_files_open_without_the_zoo(tmp_path, python):
    """The smallest model of each family opens with Keras alone, in a process where the zoo cannot be imported."""
    own = saved_cases(smallest_of_each_family(), tmp_path, ".keras")
    assert own.keys() == {"alexnet", "bert", "convnext", "encoder", "realmlp", "transformer", "vit"}
    assert own["alexnet"] | own["convnext"] == {"LocalResponseNormalization", "LayerScale"}
    process = python("-c", LOAD, *tmp_path.iterdir(), cwd=tmp_path, env={"PYTHONPATH": ""})
    _, err = process.communicate(timeout=120)
    assert process.returncode == 0, err


JAX = """
import sys
from pathlib import Path
import keras, numpy as np, zoo
assert keras.backend.backend() == "jax"
for folder in map(Path, sys.argv[1:]):
    model = zoo.get(folder.name, weights=folder / "model.safetensors")
    case = dict(np.load(folder / "case.npz"))
    expected = case.pop("outputs")
    found = np.asarray(model(case.get("values", case)))
    assert np.abs(found - expected).max() <= 1e-4 * np.abs(expected).max(), folder
assert "tensorflow" not in sys.modules
"""


@pytest.mark.slow
def test_same_outputs_on_jax(tmp_path, python):
    """The smallest model of each family gives the same outputs under Keras' JAX backend, without TensorFlow."""
    saved_cases(smallest_of_each_family(), tmp_path, ".safetensors")
    process = python("-c", JAX, *tmp_path.iterdir(), env={"KERAS_BACKEND": "jax"})
    _, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
