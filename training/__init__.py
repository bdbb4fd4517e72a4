"""Train models by recipe, evaluate them, and tune their options.

import training
run = training.train("digits_resnet", {"optimizer.learning_rate": 0.05})
training.evaluate(run).accuracy
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from training.common.registries import datasets as _datasets
from training.data.columns.schema import ColumnSchema
from training.data.dataset import Dataset, Split, TargetScale, register_dataset
from training.learning.results import EvaluationResult
from training.monitor.findings import Diagnosis, Finding
from training.recipe.config import (
    AugmentConfig,
    DataConfig,
    FinetuneConfig,
    LogConfig,
    LossConfig,
    ModelConfig,
    OptimizerConfig,
    RegularizeConfig,
    ScheduleConfig,
    TeacherConfig,
)
from training.recipe.recipe import Recipe, parse_override, register_recipe, resolve
from training.recipe.recipe import recipes as _recipes
from training.runs.run import Run
from training.tuning.results import LearningRateResult, Trial, TuneResult
from zoo.specs.text import TextConfig

__all__ = [
    "AugmentConfig",
    "ColumnSchema",
    "DataConfig",
    "Dataset",
    "Diagnosis",
    "EvaluationResult",
    "Finding",
    "FinetuneConfig",
    "LearningRateResult",
    "LogConfig",
    "LossConfig",
    "ModelConfig",
    "OptimizerConfig",
    "Recipe",
    "RegularizeConfig",
    "Run",
    "ScheduleConfig",
    "Split",
    "TargetScale",
    "TeacherConfig",
    "TextConfig",
    "Trial",
    "TuneResult",
    "diagnose",
    "evaluate",
    "find_learning_rate",
    "get_recipe",
    "list_datasets",
    "list_recipes",
    "parse_override",
    "register_dataset",
    "register_recipe",
    "resume",
    "train",
    "tune",
]


def train(
    recipe: Recipe | str,
    overrides: Mapping[str, Any] | None = None,
    *,
    run: str | os.PathLike[str] | None = None,
    progress: bool = False,
    observe: Callable[[dict[str, Any]], None] | None = None,
) -> Run:
    """Train a recipe to its end.

    Args:
        recipe: a registered name or a Recipe.
        overrides: changed values by dotted key, such as {"optimizer.learning_rate": 0.05}.
        run: the run directory to create; `runs/<recipe>/<time>-<4 hex>` by default.
        progress: show a progress bar, or a line for each epoch if there is no terminal.
        observe: called with the metrics of each epoch; an exception ends the training there.

    Returns:
        The finished run.

    Raises:
        UnknownName: there is no such recipe, model or dataset.
        BadOption: a key is unknown, or a value is invalid.
        DataError: the data is missing or unreadable.
        TrainingError: the loss is not finite.
        RunError: the directory is not empty, or cannot be written.
    """
    from training.fit.loop import train_new

    return train_new(resolve(recipe, (overrides or {}).items()), run, progress=progress, observe=observe)


def resume(
    run: Run | str | os.PathLike[str],
    *,
    overrides: Mapping[str, Any] | None = None,
    changed_data: str = "",
    progress: bool = False,
    observe: Callable[[dict[str, Any]], None] | None = None,
) -> Run:
    """Resume an interrupted run from its last checkpoint; a finished run is returned unchanged.

    Args:
        run: a run or its directory.
        overrides: {"epochs": more} extends the run, also a finished one: its training goes on after its last epoch,
            with the learning rate that the schedule has there for that many epochs.
        changed_data: what to do if files of the data changed: "known" uses those that the run knows, "all" also added
            ones, "refuse" raises DataError; "" is "known", but refuses missing and changed files.
        progress: see `train`.
        observe: see `train`.

    Raises:
        BadOption: another key than "epochs" or "regularize.patience", or no more epochs than the run has.
        DataError: see `changed_data`.
        RunError: there is no such run, or its checkpoints cannot be read.
        TrainingError: the loss is not finite.
    """
    from training.fit.loop import resume_run

    opened = _run(run)
    if overrides:
        from training.fit.extend import extend_run

        opened = extend_run(opened, overrides)
    return resume_run(opened, changed_data=changed_data, progress=progress, observe=observe)


def evaluate(run: Run | str | os.PathLike[str], split: str = "test", *, changed_data: str = "") -> EvaluationResult:
    """Evaluate the model of a finished run on a split of its data.

    Args:
        run: a run or its directory.
        split: "train", "validation" or "test".
        changed_data: what to do if files of the data changed, which a warning says: "known", the default, uses those
            that the run knows, "all" also added ones, each in the split of its hash, "refuse" raises DataError.

    Returns:
        The metrics of the run's task; those of other tasks are None.

    Raises:
        DataError: see `changed_data`.
        RunError: the run is unfinished, or has no such split.
    """
    from training.learning.evaluation import evaluate_run

    return evaluate_run(_run(run), split, changed_data)


def diagnose(run: Run | str | os.PathLike[str]) -> Diagnosis:
    """Diagnose a run, finished or not: divergence, vanishing gradients, dead units, overfitting and others.

    Args:
        run: a run or its directory.

    Raises:
        RunError: there is no such run, or it has stored nothing yet.
    """
    from training.monitor.diagnosis import diagnose_run

    return diagnose_run(_run(run))


def tune(
    recipe: Recipe | str,
    spaces: Iterable[str],
    *,
    overrides: Mapping[str, Any] | None = None,
    trials: int = 20,
    study: str | os.PathLike[str] | None = None,
    seed: int = 1,
    pruner: str = "median",
    observe: Callable[[Trial], None] | None = None,
) -> TuneResult:
    """Search for better values of a recipe's options by their metric on the validation split.

    Args:
        recipe: a registered name or a Recipe.
        spaces: search spaces, "optimizer.learning_rate=log:1e-3..1e-1", "model.options.dropout=0..0.5" or
            "data.batch_size=32|64|128".
        overrides: changed values of the recipe by dotted key.
        trials: number of trials, including those of an interrupted study.
        study: the study directory; an existing study is resumed. `studies/<recipe>/<time>-<4 hex>` by default.
        seed: seed of the sampler.
        pruner: "median" (stop below the median of earlier trials at the same epoch), "halving" or "none".
        observe: called with each finished trial.

    Raises:
        BadOption: a space or an option is invalid.
        RunError: the directory has other content, or another process uses it.
        TrainingError: no trial was completed.
    """
    from training.tuning.tune import run_study

    return run_study(
        resolve(recipe, (overrides or {}).items()),
        spaces,
        trials=trials,
        study=study,
        seed=seed,
        pruner=pruner,
        observe=observe,
    )


def find_learning_rate(
    recipe: Recipe | str,
    overrides: Mapping[str, Any] | None = None,
    *,
    low: float = 1e-6,
    high: float = 10.0,
    steps: int = 100,
) -> LearningRateResult:
    """Suggest a learning rate by a range test (Smith 2015, arXiv:1506.01186); nothing is written.

    Args:
        recipe: a registered name or a Recipe.
        overrides: changed values by dotted key.
        low: the first learning rate.
        high: the last learning rate.
        steps: number of steps, a batch each.

    Raises:
        BadOption: an option is invalid, or the optimizer has no learning rate.
        TrainingError: the loss is not finite from the start.
    """
    from training.tuning.lr_finder import range_test

    return range_test(resolve(recipe, (overrides or {}).items()), low=low, high=high, steps=steps)


def get_recipe(name: str) -> Recipe:
    """Return a registered recipe; raises UnknownName."""
    return _recipes[name]


def list_recipes(*patterns: str, exclude: str | Iterable[str] = ()) -> list[str]:
    """Return the sorted names of recipes.

    Args:
        *patterns: shell wildcards, such as "digits_*"; all recipes without one.
        exclude: wildcards of recipes to leave out.
    """
    return _recipes.names(*patterns, exclude=exclude)


def list_datasets(*patterns: str, exclude: str | Iterable[str] = ()) -> list[str]:
    """Return the sorted names of registered datasets; TFDS has others.

    Args:
        *patterns: shell wildcards, such as "cifar*"; all datasets without one.
        exclude: wildcards of datasets to leave out.
    """
    return _datasets.names(*patterns, exclude=exclude)


def _run(run: Run | str | os.PathLike[str]) -> Run:
    return run if isinstance(run, Run) else Run.open(run)
