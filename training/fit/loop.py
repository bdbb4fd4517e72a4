"""Train a new run, or resume one."""

from __future__ import annotations

import os
import warnings
from typing import Any

from training.data.pipeline.changed_images import ChangedImages, naming_images, skipping_images
from training.data.pipeline.opening import training_statistics
from training.data.pipeline.pipeline import Pipeline
from training.data.readers.changes import KNOWN, enough_left
from training.data.summary import summary_lines
from training.distributed.device import Device
from training.distributed.strategy import check_run_path
from training.distributed.workers import follow, wait_for_run
from training.fit.prepare import prepare
from training.fit.session import Observer, Session
from training.monitor.progress import ProgressDisplay
from training.recipe.recipe import Recipe
from training.runs.folder import check_free
from training.runs.run import Run
from zoo.common.errors import DataError

Prepared = tuple[Device, Pipeline, Any, Any]


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
    ready = [prepare(recipe)]
    if ready[0][0].chief:
        run = Run.create(recipe, path, ready[0][1].text, training_statistics(ready[0][1]))
    else:
        run = wait_for_run(path)
    return _train_skipping(run, ready, progress=progress, observe=observe, split=split)


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
    ready = [prepare(run.recipe, run, changed_data)]
    run = run if ready[0][0].chief else follow(run)
    return _train_skipping(run, ready, changed_data=changed_data, progress=progress, observe=observe, split=split)


def _train_skipping(run: Run, ready: list[Prepared], *, changed_data: str = "", **options: Any) -> Run:
    """Train; where the recipe says so, go on from the last checkpoint without images that cannot be read any more.

    Args:
        run: a run.
        ready: what `prepare` returns, which is taken out: two models may not fit into memory.
        changed_data: see `training.learning.evaluation.check_data`.
        options: of `_train`.
    """
    device, before = ready[0][0], list[dict[str, Any]]()

    def attempt() -> Run:
        if not ready:
            ready.append(_prepare_again(run, changed_data, before[-1]))
        return _train(run, ready.pop(), **options)

    return skipping_images(attempt, lambda error: before.append(_skip(run, device, error)))


def _prepare_again(run: Run, changed_data: str, before: dict[str, Any]) -> Prepared:
    """Return what `prepare` does without skipped images; where too few are left, none of them stays stored as such.

    Args:
        run: a run.
        changed_data: the choice of the user. Files that changed and can be read are used as they are, as they would be
            without those that cannot.
        before: what `_skip` returned.
    """
    try:
        return prepare(run.recipe, run, changed_data or KNOWN)
    except DataError:
        run.store_statistics(before)
        raise


def _skip(run: Run, device: Device, error: ChangedImages) -> dict[str, Any]:
    """Store images that are skipped, and say so; return the statistics before.

    Raises:
        ChangedImages: none are skipped: the recipe does not say so, or half of a split is gone, as with a disk.
    """
    before, files = run.statistics() or {}, run.files()
    skipped = {**before.get("skipped", {}), **error.images}
    if not run.recipe.data.skip_bad or device.workers > 1 or files is None or not enough_left(files, skipped):
        raise error
    line = f"Skipped, as they cannot be decoded any more: {error.described}"
    summary = before.get("summary", {})
    summary = {**summary, "notes": [*summary.get("notes", ()), line]}
    run.store_statistics({**before, "summary": summary, "skipped": skipped})
    warnings.warn(f"{line}. The training goes on from its last checkpoint", stacklevel=2)
    return before


def _train(run: Run, prepared: Prepared, *, progress: bool, observe: Observer | None, split: str) -> Run:
    device, pipeline, *_ = prepared
    naming = naming_images(pipeline, f"Then resume: zoo train --resume {run.path}")
    with run.lock(), device.running(), naming:
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
            session.train(display, observe if device.chief else None)
        if device.chief:
            session.finish(split)
        device.barrier()
    return run
