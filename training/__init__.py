"""How a model learns: recipes, data, the loop, and the run directory that it leaves.

import training
run = training.train("digits_resnet", {"optimizer.learning_rate": 0.05})
training.evaluate(run)["accuracy"]
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from training.data.dataset import Dataset, Split, register_dataset
from training.recipe.config import (
    AugmentConfig,
    DataConfig,
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
from zoo.specs.text import TextConfig

__all__ = [
    "AugmentConfig",
    "DataConfig",
    "Dataset",
    "LogConfig",
    "LossConfig",
    "ModelConfig",
    "OptimizerConfig",
    "Recipe",
    "RegularizeConfig",
    "Run",
    "ScheduleConfig",
    "Split",
    "TeacherConfig",
    "TextConfig",
    "evaluate",
    "health",
    "parse_override",
    "recipe",
    "recipe_names",
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
        run: the directory to make; `runs/<recipe>/<time>-<4 hex>` by default.
        progress: show a progress bar, or a line an epoch where there is no terminal.
        observe: called with the figures of each epoch; what it raises ends the training there.

    Returns:
        The finished run.

    Raises:
        UnknownName: no such recipe, model or dataset.
        BadOption: an unknown key or a value that cannot be.
        DataError: the data is missing or unreadable.
        TrainingError: the loss is not finite.
        RunError: the directory is not free, or cannot be written.
    """
    from training.loop import train_new

    return train_new(resolve(recipe, (overrides or {}).items()), run, progress=progress, observe=observe)


def recipe(name: str) -> Recipe:
    """Return a registered recipe; raises UnknownName."""
    return _recipes[name]


def recipe_names(*patterns: str) -> list[str]:
    """Return the names of the recipes that match any of the shell wildcards, all without one."""
    return _recipes.names(*patterns)


def resume(
    run: Run | str | os.PathLike[str],
    *,
    progress: bool = False,
    observe: Callable[[dict[str, Any]], None] | None = None,
) -> Run:
    """Go on with an interrupted run where its last checkpoint stands; a finished run is returned as it is."""
    from training.loop import resume_run

    return resume_run(run if isinstance(run, Run) else Run.open(run), progress=progress, observe=observe)


def evaluate(run: Run | str | os.PathLike[str], split: str = "test") -> dict[str, Any]:
    """Judge the model of a finished run on a split.

    Returns:
        accuracy and loss as floats, examples as an int, confusion as a matrix of counts (rows: truth). Of tags,
        accuracy, loss and confusion are by token. Where text is written, accuracy is the share of texts that greedy
        decoding writes exactly, token_accuracy stands beside it, and confusion is None. Of several labels at once the
        main figure is mean_average_precision, with micro_f1 and average_precision by label; accuracy is the share of
        right decisions. Of numbers there are rmse, mae and r2 instead of accuracy, in the data's own units.
    """
    from training.learning.evaluation import evaluate_run

    return evaluate_run(run if isinstance(run, Run) else Run.open(run), split)


def health(run: Run | str | os.PathLike[str]) -> dict[str, Any]:
    """Look for what is wrong with a run, finished or not.

    Returns:
        run, finished, epochs, measurements (how many steps were measured) and findings, the gravest first: fault, what
        (in words), advice, figures.

    Raises:
        RunError: there is no such run, or it has stored nothing yet.
    """
    from training.monitor.diagnosis import examine

    return examine(run if isinstance(run, Run) else Run.open(run))


def tune(recipe: Recipe | str, spaces: Iterable[str], **options: Any) -> dict[str, Any]:
    """Search for better values of a recipe's options, judged on validation data alone.

    Args:
        recipe: a registered name or a Recipe.
        spaces: what may vary, "optimizer.learning_rate=log:1e-3..1e-1", "model.options.dropout=0..0.5" or
            "data.batch_size=32|64|128".
        **options: overrides, trials, study, seed, pruner and tell; see `training.tuning.tune.tune`.

    Returns:
        study, figure, trials, best (one of the trials) and importance (share of each key).
    """
    from training.tuning.tune import tune as search

    return search(recipe, spaces, **options)
