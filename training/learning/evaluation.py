"""Evaluate a trained model on a split of its run's data."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Container, Mapping
from pathlib import Path
from typing import Any

import zoo
from training.data.pipeline.changed_images import ChangedImages, naming_images, skipping_images
from training.data.pipeline.opening import open_pipeline
from training.data.pipeline.pipeline import Pipeline
from training.data.readers.changes import RunFiles, check_choice, find_changes, require_unchanged
from training.learning.results import EvaluationResult
from training.learning.tasks import TASKS
from training.recipe.recipe import Recipe
from training.runs.run import Run
from zoo.common.errors import RunError
from zoo.reading.files import Refusal
from zoo.reading.keras_models import open_model

MODEL_REFUSAL = Refusal(advice="Restore the file, or train again.")


def open_data(run: Run, *, check: bool = False, changed_data: str = "", exact: bool = False) -> Pipeline:
    """Return the data of a run, with the splits, the vocabulary, the columns and the statistics that the run stores.

    Warns if files were added, removed or changed since the training.

    Args:
        run: a run.
        check: whether to check every example now; otherwise examples are checked when they are read.
        changed_data: see `check_data`.
        exact: see `check_data`.

    Raises:
        RunError: the vocabulary of the run is missing.
        DataError: see `check_data`.
    """
    files, statistics = run.files(), run.statistics() or {}
    # To go on exactly, the images of the training; else those that there are now.
    skipped = statistics.get("skipped", {}) if exact else {}
    check_data(run, changed_data, exact=exact, files=files, skipped=skipped)
    spec, text = zoo.spec(run.recipe.model.name), run.text()
    if spec.vocabulary and text is None:
        raise RunError(
            f"Expected a run on text with a vocabulary. Received: run={str(run.path)!r} without text.json. "
            "Restore the file, or train again."
        )
    return open_pipeline(run.recipe, spec, text, statistics, RunFiles(files, changed_data, skipped), check=check)


def check_data(
    run: Run,
    changed_data: str = "",
    *,
    exact: bool = False,
    files: Mapping[str, Any] | None = None,
    skipped: Container[str] = (),
) -> None:
    """Warn in one line if files of a run's data were added, removed or changed since its training, or refuse that.

    Args:
        run: a run.
        changed_data: "known" uses the files that the run knows, "all" also added ones, each in the split of its hash,
            and "refuse" raises DataError; "" is "known", but refuses missing and changed files if `exact`.
        exact: whether the same examples are needed, as for resuming.
        files: what the run stores of its files, if it was read.
        skipped: names of files that the run does not read any more.

    Raises:
        DataError: the data changed and that is refused.
    """
    check_choice(changed_data)
    stored = files or run.files()
    if stored and not exact and not Path(str(stored.get("root"))).is_dir():
        # Opening the data says that it is elsewhere; what does not open it does not need it.
        return
    if line := stored and require_unchanged(find_changes(stored, skipped), changed_data, exact=exact):
        warnings.warn(line, stacklevel=2)


def evaluate_model(model: Any, pipeline: Pipeline, split: str) -> EvaluationResult:
    """Return the metrics of a model on a split of a pipeline's data."""
    metrics = TASKS[pipeline.dataset.task].evaluate(model, pipeline.evaluate(split), pipeline.dataset)
    return EvaluationResult.from_json({"split": split, **metrics})


def evaluate_run(run: Run, split: str = "test", changed_data: str = "") -> EvaluationResult:
    """Evaluate the model of a finished run on a split of its data.

    Args:
        run: a finished run.
        split: "train", "validation" or "test".
        changed_data: see `check_data`.

    Raises:
        RunError: the run is unfinished, or has no such split.
    """
    run.result()
    pipeline = open_data(run, changed_data=changed_data)
    if split not in pipeline.dataset.splits:
        have = ", ".join(pipeline.dataset.splits)
        raise RunError(f"split must be one of {have}. Received: split={split!r}. Choose one of these.")
    model, opened = load_model(run), iter([pipeline])

    def attempt() -> EvaluationResult:
        # Opening the data again leaves out what cannot be decoded now.
        data = next(opened, None) or open_data(run, changed_data=changed_data)
        with naming_images(data, "Or skip them: --set data.skip_bad=true in the training."):
            return evaluate_model(model, data, split)

    return skipping_images(attempt, functools.partial(_leave_out, run.recipe))


def _leave_out(recipe: Recipe, error: ChangedImages) -> None:
    """Say in a line which images are left out of an evaluation; raises the error unless the recipe skips such ones."""
    if not recipe.data.skip_bad:
        raise error
    warnings.warn(f"Left out of the evaluation, as they cannot be decoded any more: {error.described}", stacklevel=2)


def load_model(run: Run) -> Any:
    """Return the trained model of a run, as it was saved; raises RunError if it cannot be read, or was changed."""
    run.check_files()
    return open_model(run.model_path, MODEL_REFUSAL)
