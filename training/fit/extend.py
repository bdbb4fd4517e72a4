"""Extend a run by more epochs."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

from training.recipe.recipe import Recipe
from training.runs.run import Run
from zoo.common.errors import BadOption

PATIENCE = "regularize.patience"
# What may change: the training stays that of the run.
KEYS = ("epochs", PATIENCE)


def extend_run(run: Run, overrides: Mapping[str, Any]) -> Run:
    """Give a run more epochs, after which it is unfinished, and describe how its schedule goes on.

    The learning rate of an epoch is that of a training which had as many epochs from the start: it follows the schedule
    from the epoch that was reached. Weights, optimizer state and best metric stay.

    Raises:
        BadOption: another key than `KEYS`, or no epoch is left to train.
    """
    if other := sorted(overrides.keys() - {*KEYS}):
        raise BadOption(
            f"--resume keeps the recipe of a run; {' and '.join(KEYS)} alone may change. Received: "
            f"{', '.join(f'{key}={overrides[key]}' for key in other)}. To change more, start a new run from its "
            f"weights: zoo train RECIPE --set model.weights={run.model_path}"
        )
    recipe = run.recipe.override(**overrides)
    _check(run, recipe)
    with run.lock():
        extended = run.extend(recipe)
    warnings.warn(_describe(run, recipe), stacklevel=2)
    return extended


def _check(run: Run, recipe: Recipe) -> None:
    """Raise BadOption unless there is an epoch left to train."""
    done, ended = _reached(run)
    if run.finished:
        run.check_files()
    if recipe.epochs < run.recipe.epochs or recipe.epochs <= done:
        raise BadOption(
            f"Expected more epochs than the run has. Received: epochs={recipe.epochs}, run={str(run.path)!r} with "
            f"{done} of {run.recipe.epochs} trained."
        )
    patience = recipe.regularize.patience
    if ended == "patience" and patience and patience <= run.recipe.regularize.patience:
        raise BadOption(
            f"The run ended early, after {patience} epochs without a better metric. Received: {PATIENCE}={patience}, "
            f"with which it would end at once. Add: --set {PATIENCE}=0"
        )


def _reached(run: Run) -> tuple[int, str]:
    """Return the trained epochs of a run, and why it ended, "" if it did not."""
    if not run.finished:
        return len(run.metrics()), ""
    result = run.result()
    return int(result["epochs"]), str(result["ended"])


def _describe(run: Run, recipe: Recipe) -> str:
    done, _ = _reached(run)
    name, warmup = recipe.schedule.name, recipe.schedule.warmup_epochs
    shape = f"{name} after a warm-up of {warmup:g} epochs" if warmup else name
    last = [row["learning_rate"] for row in run.metrics()][-1:]
    before = f", from {last[0]:.3g} at the end before" if last else ""
    stale = " Its artifacts are of the model before: export again." if run.exports.is_dir() else ""
    return (
        f"Extended {run.path} from {run.recipe.epochs} to {recipe.epochs} epochs: goes on after epoch {done} with the "
        f"learning rate that {shape} over {recipe.epochs} epochs has there{before}.{stale}"
    )
