"""The model in training: the exported model, with auxiliary outputs, a teacher and constraints around it."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

from training.data.pipeline.pipeline import Pipeline
from training.learning.losses import class_weights
from training.learning.tasks import TASKS
from training.recipe.config import LossConfig
from training.recipe.recipe import Recipe
from zoo.common.lazy import keras

# The output that is evaluated, saved and exported.
LOGITS = "logits"
# A term of the loss: from inputs, labels and all outputs to a number, the mean over a batch.
Term = Callable[[Any, Any, dict[str, Any]], Any]


@dataclasses.dataclass
class StepHooks:
    """What is added to Keras' training step.

    Attributes:
        terms: added to the loss of the labels.
        change: changes a batch inside the step, (data) to (data), such as by augmentation; None for nothing.
        make_step: returns the compiled step of a model; Keras' own if None.
        wrappers: each takes the compiled step and returns the function that is called instead.
        inference_model: returns the model to evaluate and save; the model itself if None.
        evaluation_loss: the loss in evaluation, from labels and logits; that of training if None.
        head: the model of features that is called in the place of the whole, while a frozen trunk computes these once;
            None for the whole.
    """

    terms: list[Term] = dataclasses.field(default_factory=list)
    change: Callable[[Any], Any] | None = None
    make_step: Callable[[Any], Callable[..., Any]] | None = None
    wrappers: list[Callable[[Callable[..., Any]], Callable[..., Any]]] = dataclasses.field(default_factory=list)
    inference_model: Callable[[], Any] | None = None
    evaluation_loss: Callable[[Any, Any], Any] | None = None
    head: Any = None

    def changed(self, data: Any) -> Any:
        """Return a batch as the step takes it; features for the head are final."""
        return self.change(data) if self.change and not self.head else data

    def wrapped(self, step: Callable[..., Any]) -> Callable[..., Any]:
        """Return a compiled step with the wrappers around it."""
        for wrap in self.wrappers:
            step = wrap(step)
        return step

    def added(self, x: Any, y: Any, y_pred: Any) -> Any:
        """Return the sum of the terms."""
        outputs = y_pred if isinstance(y_pred, dict) else {LOGITS: y_pred}
        return sum(term(x, y, outputs) for term in self.terms)


@functools.cache
def training_model_class() -> Any:
    """Return the class TrainingModel(inputs, outputs, name); its base class is a heavy import."""

    class TrainingModel(keras.Model):
        """A functional model with hooks in its training step.

        Its loss in training is that of the logits plus the terms of its hooks and the regularizers; in evaluation it
        is that of `evaluation_loss`.

        Attributes:
            hooks: what is added to the step; change it before the first step.
        """

        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options)
            self.hooks = StepHooks()

        def __call__(self, *arguments: Any, **options: Any) -> Any:
            """Return the outputs of a batch of inputs, or of features for the head."""
            return (self.hooks.head or super().__call__)(*arguments, **options)

        def train_step(self, *arguments: Any) -> Any:
            """Change the batch, which is the last argument, and take Keras' step."""
            *state, data = arguments
            return super().train_step(*state, self.hooks.changed(data))

        def make_train_function(self, force: bool = False) -> None:
            """Compile the step and put the wrappers around it."""
            if self.train_function is not None and not force:
                return
            if self.hooks.make_step:
                self.train_function = self.hooks.make_step(self)
            else:
                super().make_train_function(force)
            self.train_function = self.hooks.wrapped(self.train_function)

        def compute_loss(
            self, x: Any = None, y: Any = None, y_pred: Any = None, sample_weight: Any = None, training: bool = True
        ) -> Any:
            """Return the loss of a batch."""
            if not training and self.hooks.evaluation_loss:
                return self.hooks.evaluation_loss(y, logits_of(y_pred))
            loss = super().compute_loss(x, y, logits_of(y_pred), sample_weight, training)
            return loss + self.hooks.added(x, y, y_pred) if training and self.hooks.terms else loss

        def compute_metrics(self, x: Any, y: Any, y_pred: Any, sample_weight: Any = None) -> Any:
            """Return the metrics of the logits."""
            return super().compute_metrics(x, y, logits_of(y_pred), sample_weight)

    return TrainingModel


def logits_of(outputs: Any) -> Any:
    """Return the logits of one output or of several by name."""
    return outputs[LOGITS] if isinstance(outputs, dict) else outputs


def as_training_model(model: Any) -> Any:
    """Return a functional model as a TrainingModel that shares its layers; one of them is returned as it is."""
    if isinstance(model, training_model_class()):
        return model
    # A Sequential has no `input` of its own.
    sequential = isinstance(model, keras.Sequential)
    inputs, outputs = (model.inputs[0], model.outputs[0]) if sequential else (model.input, model.output)
    trained = training_model_class()(inputs, outputs, name=model.name)
    trained.hooks.inference_model = lambda: model
    return trained


def inference_model(model: Any) -> Any:
    """Return the model to evaluate, save and export of a model in training, with its present weights."""
    hooks = getattr(model, "hooks", None)
    return hooks.inference_model() if hooks and hooks.inference_model else model


def label_loss(recipe: Recipe, pipeline: Pipeline) -> Callable[[Any, Any], Any]:
    """Return the loss of a recipe's labels, to `compile` or to call with labels and logits of a batch."""
    dataset = pipeline.dataset
    return TASKS[dataset.task].loss(recipe.loss, class_weights(recipe.loss, pipeline), dataset)


def evaluation_loss(pipeline: Pipeline) -> Any:
    """Return the Keras loss that evaluates a model, whatever it is trained on: the usual one of the task.

    It has no label smoothing, class weights or other terms, so that it can be compared between splits and recipes; see
    `training.learning.evaluators`.
    """
    dataset = pipeline.dataset
    loss = TASKS[dataset.task].loss(LossConfig(), None, dataset)
    return loss if isinstance(loss, keras.losses.Loss) else _of_function()(loss)


@functools.cache
def _of_function() -> Any:
    """Return the class of a Keras loss that calls a function."""

    class OfFunction(keras.losses.Loss):
        """The mean of a function of labels and outputs."""

        def __init__(self, function: Callable[[Any, Any], Any]) -> None:
            super().__init__(name="loss")
            self._function = function

        def call(self, labels: Any, outputs: Any) -> Any:
            return self._function(labels, outputs)

    return OfFunction


def add_variables(model: Any, variables: Sequence[Any]) -> None:
    """Add variables to a model, so that its checkpoints include them."""
    # Keras tracks the variables in an attribute.
    model.spectral_vectors = list(variables)
