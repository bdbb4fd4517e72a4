"""Take a training through the stages of its fine-tuning: which layers train, on what, and with which optimizer state.

The optimizer knows all weights in every stage, so that all checkpoints of a run have the same variables.
"""

from __future__ import annotations

from typing import Any

from training.data.pipeline.features import feature_pipeline
from training.data.pipeline.pipeline import Pipeline
from training.distributed.device import Device
from training.learning.trunk import freeze, split_model
from training.optim.optimizer import connect_optimizer, learning_rate, make_optimizer
from training.recipe.recipe import Recipe
from training.recipe.stages import ALL, HEAD, Stage, stage_recipe, stages_of
from zoo.common.lazy import tf


class Stages:
    """The stages of a training.

    Args:
        recipe: the recipe.
        model: its compiled and built TrainingModel.
        pipeline: its data.
        device: its device.

    Attributes:
        pipeline: the data of the present stage.
    """

    def __init__(self, recipe: Recipe, model: Any, pipeline: Pipeline, device: Device) -> None:
        self._recipe, self._model, self._device = recipe, model, device
        self._whole = self.pipeline = pipeline
        self._stages, self._present = stages_of(recipe) if recipe.finetune.stages else [], None

    @property
    def last(self) -> int:
        """Return the first epoch, from 0, of the last stage."""
        return self._stages[-1].start if self._stages else 0

    def enter(self, epoch: int, step: int) -> str:
        """Prepare the model for an epoch (from 0) after its first steps.

        Returns:
            A line on the stage that starts, "" if none does.
        """
        stage = next((s for s in self._stages if s.start <= epoch < s.end), None)
        if stage is None or stage == self._present:
            return ""
        self._unfreeze()
        present = _inner(self._model.optimizer)
        present.learning_rate = learning_rate(stage_recipe(self._recipe, stage), self._whole.steps_per_epoch)
        if epoch == stage.start and not step:
            for variable, first in zip(present.variables, self._optimizer(stage).variables, strict=True):
                variable.assign(first)
        freeze(self._model, stage.trains)
        # Keras adds the variables in other attributes to the state.
        vars(present)["trained"] = list(self._model.trainable_variables)
        self._feed(stage)
        self._forget_steps()
        self._present = stage
        return f"stage {self._stages.index(stage) + 1}/{len(self._stages)}: trains {stage.trains}"

    def leave(self) -> None:
        """Make the model a plain one again, after the last stage."""
        if self._present:
            self._unfreeze()
            self._forget_steps()
            self._present = None

    def _unfreeze(self) -> None:
        freeze(self._model, ALL)
        self._model.hooks.head, self.pipeline = None, self._whole

    def _optimizer(self, stage: Stage) -> Any:
        """Return a new optimizer for a stage, with the variables of the one that trains."""
        recipe, model = stage_recipe(self._recipe, stage), self._model
        with self._device.strategy.scope():
            made = make_optimizer(recipe, self._whole.steps_per_epoch, self._device.adapt_optimizer)
            connect_optimizer(made, model, recipe.optimizer)
            made.build(model.trainable_variables)
        return made

    def _feed(self, stage: Stage) -> None:
        """Feed features that are computed once to a stage of the head, if the recipe has views."""
        views = self._recipe.finetune.views
        if views and stage.trains == HEAD:
            trunk, self._model.hooks.head = split_model(self._model)
            compute = tf.function(lambda x: trunk(x, training=False), reduce_retracing=True, autograph=False)
            self.pipeline = feature_pipeline(self._whole, compute, views)

    def _forget_steps(self) -> None:
        """Compile the steps again."""
        self._model.train_function = self._model.test_function = None


def _inner(optimizer: Any) -> Any:
    """Return the optimizer inside of one that scales the loss."""
    return getattr(optimizer, "inner_optimizer", optimizer)
