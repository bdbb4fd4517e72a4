"""Distillation trains a student on its teacher's outputs."""

from __future__ import annotations

import numpy as np
import pytest

import zoo
from export.compression.distillation import Distillation, distill, distillation_model
from zoo.common.errors import BadOption
from zoo.common.lazy import keras


def test_a_student_trains_without_labels(digits, trained, accuracy):
    """With alpha 1 the labels, here all wrong, have no effect; with alpha 0 the student does not train."""
    import types

    teacher = trained(zoo.get("mlp_tiny", input_shape=(8, 8, 1)), 4)
    before = [np.asarray(v).copy() for v in teacher.weights]
    wrong = types.SimpleNamespace(x=digits.x, y=np.zeros_like(digits.y))

    def train(model, epochs, callbacks):
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(keras.optimizers.Adam(4e-3), loss, jit_compile=False)
        model.fit(wrong.x, wrong.y, batch_size=64, epochs=epochs, callbacks=callbacks, verbose=0)

    student = zoo.get("mlp_tiny", input_shape=(8, 8, 1))
    assert distill(teacher, student, Distillation(4.0, 1.0), train, epochs=6) is student
    assert accuracy(student) > 0.8
    control = zoo.get("mlp_tiny", input_shape=(8, 8, 1))
    distill(teacher, control, Distillation(4.0, 0.0), train, epochs=1)
    assert accuracy(control) < 0.3
    for old, new in zip(before, teacher.weights, strict=True):
        np.testing.assert_array_equal(old, new)


def test_student_alone_is_saved(tmp_path):
    """The teacher is neither trained nor saved; evaluation reports the loss of the labels."""
    teacher = zoo.get("mlp_tiny", input_shape=(8, 8, 1))
    student = zoo.get("mlp_tiny", input_shape=(8, 8, 1))
    model = distillation_model(teacher, student, Distillation())
    assert [v.path for v in model.weights] == [v.path for v in student.weights]
    assert model.trainable_weights[0] is student.trainable_weights[0]
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True), jit_compile=False)
    student.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True), jit_compile=False)
    x, y = np.random.default_rng(0).normal(size=(32, 8, 8, 1)), np.arange(32) % 10
    assert model.evaluate(x, y, verbose=0) == pytest.approx(student.evaluate(x, y, verbose=0), rel=1e-5)


def test_invalid_settings_are_refused():
    """Other classes, a temperature of 0, an alpha above 1."""
    teacher = zoo.get("mlp_tiny", input_shape=(8, 8, 1))
    with pytest.raises(BadOption, match="same inputs and classes"):
        distill(teacher, zoo.get("mlp_tiny", input_shape=(8, 8, 1), classes=3), Distillation(), print, epochs=1)
    for wrong in ((0.0, 0.5), (1.0, 1.5)):
        with pytest.raises(BadOption, match="Received"):
            Distillation(*wrong)
