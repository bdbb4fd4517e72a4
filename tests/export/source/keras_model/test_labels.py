"""Labels with the examples of a user's Keras model: what they show of its outputs, and the metric that decides."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from sklearn.datasets import load_breast_cancer

import export
from export.source.keras_model.keras_source import _shown_by_labels
from export.verification.measures import measure_of
from zoo.common.errors import DataError

X, Y = load_breast_cancer(return_X_y=True)
X = ((X - X.mean(0)) / X.std(0)).astype("float32")
SEVERAL = np.stack([Y, X[:, 0] > 0, X[:, 1] > 0], axis=1).astype("float32")
NUMBERS = (3 * X[:, 0] + 1).astype("float32")
LOGITS = keras.losses.BinaryCrossentropy(from_logits=True)
# Labels, the last activation and the loss; the task and the metric, and its least value of the trained model.
CASES = {
    "sigmoid": (Y, "sigmoid", "binary_crossentropy", "binary", "accuracy", 0.9),
    "a column of floats": (Y[:, None].astype("float32"), "sigmoid", "binary_crossentropy", "binary", "accuracy", 0.9),
    "truth values": (Y.astype(bool), "sigmoid", "binary_crossentropy", "binary", "accuracy", 0.9),
    "logit": (Y, None, LOGITS, "binary", "accuracy", 0.9),
    "several labels": (SEVERAL, "sigmoid", "binary_crossentropy", "binary", "accuracy", 0.9),
    "one-hot": (np.eye(2, dtype="float32")[Y], None, "mse", "classify", "accuracy", 0.9),
    "numbers": (NUMBERS, None, "mse", "numeric", "r2", 0.7),
}


def trained(labels, activation, loss):
    """A small model."""
    keras.utils.set_random_seed(0)
    width = labels.shape[-1] if labels.ndim == 2 else 1
    model = keras.Sequential(
        [keras.Input((30,)), keras.layers.Dense(16, "relu"), keras.layers.Dense(width, activation)], name="small"
    )
    model.compile(keras.optimizers.Adam(0.01), loss, jit_compile=False)
    model.fit(X, labels, epochs=12, verbose=0)
    return model


@pytest.mark.parametrize("name", CASES)
def test_labels_are_compared(name, tmp_path):
    """The metric is that of Keras on the same examples, its loss is known, and verification measures it again."""
    labels, activation, loss, task, metric, least = CASES[name]
    model = trained(labels, activation, loss)
    (artifact,) = export.convert(model, "onnx_int8", calibration=(X, labels), out=tmp_path)
    parity = artifact.parity
    assert (artifact.manifest["metadata"]["task"], parity["metric"]) == (task, metric)
    assert parity["source_accuracy"] > least
    assert abs(parity["drop"]) < 0.03
    tail = slice(-parity["n"], None)
    predicted = model.predict(X[tail], verbose=0)
    if task == "binary":
        right = (predicted > (0.5 if activation else 0)) == (labels[tail].reshape(predicted.shape) > 0.5)
        assert parity["source_accuracy"] == pytest.approx(right.mean())
    again = export.verify(artifact.path).parity
    assert (again["metric"], again["accuracy"]) == (metric, parity["accuracy"])


def test_a_loss_of_accuracy_is_measured():
    """Control: outputs on the other side of the border cost what Keras' accuracy would lose."""
    measure = measure_of("binary")
    labels = np.tile([[0.0], [1.0]], (100, 1))
    source = np.where(labels > 0.5, 0.9, 0.1)
    outputs = source.copy()
    outputs[:20] = 1 - outputs[:20]
    found = measure.compare(outputs, source, labels)
    assert (found["source_accuracy"], found["accuracy"], found["agreement"]) == (1.0, 0.9, 0.9)
    assert found["drop"] == pytest.approx(0.1)
    logits = measure.compare(10 * outputs - 5, 10 * source - 5, labels)
    assert (logits["accuracy"], logits["drop"]) == (0.9, pytest.approx(0.1))


@pytest.mark.parametrize(("labels", "width", "sigmoid", "task"), [
    (np.array([0, 1, 1, 0]), 1, True, "binary"),
    (np.array([0, 1, 1, 0]), 1, False, "binary"),
    (np.array([0, 3, 1, 2]), 4, False, "classify"),
    (np.array([[0, 1], [1, 0]]), 2, False, "classify"),
    (np.array([[0, 1], [1, 0]]), 2, True, "binary"),
    (np.array([[1, 1], [1, 0]]), 2, False, "binary"),
    (np.array([0.5, 2.0]), 1, False, "numeric"),
    (np.array([[5, 2], [1, 7]]), 2, False, "numeric"),
    (np.array([0.5, 2.0]), 3, False, "any"),
    (np.zeros((4, 5)), 3, False, "any"),
])  # fmt: skip
def test_the_task_that_labels_show(labels, width, sigmoid, task):
    """By their shape and values, and by a sigmoid; labels that fit no output are not compared."""
    assert _shown_by_labels(labels, width, sigmoid) == task


def test_labels_of_a_stated_task_must_fit(tmp_path):
    """One line."""
    model = trained(Y, "sigmoid", "binary_crossentropy")
    with pytest.raises(DataError, match=r"Labels must be numbers, 1 for each example\. Received: shape=\(569, 3\)"):
        export.convert(model, "onnx", calibration=(X, SEVERAL), out=tmp_path, options={"task": "binary"})
