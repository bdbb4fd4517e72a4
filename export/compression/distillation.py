"""Distillation: a small network learns from the answers of a large one (Hinton et al. 2015, arXiv:1503.02531)."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from training.learning.distillation import divergence
from zoo.common.errors import BadOption
from zoo.common.lazy import keras

if TYPE_CHECKING:
    import keras as _keras


@dataclasses.dataclass(frozen=True)
class Distillation:
    """How much the student listens to the teacher.

    loss = alpha * T² * KL(softmax(teacher / T) || softmax(student / T)) + (1 - alpha) * loss of the labels

    Args:
        temperature: T, above 0; above 1 it shows which wrong answers the teacher finds near.
        alpha: share of the teacher, from 0 to 1.
    """

    temperature: float = 4.0
    alpha: float = 0.7

    def __post_init__(self) -> None:
        if not (self.temperature > 0 and 0 <= self.alpha <= 1):
            raise BadOption(
                "temperature must be above 0 and alpha from 0 to 1. "
                f"Received: temperature={self.temperature}, alpha={self.alpha}"
            )


def distil(
    teacher: _keras.Model,
    student: _keras.Model,
    distillation: Distillation,
    train: Callable[[Any, int, list[Any]], Any],
    *,
    epochs: int,
) -> _keras.Model:
    """Train a student by a teacher's answers and return it.

    Args:
        teacher: a trained network, inputs (n, *shape) to logits (n, classes); it stays as it is.
        student: a functional network of the same inputs and classes.
        distillation: how.
        train: compiles and trains a network, `train(network, epochs, callbacks)`.
        epochs: how long.

    Raises:
        BadOption: the two do not fit together.
    """
    if (teacher.input_shape, teacher.output_shape) != (student.input_shape, student.output_shape):
        raise BadOption(
            "Teacher and student must have the same inputs and classes. "
            f"Received: {teacher.name}: {teacher.input_shape} to {teacher.output_shape}, "
            f"{student.name}: {student.input_shape} to {student.output_shape}"
        )
    train(distilling(teacher, student, distillation), epochs, [])
    return student


def distilling(teacher: _keras.Model, student: _keras.Model, distillation: Distillation) -> _keras.Model:
    """Return the student as a network, its layers shared, whose loss in training is that of `Distillation`.

    The loss it is compiled with is that of the labels; in evaluation it is the only one.
    """
    # As an attribute the teacher would be part of what is trained and saved.
    ask = functools.partial(teacher, training=False)

    class Student(keras.Model):
        """A network that learns from another."""

        def compute_loss(
            self, x: Any = None, y: Any = None, y_pred: Any = None, sample_weight: Any = None, training: bool = True
        ) -> Any:
            """Return the loss of a batch."""
            own = super().compute_loss(x, y, y_pred, sample_weight, training)
            if not training:
                return own
            answers = keras.ops.stop_gradient(ask(x))
            taught = divergence(answers, y_pred, distillation.temperature)
            return (1 - distillation.alpha) * own + distillation.alpha * taught

    return Student(student.input, student.output, name=student.name)
