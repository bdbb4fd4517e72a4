"""A student learns from its teacher's answers, and only from them where it is told so."""

from __future__ import annotations

import numpy as np
import pytest

import zoo
from export.compression.distillation import Distillation, distil, distilling
from zoo.common.errors import BadOption
from zoo.common.lazy import keras


def test_student_learns_without_labels(digits, trained, accuracy):
    """With alpha 1 the labels, here all wrong, do not matter: the teacher teaches; without it nothing is learnt."""
    import types

    teacher = trained(zoo.get("mlp_tiny", input_shape=(8, 8, 1)), 8)
    before = [np.asarray(v).copy() for v in teacher.weights]
    wrong = types.SimpleNamespace(x=digits.x, y=np.zeros_like(digits.y))

    def train(network, epochs, callbacks):
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        network.compile(keras.optimizers.Adam(2e-3), loss, jit_compile=False)
        network.fit(wrong.x, wrong.y, batch_size=64, epochs=epochs, callbacks=callbacks, verbose=0)

    student = zoo.get("mlp_tiny", input_shape=(8, 8, 1))
    assert distil(teacher, student, Distillation(4.0, 1.0), train, epochs=15) is student
    assert accuracy(student) > 0.8
    control = zoo.get("mlp_tiny", input_shape=(8, 8, 1))
    distil(teacher, control, Distillation(4.0, 0.0), train, epochs=2)
    assert accuracy(control) < 0.3
    for old, new in zip(before, teacher.weights, strict=True):
        np.testing.assert_array_equal(old, new)


def test_student_alone_is_saved(tmp_path):
    """The teacher is no part of what trains; what evaluation reports is the loss of the labels."""
    teacher = zoo.get("mlp_tiny", input_shape=(8, 8, 1))
    student = zoo.get("mlp_tiny", input_shape=(8, 8, 1))
    network = distilling(teacher, student, Distillation())
    assert [v.path for v in network.weights] == [v.path for v in student.weights]
    assert network.trainable_weights[0] is student.trainable_weights[0]
    network.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True), jit_compile=False)
    student.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True), jit_compile=False)
    x, y = np.random.default_rng(0).normal(size=(32, 8, 8, 1)), np.arange(32) % 10
    assert network.evaluate(x, y, verbose=0) == pytest.approx(student.evaluate(x, y, verbose=0), rel=1e-5)


def test_what_does_not_fit_is_refused():
    """Other classes, a temperature of 0, a share above 1."""
    teacher = zoo.get("mlp_tiny", input_shape=(8, 8, 1))
    with pytest.raises(BadOption, match="same inputs and classes"):
        distil(teacher, zoo.get("mlp_tiny", input_shape=(8, 8, 1), classes=3), Distillation(), print, epochs=1)
    for wrong in ((0.0, 0.5), (1.0, 1.5)):
        with pytest.raises(BadOption, match="Received"):
            Distillation(*wrong)
