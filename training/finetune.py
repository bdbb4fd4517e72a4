"""Training on: a network that was changed learns a while longer from its recipe's data, in float32 on one device."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from training.checkpoints.files import Progress, load_checkpoint, save_checkpoint
from training.common.finite import check_finite, check_weights
from training.data.pipeline.pipeline import Pipeline
from training.learning.build import compile_model
from training.optim.ema import put_average
from training.optim.lbfgs import is_asked
from training.recipe.recipe import Recipe
from zoo.common.errors import BadOption


def shorten(recipe: Recipe, epochs: int, rate: float) -> Recipe:
    """Return a recipe for so many epochs at a share `rate` of its learning rate, its schedule as much shorter."""
    share, given = epochs / recipe.epochs, recipe.schedule
    schedule = dataclasses.replace(
        given,
        warmup_epochs=min(given.warmup_epochs, epochs / 10),
        milestones=tuple(mark * share for mark in given.milestones),
        period=given.period * share,
    )
    optimizer = dataclasses.replace(recipe.optimizer, learning_rate=recipe.optimizer.learning_rate * rate)
    return dataclasses.replace(recipe, epochs=epochs, schedule=schedule, optimizer=optimizer)


def finetune(
    network: Any, recipe: Recipe, pipeline: Pipeline, *, state: Path, callbacks: Sequence[Any] = ()
) -> dict[str, Any]:
    """Train a network with a recipe's data, loss, optimizer and seed; it is left with the weights of the end.

    Args:
        network: a network for the recipe's data, of any architecture.
        recipe: how; see `shorten`.
        pipeline: the recipe's data.
        state: a file that holds where training stands after each epoch. If it is there, training goes on from it.
        callbacks: Keras callbacks for the steps.

    Returns:
        The figures of the last epoch.

    Raises:
        BadOption: the recipe asks for L-BFGS.
        TrainingError: the loss, or a weight, is not finite.
        RunError: the state cannot be read or written.
    """
    if is_asked(recipe):
        raise BadOption(
            "Training on takes one batch after the other. Received: a recipe with "
            f"optimizer.name={recipe.optimizer.name}. Start from a run of another optimizer."
        )
    compile_model(network, recipe, pipeline, jit_compile=False)
    network.optimizer.build(network.trainable_variables)
    progress = load_checkpoint(state, network) if state.is_file() else Progress()
    figures: dict[str, Any] = {}
    for epoch in range(progress.epoch, recipe.epochs):
        history = network.fit(
            pipeline.train(epoch),
            initial_epoch=epoch,
            epochs=epoch + 1,
            shuffle=False,
            verbose=0,
            callbacks=list(callbacks),
        )
        figures = {name: float(values[-1]) for name, values in history.history.items()}
        check_finite(figures["loss"], network, epoch, pipeline.steps_per_epoch)
        check_weights(network, epoch, pipeline.steps_per_epoch)
        save_checkpoint(state, network, Progress(epoch=epoch + 1))
    put_average(network)
    return figures
