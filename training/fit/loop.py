"""Train a new run, or resume one."""

from __future__ import annotations

import os
from typing import Any

from training.data.pipeline.opening import training_statistics
from training.data.pipeline.pipeline import Pipeline
from training.data.summary import summary_lines
from training.distributed.device import Device
from training.distributed.strategy import check_run_path
from training.distributed.workers import follow, wait_for_run
from training.fit.prepare import prepare
from training.fit.reading import naming_files
from training.fit.session import Observer, Session
from training.monitor.progress import ProgressDisplay
from training.recipe.recipe import Recipe
from training.runs.folder import check_free
from training.runs.run import Run


def train_new(
    recipe: Recipe,
    path: str | os.PathLike[str] | None,
    *,
    progress: bool = False,
    observe: Observer | None = None,
    split: str = "test",
) -> Run:
    """Train a recipe in a new run directory, which is created after data, devices and model are checked.

    Args:
        recipe: the recipe.
        path: the run directory; `runs/<recipe>/<time>-<4 hex>` if None.
        progress: show a progress bar, or a line for each epoch if there is no terminal.
        observe: called with the row of each epoch.
        split: the split of the final evaluation, if the data has it; else "validation".

    Returns:
        The finished run.

    Raises:
        TrainingError: the loss is not finite; the last good checkpoint remains.
        Stopped: SIGTERM or SIGINT requested a stop; the state is saved.
        RunError: the directory is not empty, or the disk is full.
    """
    check_run_path(recipe, path)
    check_free(path)
    prepared = prepare(recipe)
    if prepared[0].chief:
        run = Run.create(recipe, path, prepared[1].text, training_statistics(prepared[1]))
    else:
        run = wait_for_run(path)
    return _train(run, prepared, progress=progress, observe=observe, split=split)


def resume_run(
    run: Run,
    *,
    changed_data: str = "",
    progress: bool = False,
    observe: Observer | None = None,
    split: str = "test",
) -> Run:
    """Resume a run from its last checkpoint; a finished run is returned unchanged."""
    if run.finished:
        return run
    run.check_backend()
    prepared = prepare(run.recipe, run, changed_data)
    return _train(run if prepared[0].chief else follow(run), prepared, progress=progress, observe=observe, split=split)


def _train(
    run: Run, prepared: tuple[Device, Pipeline, Any, Any], *, progress: bool, observe: Observer | None, split: str
) -> Run:
    device, pipeline, *_ = prepared
    with run.lock(), device.running():
        session = Session(run, *prepared)
        with ProgressDisplay(
            run.recipe.name,
            run.recipe.epochs,
            pipeline.steps_per_epoch,
            pipeline.batch_size,
            progress and device.chief,
        ) as display:
            if session.is_new:
                for line in summary_lines(run.statistics()["summary"]):
                    display.note(line)
            with naming_files(pipeline, f"Then resume: zoo train --resume {run.path}"):
                session.train(display, observe if device.chief else None)
        if device.chief:
            session.finish(split)
        device.barrier()
    return run
