"""Pruning in a user's own `fit`: exact zeros, the same layers, and a model that trains on as before."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import layers

import export
from zoo.common.errors import BadOption, ExportError


def trained_on():
    """Return the digits as images in [0, 1], and their classes."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    return (digits.images / 16).astype("float32")[..., None], digits.target


def cnn(**options):
    """Return a compiled model of Keras' own layers."""
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [keras.Input((8, 8, 1)), layers.Conv2D(12, 3, activation="relu", name="conv"), layers.BatchNormalization(),
         layers.Flatten(), layers.Dense(10, name="head")]
    )  # fmt: skip
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("adam", loss, metrics=["accuracy"], jit_compile=False, **options)
    return model


def zeros_of(model):
    """Return the fraction of zeros in each kernel."""
    return {v.path.split("/")[-2]: float((np.asarray(v) == 0).mean()) for v in model.weights if v.name == "kernel"}


def test_zeros_are_exact_after_a_step_that_was_compiled_before():
    """The step of an earlier `fit` is compiled again with masks, and once more without."""
    x, y = trained_on()
    model = cnn()
    model.fit(x, y, epochs=2, verbose=0)
    names = [layer.name for layer in model.layers]
    with export.pruning(model, 0.8) as callback:
        history = model.fit(x, y, epochs=4, verbose=0, callbacks=[callback])
    found = zeros_of(model)
    assert found["conv"] == pytest.approx(0.8, abs=0.01)
    assert found["head"] == pytest.approx(0.8, abs=0.001)
    assert history.history["accuracy"][-1] > 0.9
    assert [layer.name for layer in model.layers] == names
    assert all(v.constraint is None for v in model.trainable_variables)
    model.fit(x[:64], y[:64], epochs=1, verbose=0)
    assert zeros_of(model)["head"] < 0.1


@pytest.mark.parametrize("options", [{"pattern": (2, 4), "skip": ("conv*",)}, {"scope": "global"}])
def test_other_zeros(options):
    """Two of four inputs, dense layers that are skipped, and one sparsity for all kernels."""
    x, y = trained_on()
    model = cnn()
    with export.pruning(model, 0.6, **options) as callback:
        model.fit(x, y, epochs=1, verbose=0, callbacks=[callback])
    found = zeros_of(model)
    if "pattern" in options:
        kernel = np.asarray(model.get_layer("head").kernel)
        assert ((kernel.reshape(-1, 4, 10) != 0).sum(1) <= 2).all()
        assert found["conv"] == 0
    else:
        sizes = {layer.name: layer.kernel.shape for layer in model.layers if hasattr(layer, "kernel")}
        counts = [found[name] * np.prod(shape) for name, shape in sizes.items()]
        assert sum(counts) / sum(np.prod(shape) for shape in sizes.values()) == pytest.approx(0.6, abs=0.01)


def test_zeros_reach_the_artifact(tmp_path):
    """The sparsity is read from the file, and batch normalization folded before keeps it."""
    x, y = trained_on()
    model = cnn()
    with export.pruning(model, 0.75) as callback:
        model.fit(x, y, epochs=1, verbose=0, callbacks=[callback])
    folded = export.fold_batch_norm(keras.Model(model.inputs, model.outputs))
    np.testing.assert_allclose(folded.predict(x[:9], verbose=0), model.predict(x[:9], verbose=0), atol=1e-4)
    (artifact,) = export.convert(folded, "tflite", calibration=(x, y), out=tmp_path / "out")
    assert export.inspect(artifact.path).total_sparsity > 0.6


def test_what_cannot_be_pruned_is_one_line():
    """Expected, received, and what to do."""
    x, y = trained_on()
    model = cnn()
    with pytest.raises(BadOption, match=r"sparsity must be at least 0 and below 1\. Received: sparsity=1\.5"):
        export.pruning(model, 1.5)
    with pytest.raises(BadOption, match=r"exclude each other\. Received: pattern=\(2, 4\)"):
        export.pruning(model, pattern=(2, 4), scope="global")
    plain = keras.Sequential([keras.Input((3,)), layers.Dense(2)])
    with pytest.raises(BadOption, match=r"Expected a compiled model"), export.pruning(plain):
        pass
    with (
        pytest.raises(ExportError, match=r"must take at least \d+ steps"),
        export.pruning(model, steps=1000) as callback,
    ):
        model.fit(x[:64], y[:64], epochs=1, verbose=0, callbacks=[callback])
