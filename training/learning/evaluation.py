"""Evaluate a trained model on a split of its run's data."""

from __future__ import annotations

from typing import Any

import zoo
from training.data.pipeline.opening import open_pipeline
from training.data.pipeline.pipeline import Pipeline
from training.learning.results import EvaluationResult
from training.learning.tasks import TASKS
from training.runs.run import Run
from zoo.common.errors import RunError
from zoo.common.lazy import keras


def open_data(run: Run, *, check: bool = False) -> Pipeline:
    """Return the data of a run, with the vocabulary, the columns and the statistics that the run stores.

    Args:
        run: a run.
        check: whether to check every example now; otherwise examples are checked when they are read.

    Raises:
        RunError: the vocabulary of the run is missing.
    """
    spec, text = zoo.spec(run.recipe.model.name), run.text()
    if spec.vocabulary and text is None:
        raise RunError(
            f"Expected a run on text with a vocabulary. Received: run={str(run.path)!r} without text.json. "
            "Restore the file, or train again."
        )
    return open_pipeline(run.recipe, spec, text, run.statistics() or {}, check=check)


def evaluate_model(model: Any, pipeline: Pipeline, split: str) -> EvaluationResult:
    """Return the metrics of a model on a split of a pipeline's data."""
    metrics = TASKS[pipeline.dataset.task].evaluate(model, pipeline.evaluate(split), pipeline.dataset)
    return EvaluationResult.from_json({"split": split, **metrics})


def evaluate_run(run: Run, split: str = "test") -> EvaluationResult:
    """Evaluate the model of a finished run on a split of its data.

    Args:
        run: a finished run.
        split: "train", "validation" or "test".

    Raises:
        RunError: the run is unfinished, or has no such split.
    """
    run.result()
    pipeline = open_data(run)
    if split not in pipeline.dataset.splits:
        have = ", ".join(pipeline.dataset.splits)
        raise RunError(f"split must be one of {have}. Received: split={split!r}. Choose one of these.")
    return evaluate_model(load_model(run), pipeline, split)


def load_model(run: Run) -> Any:
    """Return the trained model of a run, as it was saved; raises RunError if it cannot be read."""
    try:
        return keras.saving.load_model(run.model_path, compile=False, safe_mode=True)
    except (OSError, TypeError, ValueError, KeyError) as error:
        reason = " ".join(str(error).split())[:200]
        raise RunError(
            f"Expected a readable model. Received: {run.model_path}: {reason}. Restore the file, or train again."
        ) from error
