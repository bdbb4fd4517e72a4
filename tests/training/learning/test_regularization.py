"""Regularizers: their effect in training, the saved model without them, and where they cannot apply."""

from __future__ import annotations

import numpy as np
import pytest

import training
import zoo
from training import Run
from training.data.pipeline.opening import open_pipeline
from training.fit.loop import resume_run
from training.learning.build import build_training_model, compile_model
from training.learning.evaluation import load_model
from training.learning.regularization import add_norms, kernels, normalize_kernels
from training.learning.training_model import inference_model
from training.recipe.config import RegularizeConfig
from training.recipe.recipe import resolve
from zoo.common.errors import BadOption
from zoo.common.lazy import keras

QUICK = {"epochs": 1, "schedule.warmup_epochs": 0, "log.every": 0, "log.misclassified": 0, "data.augment": {}}
PLAIN = {**QUICK, "model.options": {"widths": [16]}}


def training_model(recipe="digits_resnet", **overrides):
    """Return a compiled training model and its data."""
    made = resolve(recipe, {**QUICK, **overrides}.items())
    data = open_pipeline(made, zoo.spec(made.model.name))
    model = build_training_model(made, data, start=True)
    compile_model(model, made, data, jit_compile=False)
    return model, data


@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16"])
def test_norms_of_kernels_are_added_to_the_loss(policy):
    """l1 x sum |w| + l2 x sum w² over kernels, without biases and norms, in full precision, and its gradients."""
    import tensorflow as tf

    model = zoo.get("resnet_tiny", input_shape=(8, 8, 1), dtype=policy)
    add_norms(model, RegularizeConfig(l1=0.01, l2=0.1))
    chosen = [np.asarray(v, "float64") for v in kernels(model)]
    assert {v.name for v in model.trainable_variables} == {"kernel", "bias", "gamma", "beta"}
    wanted = sum(0.01 * np.abs(w).sum() + 0.1 * (w**2).sum() for w in chosen)
    with tf.GradientTape() as tape:
        found = tf.add_n(model.losses)
    assert found.dtype == "float32"
    assert float(found) == pytest.approx(wanted, rel=1e-4)
    gradient = tape.gradient(found, kernels(model)[0].value)
    np.testing.assert_allclose(gradient, 0.01 * np.sign(chosen[0]) + 0.2 * chosen[0], rtol=1e-4, atol=1e-6)


def test_saved_model_has_no_norm_penalties(tmp_path):
    """The configuration of the layers is unchanged."""
    model = zoo.get("mlp_tiny", input_shape=(8, 8, 1))
    add_norms(model, RegularizeConfig(l2=0.1))
    model.save(tmp_path / "model.keras")
    assert keras.saving.load_model(tmp_path / "model.keras").losses == []


@pytest.mark.parametrize(
    ("recipe", "key", "option", "overrides"),
    [
        ("digits_mlp", "dropout", 0.25, {"model.options": {"widths": [16]}}),
        ("digits_mlp", "drop_connect", 0.25, {"model.options": {"widths": [16]}}),
        ("digits_vit", "drop_path", 0.2, {}),
    ],
)
def test_options_are_routed_to_the_model(recipe, key, option, overrides):
    """A regularizer sets the option of the model, and the model with that option is built."""
    made = resolve(recipe, {**overrides, f"regularize.{key}": option}.items())
    data = open_pipeline(made, zoo.spec(made.model.name))
    plain = {k: v for k, v in made.model.options.items() if k != key}
    options = {**plain, key: option}
    wanted = zoo.get(made.model.name, classes=10, input_shape=data.shape, **options)
    model = build_training_model(made, data, start=True)
    assert [layer.name for layer in model.layers] == [layer.name for layer in wanted.layers]
    random = [layer for layer in model.layers if getattr(layer, "seed_generator", None) is not None]
    assert random


@pytest.mark.parametrize(
    ("recipe", "overrides", "message"),
    [
        (
            "digits_resnet",
            {"regularize.drop_path": 0.1, "model.name": "vgg_tiny"},
            "vgg_tiny has no drop_path.*convnext",
        ),
        ("digits_resnet", {"regularize.drop_connect": 0.1}, "these families: fcnn"),
        (
            "digits_mlp",
            {"regularize.dropout": 0.1, "model.options": {"dropout": 0.2}},
            "dropout is given twice.*regularize.dropout=0.1, model.options.dropout=0.2",
        ),
        ("digits_mlp", {"regularize.spatial_dropout": 0.1}, "feature maps"),
        ("digits_vit", {"regularize.spatial_dropout": 0.1}, "feature maps"),
        ("digits_mlp", {"regularize.spectral_norm": True, "optimizer.ema": 0.9}, "is not normalized"),
    ],
)
def test_options_that_a_model_lacks_are_refused(recipe, overrides, message, tmp_path):
    """One line names the models that have the option, and no run directory is left."""
    with pytest.raises(BadOption, match=message) as error:
        training.train(recipe, {**QUICK, **overrides}, run=tmp_path / "run")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "run").exists()


def test_spatial_dropout_drops_whole_channels_in_training_only():
    """It follows each stage; the inference model is without it and has the same logits."""
    model, data = training_model(**{"model.name": "resnet_tiny", "regularize.spatial_dropout": 0.5})
    layers = [layer for layer in model.layers if isinstance(layer, keras.layers.SpatialDropout2D)]
    assert len(layers) == 3
    maps = keras.Model(model.input, layers[0].output)
    x, y = next(iter(data.evaluate("validation")))
    dropped = np.asarray(maps(x, training=True))
    whole = (dropped == 0).all(axis=(1, 2))
    before = np.asarray(keras.Model(model.input, layers[0].input)(x, training=True))
    assert 0.4 < whole[~(before == 0).all(axis=(1, 2))].mean() < 0.6
    model.train_on_batch(x, y)
    inference = inference_model(model)
    assert not any(isinstance(layer, keras.layers.SpatialDropout2D) for layer in inference.layers)
    np.testing.assert_allclose(inference(x), model(x, training=False)["logits"], rtol=1e-5, atol=1e-5)
    plain = zoo.get("resnet_tiny", input_shape=(8, 8, 1))
    assert [layer.name for layer in inference.layers] == [layer.name for layer in plain.layers]


def largest(kernel):
    """Return the largest singular value of a kernel as a matrix."""
    return np.linalg.svd(np.asarray(kernel).reshape(-1, kernel.shape[-1]), compute_uv=False)[0]


def test_kernels_are_normalized_now_and_after_each_step():
    """Their largest singular value is 1, as with Keras' SpectralNormalization."""
    model = zoo.get("resnet_tiny", input_shape=(8, 8, 1))
    assert max(abs(largest(k) - 1) for k in kernels(model)) > 0.1
    vectors = normalize_kernels(model)
    assert len(vectors) == len(kernels(model))
    assert max(abs(largest(k) - 1) for k in kernels(model)) < 0.01
    layer = model.get_layer("stage2_block1_conv1")
    reference = keras.layers.SpectralNormalization(keras.layers.Conv2D(16, 3, use_bias=False), power_iterations=30)
    reference.build((None, 8, 8, 8))
    reference.layer.kernel.assign(3 * layer.kernel)
    reference(np.zeros((1, 8, 8, 8), "float32"), training=True)
    np.testing.assert_allclose(reference.layer.kernel, layer.kernel, rtol=0.02, atol=1e-3)


def test_run_with_spectral_norm_saves_plain_kernels(tmp_path):
    """The saved model loads in plain Keras, with plain layers and normalized kernels; the vectors are resumed."""
    run = training.train("digits_mlp", {**PLAIN, "regularize.spectral_norm": True}, run=tmp_path / "run")
    model = load_model(run)
    assert {type(layer).__name__ for layer in model.layers} == {"InputLayer", "Flatten", "Dense"}
    for kernel in kernels(model):
        assert largest(kernel) == pytest.approx(1, abs=0.05)
    from safetensors.numpy import load_file

    names = load_file(run.checkpoints / "last.safetensors")
    assert sum("spectral_vector" in name for name in names) == 2


def test_training_ends_when_patience_does(tmp_path):
    """A model that does not improve stops after its patience and reports it; so does a resumed run."""
    options = {**PLAIN, "epochs": 9, "optimizer.learning_rate": 1e-12, "regularize.patience": 2}
    run = training.train("wine_mlp", options, run=tmp_path / "run")
    assert (run.result()["ended"], run.result()["epochs"], len(run.metrics())) == ("patience", 3, 3)
    (run.path / "done.json").unlink()
    again = resume_run(Run.open(run.path))
    assert (again.result()["ended"], len(again.metrics())) == ("patience", 3)
    whole = training.train("wine_mlp", {**options, "regularize.patience": 0, "epochs": 4}, run=tmp_path / "whole")
    assert (whole.result()["ended"], len(whole.metrics())) == ("epochs", 4)
