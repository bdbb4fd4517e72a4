"""A rebuild is compared by what it computes, not by how it rounds."""

from __future__ import annotations

import json
import shutil

import keras
import numpy as np
import pytest

import training
import zoo
from export.source import rebuild as module
from export.source.rebuild import in_precision, rebuild, relative_error
from training.learning.evaluation import open_data
from zoo.common.errors import ParityError


@pytest.fixture
def run(digits_run, tmp_path):
    """A copy of a run, whose model may be changed."""
    return training.Run.open(shutil.copytree(digits_run.path, tmp_path / "run"))


def change(run, config=lambda layer: layer.get_config(), weights=lambda _: None):
    """Change the config of the layers of a run's model, or its weights."""
    model = keras.saving.load_model(run.model_path, compile=False)
    changed = keras.models.clone_model(model, clone_function=lambda layer: type(layer).from_config(config(layer)))
    changed.set_weights(model.get_weights())
    weights(changed)
    changed.save(run.model_path)
    # As if this version of the zoo had trained it.
    run.finish({key: value for key, value in run.result().items() if key not in ("version", "files")})
    return changed


def almost_constant(model):
    """Make channels almost constant, as those of real models are: rounding is multiplied by 1e5."""
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            variance = np.array(layer.moving_variance)
            variance[::2] = 4e-36
            layer.moving_variance.assign(variance)


def test_rounding_is_no_difference(run):
    """A model with almost constant channels that trained in bfloat16 is rebuilt, however its precisions differ."""
    trained = change(run, lambda layer: {**layer.get_config(), "dtype": "mixed_bfloat16"}, almost_constant)
    pipeline = open_data(run)
    x, _ = pipeline.first_batch("validation")
    rebuilt = rebuild(run, pipeline)
    assert {layer.compute_dtype for layer in rebuilt.layers} == {"float32"}
    assert relative_error(rebuilt, trained, x) > module.FLOAT32_TOLERANCE
    assert relative_error(rebuilt, in_precision(trained, "float32"), x) < 1e-3


@pytest.mark.parametrize("epsilon", [pytest.param(1e-2, marks=pytest.mark.slow), 1e-3])
def test_another_function_is_refused(run, epsilon):
    """An option that the weights do not show, such as an epsilon, is found; the message names no reason it guessed."""

    def with_epsilon(layer):
        config = layer.get_config()
        return {**config, "epsilon": epsilon} if "epsilon" in config else config

    change(run, with_epsilon)
    with pytest.raises(ParityError, match=r"must compute the function .* No version has changed") as error:
        rebuild(run, open_data(run))
    assert "\n" not in str(error.value)


@pytest.mark.slow
def test_another_activation_is_refused(run):
    """So is an activation, which has no weights at all."""

    def leaky(layer):
        config = layer.get_config()
        return {**config, "activation": "elu"} if config.get("activation") == "relu" else config

    change(run, leaky)
    with pytest.raises(ParityError, match="must compute the function"):
        rebuild(run, open_data(run))


def test_options_of_training_are_no_difference(run):
    """The control: a momentum of batch normalization changes nothing in inference."""
    change(run, lambda layer: layer.get_config() | ({"momentum": 0.5} if hasattr(layer, "momentum") else {}))
    assert rebuild(run, open_data(run)).name == "resnet_tiny"


def test_other_versions_are_named(run):
    """A refusal lists the versions that changed since training."""
    path = run.path / "env.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps(content | {"versions": {**content["versions"], "keras": "3.0.0"}}))
    change(run, lambda layer: layer.get_config() | ({"epsilon": 0.1} if hasattr(layer, "epsilon") else {}))
    with pytest.raises(ParityError, match=r"Versions: keras 3\.0\.0 then, 3\.\d+"):
        rebuild(run, open_data(run))


@pytest.mark.parametrize("name", ["mobilenet_tiny", "vit_micro_tiny", "transformer_tiny"])
def test_copy_computes_in_the_precision(name):
    """Every layer but the head, and none of the inputs, has the precision; the weights are those of the model."""
    model = zoo.get(name)
    copied = in_precision(model, "float64")
    assert "float64" in {layer.compute_dtype for layer in copied.layers}
    assert [tensor.dtype for tensor in copied.inputs] == [tensor.dtype for tensor in model.inputs]
    for mine, theirs in zip(copied.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(mine.astype("float32"), theirs)
