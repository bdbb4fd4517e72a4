"""Distillation: train a small model on the outputs of a large one (Hinton et al. 2015, arXiv:1503.02531)."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from training.learning.distillation import divergence
from training.learning.training_model import training_model_class
from zoo.common.errors import BadOption
from zoo.common.lazy import keras

if TYPE_CHECKING:
    import keras as _keras


@dataclasses.dataclass(frozen=True)
class Distillation:
    """The loss of the student.

    loss = alpha * T² * KL(softmax(teacher / T) || softmax(student / T)) + (1 - alpha) * loss of the labels

    Args:
        temperature: T, above 0; above 1 it raises the probabilities of the classes that the teacher finds similar.
        alpha: weight of the teacher, from 0 to 1.
    """

    temperature: float = 4.0
    alpha: float = 0.7

    def __post_init__(self) -> None:
        if not (self.temperature > 0 and 0 <= self.alpha <= 1):
            raise BadOption(
                "temperature must be above 0 and alpha from 0 to 1. "
                f"Received: temperature={self.temperature}, alpha={self.alpha}"
            )


def distill(
    teacher: _keras.Model,
    student: _keras.Model,
    distillation: Distillation,
    train: Callable[[Any, int, list[Any]], Any],
    *,
    epochs: int,
) -> _keras.Model:
    """Train a student on a teacher's outputs and return it.

    Args:
        teacher: a trained model, inputs (n, *shape) to logits (n, classes); it is not changed.
        student: a functional model with the same inputs and classes.
        distillation: the loss.
        train: compiles and trains a model, `train(model, epochs, callbacks)`.
        epochs: number of epochs.

    Raises:
        BadOption: inputs or classes of the two differ.
    """
    if (teacher.input_shape, teacher.output_shape) != (student.input_shape, student.output_shape):
        raise BadOption(
            "Teacher and student must have the same inputs and classes. "
            f"Received: {teacher.name}: {teacher.input_shape} to {teacher.output_shape}, "
            f"{student.name}: {student.input_shape} to {student.output_shape}"
        )
    train(distillation_model(teacher, student, distillation), epochs, [])
    return student


def distillation_model(teacher: _keras.Model, student: _keras.Model, distillation: Distillation) -> _keras.Model:
    """Return a training model that shares the student's layers and adds the distillation loss.

    The compiled loss is that of the labels; evaluation uses only that one.
    """
    # As an attribute, the teacher would be trained and saved with the model.
    predict = functools.partial(teacher, training=False)

    class Student(training_model_class()):
        """A model with the distillation loss."""

        def compute_loss(
            self, x: Any = None, y: Any = None, y_pred: Any = None, sample_weight: Any = None, training: bool = True
        ) -> Any:
            """Return the loss of a batch."""
            label_loss = super().compute_loss(x, y, y_pred, sample_weight, training)
            if not training:
                return label_loss
            logits = keras.ops.stop_gradient(predict(x))
            teacher_loss = divergence(logits, y_pred, distillation.temperature)
            return (1 - distillation.alpha) * label_loss + distillation.alpha * teacher_loss

    return Student(student.input, student.output, name=student.name)
