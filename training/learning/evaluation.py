"""Evaluate a trained model on a split of its run's data."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import zoo
from training.data.pipeline.opening import open_pipeline
from training.data.pipeline.pipeline import Pipeline
from training.data.readers.changes import RunFiles, check_choice, find_changes, require_unchanged
from training.learning.results import EvaluationResult
from training.learning.tasks import TASKS
from training.runs.run import Run
from zoo.common.errors import RunError
from zoo.reading.keras_models import open_model

MODEL_ADVICE = "Restore the file, or train again."


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
    files = run.files()
    check_data(run, changed_data, exact=exact, files=files)
    spec, text = zoo.spec(run.recipe.model.name), run.text()
    if spec.vocabulary and text is None:
        raise RunError(
            f"Expected a run on text with a vocabulary. Received: run={str(run.path)!r} without text.json. "
            "Restore the file, or train again."
        )
    return open_pipeline(run.recipe, spec, text, run.statistics() or {}, RunFiles(files, changed_data), check=check)


def check_data(
    run: Run, changed_data: str = "", *, exact: bool = False, files: Mapping[str, Any] | None = None
) -> None:
    """Warn in one line if files of a run's data were added, removed or changed since its training, or refuse that.

    Args:
        run: a run.
        changed_data: "known" uses the files that the run knows, "all" also added ones, each in the split of its hash,
            and "refuse" raises DataError; "" is "known", but refuses missing and changed files if `exact`.
        exact: whether the same examples are needed, as for resuming.
        files: what the run stores of its files, if it was read.

    Raises:
        DataError: the data changed and that is refused.
    """
    check_choice(changed_data)
    stored = files or run.files()
    if stored and not exact and not Path(str(stored.get("root"))).is_dir():
        # Opening the data says that it is elsewhere; what does not open it does not need it.
        return
    if line := stored and require_unchanged(find_changes(stored), changed_data, exact=exact):
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
    return evaluate_model(load_model(run), pipeline, split)


def load_model(run: Run) -> Any:
    """Return the trained model of a run, as it was saved; raises RunError if it cannot be read."""
    return open_model(run.model_path, advice=MODEL_ADVICE)
