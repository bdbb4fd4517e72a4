"""Running and saving the steps of a compression pipeline.

Each step saves its model and its record in RUN/compressed/STEP-KEY. The key is a digest of the trained model and of all
steps so far, so that a pipeline resumes at the step that failed, and pipelines share their common first steps.
"""

from __future__ import annotations

import dataclasses
import gzip
import hashlib
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from export.compression.guarantees import check_model, count_zeros
from export.compression.structured.channels import multiply_adds
from export.compression.workbench import RunWorkbench, load_compressed
from export.core.compression import Step, Workbench
from export.core.keras_graph import check_same, probe
from export.core.manifest import digest_file
from training.runs.run import Run
from zoo.common.files import write_atomic, write_json
from zoo.common.lazy import np
from zoo.reading.json_files import read_json

if TYPE_CHECKING:
    from training.data.pipeline.pipeline import Pipeline

MODEL, RECORD, STATE = "model.keras", "step.json", "state.safetensors"
TOLERANCE = 1e-6  # of a model after saving and loading, relative to the largest output


def workbenches(steps: Sequence[Step], run: Run, data: Pipeline) -> list[RunWorkbench]:
    """Return the workbench of each step, with the folder that the step saves to."""
    key, found = digest_file(run.model_path), []
    for step in steps:
        key = digest_text(f"{key} | {step.text}")
        found.append(RunWorkbench(run.recipe, data, run.compressed / f"{step.compression.name}-{key[:12]}"))
    return found


def digest_text(text: str) -> str:
    """Return the SHA-256 of a text in hexadecimal."""
    return hashlib.sha256(text.encode()).hexdigest()


def measure_model(model: Any, workbench: Workbench) -> dict[str, Any]:
    """Return accuracy on the test split, parameters, multiply-adds and zeros of a model."""
    return {
        "accuracy": workbench.accuracy(model),
        "parameters": int(sum(np.prod(v.shape) for v in model.trainable_weights)),
        "multiply_adds": multiply_adds(model),
        "zeros": sum(count_zeros(model).values()),
    }


def load_step(folder: Path) -> tuple[Any, dict[str, Any]] | None:
    """Return the model and the record of a saved step; None if there is none, or if the model was changed."""
    if not (folder / RECORD).is_file():
        return None
    record = read_json(folder / RECORD)
    if not (folder / MODEL).is_file() or digest_file(folder / MODEL) != record["sha256"]:
        return None
    return load_compressed(folder / MODEL), record


def run_step(step: Step, model: Any, workbench: Workbench) -> tuple[Any, dict[str, Any]]:
    """Apply a step, save its model and then its record; returns both."""
    start, path = time.monotonic(), workbench.folder / MODEL
    workbench.folder.mkdir(parents=True, exist_ok=True)
    compressed = step.compression.apply(model, step.options, workbench)
    guarantees = step.compression.guarantees(compressed, step.options)
    write_atomic(path, lambda temporary: compressed.save(temporary, include_optimizer=False))
    loaded = load_compressed(path)
    if len(compressed.inputs) == 1 and str(compressed.inputs[0].dtype) == "float32":
        check_same(compressed, loaded, probe(compressed), TOLERANCE)
    check_model(loaded, guarantees)
    record = {
        "step": step.text,
        "options": dataclasses.asdict(step.options),
        **measure_model(loaded, workbench),
        "bytes": path.stat().st_size,
        "gzip_bytes": len(gzip.compress(path.read_bytes(), 6)),
        "seconds": time.monotonic() - start,
        "guarantees": guarantees,
        "sha256": digest_file(path),
    }
    write_json(workbench.folder / RECORD, record)
    (workbench.folder / STATE).unlink(missing_ok=True)
    return loaded, record
