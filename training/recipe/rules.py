"""Rules for lists of a recipe and for fields that depend on each other.

A rule is written once, here. Functions that receive a recipe rely on it; those that receive a config call its `check_`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from training.recipe.config import LossConfig, OptimizerConfig, ScheduleConfig, TeacherConfig
from training.recipe.limits import ALIASES, LBFGS, MOMENTS, OPTIMIZERS, ROUTED
from training.recipe.stages import check_finetune
from zoo.common.errors import BadOption
from zoo.specs.preprocessing import PreprocessingConfig
from zoo.specs.tasks import TASKS

# The keys that each schedule uses, and those of which it needs exactly one.
SCHEDULE_KEYS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "constant": ((), ()),
    "cosine": (("end",), ()),
    "step": (("milestones", "period", "factor"), ("milestones", "period")),
    "exponential": (("period", "factor"), ("period",)),
    "polynomial": (("end", "power"), ()),
    "cosine_restarts": (("end", "period", "factor"), ("period",)),
    "one_cycle": (("end",), ()),
    "coslog4": ((), ()),
    "inverse_sqrt": ((), ()),
}
# Schedules with a warm-up of their own, and those that start from one.
OWN_WARMUP, NEEDS_WARMUP = ("one_cycle", "coslog4"), ("inverse_sqrt",)
# Tasks of one of several targets.
TARGET_TASKS = tuple(name for name, kind in TASKS.items() if kind.single or kind.marks)
# The loss that has a key.
LOSS_KEYS = {"gamma": "focal", "delta": "huber"}


def check_rules(recipe: Any) -> None:
    """Raise BadOption for a list of the wrong form, or fields that contradict each other."""
    for rule in RULES:
        rule(recipe)


def check_fractions(fractions: Sequence[float]) -> tuple[float, ...]:
    """Return the fractions of training, validation and test examples, or raise BadOption."""
    whole = (*fractions, 0.0) if len(fractions) == 2 else tuple(fractions)
    if len(whole) != 3 or min(whole) < 0 or min(whole[:2]) == 0 or abs(math.fsum(whole) - 1) > 1e-6:
        raise BadOption(
            "data.split_fractions must be [training, validation] or [training, validation, test], which add up to 1, "
            f"such as [0.8, 0.1, 0.1]. Received: data.split_fractions={list(fractions)}"
        )
    return whole


def _check_data(recipe: Any) -> None:
    data = recipe.data
    for name in ("image_size", "train_size"):
        size = getattr(data, name)
        if size and (len(size) != 2 or min(size) < 1):
            raise BadOption(f"data.{name} must be [height, width]. Received: data.{name}={list(size)}")
    if data.length and (len(data.length) > 2 or min(data.length) < 1):
        raise BadOption(
            "data.length must be [tokens] or [source tokens, target tokens], at least 1 each. "
            f"Received: data.length={list(data.length)}"
        )
    if data.split_fractions:
        check_fractions(data.split_fractions)
    given, plain = data.preprocessing, PreprocessingConfig()
    if given and given.channel_order != plain.channel_order:
        raise BadOption(
            "A model in training takes RGB. Received: data.preprocessing.channel_order='bgr', which describes a file. "
            "Save the weights with zoo.save_weights(zoo.get(model, weights=file, preprocessing='caffe'), path) first."
        )
    if data.normalize and given and (given.mean, given.std) != (plain.mean, plain.std):
        raise BadOption(
            "data.normalize computes what data.preprocessing.mean and std set. "
            f"Received: data.normalize={data.normalize!r}, mean={given.mean}, std={given.std}. Leave one out."
        )


def _check_columns(recipe: Any) -> None:
    data = recipe.data
    targets = [data.target] * bool(data.target) if isinstance(data.target, str) else list(data.target)
    for name, what, found in (("columns", "feature", data.columns), ("target", "target", targets)):
        if any(not column or found.count(column) > 1 for column in found):
            raise BadOption(f"data.{name} must be different {what} columns. Received: data.{name}={list(found)}")
    _check_tasks(data.tasks, targets)
    if set(targets) & set(data.columns):
        raise BadOption(
            "data.columns must be different feature columns, without the target. "
            f"Received: data.columns={list(data.columns)}, data.target={data.target!r}"
        )


def _check_tasks(tasks: Mapping[str, str], targets: Sequence[str]) -> None:
    for name, task in tasks.items():
        if name not in targets or len(targets) < 2:
            raise BadOption(
                f"data.tasks must name some of several data.target. Received: data.tasks.{name}={task!r}, data.target="
                f"{list(targets)}. Use data.task for a single one."
            )
        if task not in TARGET_TASKS:
            raise BadOption(
                f"data.tasks.{name} must be one of {', '.join(TARGET_TASKS)}. Received: data.tasks.{name}={task!r}"
            )


def _check_augment(recipe: Any) -> None:
    augment = recipe.data.augment
    _check_bounds("crop_scale", augment.crop_scale, 1.0)
    _check_bounds("crop_ratio", augment.crop_ratio or (0.0,), math.inf)
    if augment.repeats > recipe.data.batch_size:
        raise BadOption(
            "A batch holds each image data.augment.repeats times. Received: data.augment.repeats="
            f"{augment.repeats}, data.batch_size={recipe.data.batch_size}. Change one of them."
        )


def _check_bounds(name: str, values: tuple[float, ...], most: float) -> None:
    if values and not (len(values) == 2 and 0 < values[0] <= values[1] <= most):
        limit = "above 0" if most == math.inf else f"above 0 and up to {most:g}"
        raise BadOption(
            f"data.augment.{name} must be [smallest, largest], {limit}. Received: data.augment.{name}={list(values)}"
        )


def _check_optimizer(recipe: Any) -> None:
    config: OptimizerConfig = recipe.optimizer
    name = config.name.lower()
    if name == LBFGS:
        return
    if name in ALIASES and not config.momentum:
        raise BadOption(
            f"optimizer.name={config.name} needs momentum above 0. Received: optimizer.momentum=0.0. "
            "Set optimizer.momentum=0.9."
        )
    for key in MOMENTS:
        if getattr(config, key) and key not in OPTIMIZERS.get(name, ()):
            users = ", ".join(other for other, keys in OPTIMIZERS.items() if key in keys)
            raise BadOption(
                f"{config.name} has no {key}. Received: optimizer.{key}={getattr(config, key)}. "
                f"Leave it at 0, or use {users}."
            )
    clips = {key: getattr(config, key) for key in ("clip_norm", "clip_each", "clip_value") if getattr(config, key)}
    if len(clips) > 1:
        shown = ", ".join(f"optimizer.{key}={value}" for key, value in clips.items())
        raise BadOption(f"Expected at most one kind of gradient clipping. Received: {shown}. Leave one of them.")


def _check_schedule(recipe: Any) -> None:
    config: ScheduleConfig = recipe.schedule
    _check_milestones(config)
    if recipe.optimizer.name.lower() != LBFGS:
        check_schedule_keys(config)
        check_warmup(config, recipe.epochs, config.warmup_epochs, recipe.epochs)


def _check_milestones(config: ScheduleConfig) -> None:
    marks = config.milestones
    if any(mark <= 0 for mark in marks) or list(marks) != sorted(set(marks)):
        raise BadOption(
            f"schedule.milestones must be increasing epochs above 0. Received: schedule.milestones={list(marks)}"
        )


def check_warmup(config: ScheduleConfig, epochs: int, warmup: float, total: float) -> None:
    """Raise BadOption for a warm-up as long as the training, or one that the schedule lacks or already has.

    Args:
        config: the schedule.
        epochs: epochs of the training.
        warmup: length of the warm-up, in epochs or in updates.
        total: length of the training, in the same unit.
    """
    received = f"Received: schedule.warmup_epochs={config.warmup_epochs}"
    if warmup and warmup >= total:
        raise BadOption(f"schedule.warmup_epochs must be less than epochs={epochs}. {received}")
    if config.name in OWN_WARMUP and warmup:
        raise BadOption(f"schedule.name={config.name} has its own warm-up. {received}. Leave it at 0.")
    if config.name in NEEDS_WARMUP and not warmup:
        raise BadOption(
            f"schedule.name={config.name} needs a warm-up of at least one step. {received}. "
            "Set schedule.warmup_epochs=1."
        )


def check_schedule_keys(config: ScheduleConfig) -> None:
    """Raise BadOption for a key that the schedule does not use, or for a missing one."""
    _check_milestones(config)
    uses, needs = SCHEDULE_KEYS[config.name]
    for key in ("end", "milestones", "period", "factor", "power"):
        value = getattr(config, key)
        if key not in uses and value != getattr(ScheduleConfig(), key):
            users = ", ".join(name for name, (used, _) in SCHEDULE_KEYS.items() if key in used)
            raise BadOption(
                f"schedule.name={config.name} does not use schedule.{key}. Received: schedule.{key}={value}. "
                f"Leave it out, or use {users}."
            )
    if needs and sum(bool(getattr(config, key)) for key in needs) != 1:
        keys = " or ".join(f"schedule.{key}" for key in needs) + ", in epochs" + " and not both" * (len(needs) > 1)
        received = ", ".join(f"schedule.{key}={getattr(config, key)}" for key in needs)
        raise BadOption(f"schedule.name={config.name} needs {keys}. Received: {received}")


def _check_loss(recipe: Any) -> None:
    config: LossConfig = recipe.loss
    check_loss_keys(config)
    check_class_weight(config)
    for name, weight in config.heads.items():
        if type(weight) not in (int, float) or weight < 0:
            raise BadOption(f"loss.heads.{name} must be a number of at least 0. Received: loss.heads.{name}={weight!r}")


def check_loss_keys(config: LossConfig) -> None:
    """Raise BadOption for a key of another loss."""
    for key, owner in LOSS_KEYS.items():
        value = getattr(config, key)
        if config.name != owner and value != getattr(LossConfig(), key):
            raise BadOption(
                f"loss.{key} applies to loss.name={owner}. Received: loss.{key}={value}, loss.name={config.name}. "
                "Leave it out."
            )


def check_class_weight(config: LossConfig, labels: Sequence[str] = ()) -> None:
    """Raise BadOption for class weights that are set twice, below 0, all 0, or not one for each label, if known."""
    weights = config.class_weight
    if weights and config.balanced:
        raise BadOption(
            "Expected loss.class_weight or loss.balanced. Received: both: "
            f"loss.class_weight={list(weights)}, loss.balanced=True. Leave one out."
        )
    if weights and (min(weights) < 0 or not max(weights) > 0 or len(labels or weights) != len(weights)):
        count, each = (f"{len(labels)} ", f"one for each of {_shown(labels)}, ") if labels else ("", "")
        raise BadOption(
            f"loss.class_weight needs {count}numbers of at least 0, {each}not all of them 0. "
            f"Received: loss.class_weight={list(weights)}. Give each class a weight."
        )


def _shown(labels: Sequence[str]) -> str:
    return ", ".join(labels[:5]) + ("" if len(labels) <= 5 else ", …")


def _check_regularize(recipe: Any) -> None:
    for key in ROUTED:
        value = getattr(recipe.regularize, key)
        if value and key in recipe.model.options:
            raise BadOption(
                f"{key} is given twice. Received: regularize.{key}={value}, "
                f"model.options.{key}={recipe.model.options[key]}. Leave one out."
            )
    if recipe.regularize.spectral_norm and recipe.optimizer.ema:
        raise BadOption(
            "An average of normalized kernels is not normalized. Received: regularize.spectral_norm=True, "
            f"optimizer.ema={recipe.optimizer.ema}. Leave one out."
        )


def _check_teacher(recipe: Any) -> None:
    config: TeacherConfig | None = recipe.teacher
    if config is None:
        return
    if bool(config.run) == bool(config.model):
        raise BadOption(
            "A teacher is either a run or a registered model. "
            f"Received: teacher.run={config.run!r}, teacher.model={config.model!r}"
        )
    if config.model and not config.weights:
        raise BadOption(f"A teacher needs weights. Received: teacher.model={config.model!r}, teacher.weights=''")
    if any(stage < 1 for stage in config.features) or len(set(config.features)) != len(config.features):
        raise BadOption(
            f"teacher.features must be different stages from 1. Received: teacher.features={list(config.features)}"
        )
    if bool(config.beta) != bool(config.features):
        raise BadOption(
            "teacher.beta weighs the maps of teacher.features; each needs the other. "
            f"Received: teacher.beta={config.beta}, teacher.features={list(config.features)}"
        )


def _check_rest(recipe: Any) -> None:
    if recipe.strategy == "one" and recipe.replicas > 1:
        raise BadOption(f"strategy=one has one replica. Received: replicas={recipe.replicas}. Use strategy=mirrored.")
    profile = recipe.log.profile
    if profile and not (len(profile) == 2 and 1 <= profile[0] <= profile[1]):
        raise BadOption(f"log.profile must be [first step, last step]. Received: log.profile={list(profile)}")


RULES: tuple[Callable[[Any], None], ...] = (
    _check_data,
    _check_columns,
    _check_augment,
    _check_optimizer,
    _check_schedule,
    _check_loss,
    _check_regularize,
    check_finetune,
    _check_teacher,
    _check_rest,
)
