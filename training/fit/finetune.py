"""Fine-tune a modified model on the data of its recipe, in float32 on one device."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from training.checkpoints.files import Progress, load_checkpoint, save_checkpoint
from training.common.finite import check_finite, check_weights
from training.data.pipeline.pipeline import Pipeline
from training.learning.build import compile_model
from training.learning.training_model import as_training_model
from training.optim.ema import assign_averages
from training.optim.lbfgs import is_lbfgs
from training.recipe.config import FinetuneConfig
from training.recipe.recipe import Recipe
from zoo.common.errors import BadOption


def shorten(recipe: Recipe, epochs: int, rate: float) -> Recipe:
    """Return a recipe with other epochs, a scaled schedule, and a fraction `rate` of its learning rate."""
    fraction, schedule = epochs / recipe.epochs, recipe.schedule
    schedule = dataclasses.replace(
        schedule,
        warmup_epochs=min(schedule.warmup_epochs, epochs / 10),
        milestones=tuple(mark * fraction for mark in schedule.milestones),
        period=schedule.period * fraction,
    )
    optimizer = dataclasses.replace(recipe.optimizer, learning_rate=recipe.optimizer.learning_rate * rate)
    return dataclasses.replace(recipe, epochs=epochs, schedule=schedule, optimizer=optimizer, finetune=FinetuneConfig())


def finetune(
    model: Any, recipe: Recipe, pipeline: Pipeline, *, state: Path, callbacks: Sequence[Any] = ()
) -> dict[str, Any]:
    """Train a model with a recipe's data, loss, optimizer and seed, in place.

    Args:
        model: a functional model for the recipe's data, of any architecture; at the end it has the final weights.
        recipe: the recipe; see `shorten`.
        pipeline: the recipe's data.
        state: a checkpoint, written after each epoch. Training resumes from it if it exists.
        callbacks: Keras callbacks for the steps.

    Returns:
        The metrics of the last epoch.

    Raises:
        BadOption: the recipe uses L-BFGS.
        TrainingError: the loss, or a weight, is not finite.
        RunError: the checkpoint cannot be read or written.
    """
    if is_lbfgs(recipe):
        raise BadOption(
            "Fine-tuning needs a stochastic optimizer. Received: a recipe with "
            f"optimizer.name={recipe.optimizer.name}. Start from a run of another optimizer."
        )
    trained = as_training_model(model)
    compile_model(trained, recipe, pipeline, jit_compile=False)
    trained.optimizer.build(trained.trainable_variables)
    progress = load_checkpoint(state, trained) if state.is_file() else Progress()
    metrics: dict[str, Any] = {}
    for epoch in range(progress.epoch, recipe.epochs):
        history = trained.fit(
            pipeline.train(epoch),
            initial_epoch=epoch,
            epochs=epoch + 1,
            shuffle=False,
            verbose=0,
            callbacks=list(callbacks),
        )
        metrics = {name: float(values[-1]) for name, values in history.history.items()}
        check_finite(metrics["loss"], trained, epoch, pipeline.steps_per_epoch)
        check_weights(trained, epoch, pipeline.steps_per_epoch)
        save_checkpoint(state, trained, Progress(epoch=epoch + 1))
    assign_averages(trained)
    return metrics
