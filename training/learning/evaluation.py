"""What a trained network is worth: its figures on a split of its run's data."""

from __future__ import annotations

import importlib
from typing import Any

import zoo
from training.data.pipeline.opening import open_pipeline
from training.data.pipeline.pipeline import Pipeline
from training.learning.tasks import TASKS
from training.runs.run import Run
from zoo.common.errors import RunError
from zoo.common.lazy import keras


def open_data(run: Run) -> Pipeline:
    """Return the data of a run, with the vocabulary, the columns and the statistics that it began with.

    Raises:
        RunError: the run has lost its vocabulary.
    """
    spec, text = zoo.spec(run.recipe.model.name), run.text()
    if spec.vocabulary and text is None:
        raise RunError(f"Expected the vocabulary of a run on texts. Received: {run.path} without text.json")
    return open_pipeline(run.recipe, spec, text, run.learnt())


def judge(model: Any, pipeline: Pipeline, split: str) -> dict[str, Any]:
    """Return the figures of a model on a split.

    Returns:
        accuracy: share of right labels, of texts by token; of what is written, share of texts that are exact; of
            several labels at once, share of decisions that are right where a logit above 0 gives the label. Numbers
            have none.
        loss: mean cross-entropy, of texts by token, of several labels by label; of numbers the mean square of errors in
            standard deviations of the training targets.
        examples: how many there are.
        confusion: a matrix of counts (rows: truth, columns: prediction); None of what is written, of several labels and
            of numbers.
        token_accuracy: of what is written only, share of tokens that are right after the right ones before.
        mean_average_precision: of several labels only, and the main figure there, as in the papers on PASCAL VOC (mAP):
            the mean over labels of the area under the curve of precision and recall, in steps and not interpolated at
            11 points as VOC's own of 2007 was. Beside it micro_f1, and average_precision by label.
        rmse, mae, r2: of numbers only, the first two in the data's own units.
    """
    return TASKS[pipeline.dataset.task].judge(model, pipeline.evaluate(split), pipeline.dataset)


def evaluate_run(run: Run, split: str = "test") -> dict[str, Any]:
    """Judge the model of a finished run on one split of its data.

    Args:
        run: a finished run.
        split: "train", "validation" or "test".

    Returns:
        What `judge` returns.

    Raises:
        RunError: the run is unfinished, or has no such split.
    """
    run.result()
    pipeline = open_data(run)
    if split not in pipeline.dataset.splits:
        have = ", ".join(pipeline.dataset.splits)
        raise RunError(f"split must be one of {have}. Received: split={split!r}")
    return judge(load_model(run), pipeline, split)


def load_model(run: Run) -> Any:
    """Return the trained model of a run, as it was saved; raises RunError if it cannot be read."""
    for registering in ("zoo.layers.core", "zoo.layers.sequence"):
        # Keras knows layers that are not its own once their module is imported.
        importlib.import_module(registering)
    try:
        return keras.saving.load_model(run.model_path, compile=False, safe_mode=True)
    except (OSError, TypeError, ValueError, KeyError) as error:
        reason = " ".join(str(error).split())[:200]
        raise RunError(f"Expected a readable model. Received: {run.model_path}: {reason}") from error
