"""The stages of fine-tuning: what each trains, when it starts, and its learning rate."""

from __future__ import annotations

import dataclasses
from typing import Any

from training.recipe.config import FinetuneConfig
from training.recipe.data_config import AugmentConfig
from training.recipe.limits import LBFGS
from zoo.common.errors import BadOption

# What a stage trains, beside the name of a layer or block.
HEAD, ALL = "head", "all"
# Batches of fewer examples give poor statistics of batch normalization.
SMALL = 64


@dataclasses.dataclass(frozen=True)
class Stage:
    """A stage of fine-tuning.

    Args:
        trains: "head", "all", or the first layer or block that is trained.
        start: its first epoch, from 0.
        end: the first epoch after it.
        learning_rate: its peak learning rate.
    """

    trains: str
    start: int
    end: int
    learning_rate: float


def stages_of(recipe: Any) -> list[Stage]:
    """Return the stages of a recipe in order; one of all layers if it states none."""
    config: FinetuneConfig = recipe.finetune
    names = config.stages or (ALL,)
    marks = (0, *config.milestones, recipe.epochs)
    rates = config.learning_rates or (recipe.optimizer.learning_rate,) * len(names)
    return [Stage(*values) for values in zip(names, marks[:-1], marks[1:], rates, strict=True)]


def stage_recipe(recipe: Any, stage: Stage) -> Any:
    """Return the recipe of a stage alone, from which its schedule is made."""
    optimizer = dataclasses.replace(recipe.optimizer, learning_rate=stage.learning_rate)
    finetune = dataclasses.replace(recipe.finetune, stages=(stage.trains,), milestones=(), learning_rates=(), views=0)
    return dataclasses.replace(recipe, epochs=stage.end - stage.start, optimizer=optimizer, finetune=finetune)


def freezes_batch_norm(recipe: Any) -> bool:
    """Return whether layers that are trained keep the pretrained statistics of batch normalization."""
    small = bool(recipe.finetune.stages) and recipe.data.batch_size < SMALL
    return {"on": True, "off": False, "auto": small}[recipe.finetune.freeze_batch_norm]


def check_pretrained(recipe: Any) -> None:
    """Raise BadOption for stages of fine-tuning without pretrained weights."""
    if recipe.finetune.stages and not recipe.model.weights:
        raise BadOption(
            "Fine-tuning needs pretrained weights. Received: model.weights=''. Set model.weights=imagenet, or the path "
            "of a file; to train from random weights, use another recipe, or set finetune.stages=[]."
        )


def check_finetune(recipe: Any) -> None:
    """Raise BadOption for stages that contradict each other or the rest of a recipe."""
    config: FinetuneConfig = recipe.finetune
    _check_lists(config, recipe.epochs)
    _check_views(recipe)
    if config.stages and recipe.optimizer.name.lower() == LBFGS:
        raise BadOption(
            f"Stages need a stochastic optimizer. Received: finetune.stages={list(config.stages)}, "
            f"optimizer.name={recipe.optimizer.name}. Leave one out."
        )
    warmup = recipe.schedule.warmup_epochs
    shortest = min(stage.end - stage.start for stage in stages_of(recipe))
    if config.stages and warmup and warmup >= shortest:
        raise BadOption(
            "schedule.warmup_epochs must be less than each stage. Received: "
            f"schedule.warmup_epochs={warmup}, a stage of {shortest} epochs. Shorten the warm-up."
        )


def _check_lists(config: FinetuneConfig, epochs: int) -> None:
    stages, marks, rates = config.stages, config.milestones, config.learning_rates
    if not all(stages) or len(marks) != max(0, len(stages) - 1):
        raise BadOption(
            "finetune.stages must be names, and finetune.milestones the epochs between them. "
            f"Received: finetune.stages={list(stages)}, finetune.milestones={list(marks)}. "
            "Give one milestone less than stages."
        )
    if list(marks) != sorted(set(marks)) or (marks and not 0 < marks[0] <= marks[-1] < epochs):
        raise BadOption(
            f"finetune.milestones must be increasing epochs above 0 and below epochs={epochs}. "
            f"Received: finetune.milestones={list(marks)}. Change one of them."
        )
    if rates and (len(rates) != len(stages) or min(rates) <= 0):
        raise BadOption(
            "finetune.learning_rates must be one number above 0 for each stage. Received: "
            f"finetune.learning_rates={list(rates)}, finetune.stages={list(stages)}. Change one of them."
        )


def _check_views(recipe: Any) -> None:
    config: FinetuneConfig = recipe.finetune
    if not config.views:
        return
    received = f"Received: finetune.views={config.views}"
    if HEAD not in config.stages:
        raise BadOption(f"finetune.views needs a stage of the head. {received}, finetune.stages={list(config.stages)}.")
    if config.views > 1 and recipe.data.augment == AugmentConfig():
        raise BadOption(f"Views differ by data.augment alone. {received} without augmentation. Set finetune.views=1.")
    if recipe.teacher:
        raise BadOption(f"A teacher needs the images. {received}, teacher. Set finetune.views=0.")
