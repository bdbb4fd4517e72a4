"""Measure compression on digits_resnet: `compressing.py [FOLDER]` saves its runs in FOLDER.

Trains three seeds, applies every compression pipeline to each, and prints accuracy, size, zeros, multiply-adds and
latency as a JSON object, with the cost of masks in a training step. Runs, steps and artifacts in FOLDER are used again.
"""

from __future__ import annotations

import functools
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import export
import training
from export.compression.pipeline import parse_pipeline
from export.reporting.artifact_sets import gzip_bytes
from training.runs.run import Run

SEEDS = (1, 2, 3)
FORMATS = ("tflite", "tflite_int8", "onnx")
PIPELINES = ("prune:0.8", "prune:2:4,skip=stem", "cluster:32", "structured:0.5", "prune:0.8 | qat")
TIMED = ("prune:0.8", "structured:0.5")
CALLS, STEPS = 1500, 300


def main(folder: Path) -> dict[str, Any]:
    """Return every metric, by pipeline and seed."""
    rows: dict[str, dict[str, Any]] = {pipeline: {} for pipeline in PIPELINES}
    for seed in SEEDS:
        run = trained(folder / f"digits_resnet-{seed}", seed)
        dense = artifacts_of(run, "")
        for pipeline in PIPELINES:
            log(f"seed {seed}: {pipeline}")
            rows[pipeline][str(seed)] = metrics(dense, artifacts_of(run, pipeline))
            if pipeline in TIMED:
                rows[pipeline][str(seed)]["latency"] = latencies(dense, artifacts_of(run, pipeline))
    return {"pipelines": rows, "masks": mask_overhead(run)}


def log(text: str) -> None:
    """Print progress on standard error."""
    print(text, file=sys.stderr, flush=True)


def trained(path: Path, seed: int) -> Run:
    """Return a run; train it if there is none."""
    return Run.open(path) if path.is_dir() else training.train("digits_resnet", {"seed": seed}, run=path)


def artifacts_of(run: Run, pipeline: str) -> dict[str, export.Artifact]:
    """Return the artifacts of a compression pipeline by format; export those that are missing."""
    slug = f"-{parse_pipeline(pipeline).slug}" if pipeline else ""
    missing = [name for name in FORMATS if not (run.exports / f"{name}{slug}").is_dir()]
    if missing:
        export.convert(run, missing, compress=pipeline)
    return {name: export.verify(run.exports / f"{name}{slug}") for name in FORMATS}


def metrics(dense: dict[str, export.Artifact], small: dict[str, export.Artifact]) -> dict[str, Any]:
    """Return accuracy, and sizes and multiply-adds relative to the uncompressed model."""
    record = small["tflite"].manifest["compression"]
    before, after = record["before"], record["steps"][-1]
    zeros = {name: found_zeros(artifact) for name, artifact in small.items()}
    return {
        "before": before["accuracy"],
        "after": after["accuracy"],
        "by_format": {name: artifact.parity["accuracy"] for name, artifact in small.items()},
        "gzip": {name: gzip_bytes(artifact) / gzip_bytes(dense[name]) for name, artifact in small.items()},
        "guaranteed_zeros": sum(record["guarantees"].get("zeros", {}).values()),
        "zeros": zeros,
        "distinct": {name: most_values(artifact) for name, artifact in small.items()},
        "multiply_adds": after["multiply_adds"] / before["multiply_adds"],
    }


def found_zeros(artifact: export.Artifact) -> int:
    """Return the number of zeros in the kernels of an artifact that guarantee some."""
    return sum(artifact.manifest["compression"]["found"].get("zeros", {}).values())


def most_values(artifact: export.Artifact) -> int:
    """Return the largest number of distinct values in a kernel; 0 without such a guarantee."""
    return max(artifact.manifest["compression"]["found"].get("distinct", {}).values(), default=0)


def latencies(dense: dict[str, export.Artifact], small: dict[str, export.Artifact]) -> dict[str, float]:
    """Return latency relative to the uncompressed artifacts, by format and threads, measured in turns."""
    shape = dense["onnx"].manifest["inputs"][0]["shape"]
    image = np.random.default_rng(0).integers(0, 256, (1, *shape[1:])).astype("float32")
    found = {}
    for threads in (1, 2):
        for name in FORMATS:
            loaded = [export.load(one[name].path, threads) for one in (dense, small)]
            whole, part = in_turns([functools.partial(runtime.step, image) for runtime in loaded], CALLS)
            found[f"{name}, {threads} thread{'s' * (threads > 1)}"] = part / whole
    return found


def in_turns(calls: list[Callable[[], Any]], count: int) -> list[float]:
    """Return the median seconds of each call; the calls take turns."""
    times: list[list[float]] = [[] for _ in calls]
    for _ in range(count // 10 + count):
        for call, known in zip(calls, times, strict=True):
            start = time.perf_counter()
            call()
            known.append(time.perf_counter() - start)
    return [statistics.median(known[count // 10 :]) for known in times]


def mask_overhead(run: Run) -> float:
    """Return the relative cost of masks in a training step, measured in turns."""
    from export.compression.masks import Masks
    from export.compression.pruning import Pruning
    from export.compression.workbench import load_compressed
    from training.fit.finetune import shorten
    from training.learning.build import compile_model
    from training.learning.evaluation import open_data

    pipeline, recipe = open_data(run), shorten(run.recipe, 40, 0.5)
    batch = next(iter(pipeline.train(0)))

    def stepper(masked: bool) -> Callable[[], Any]:
        model = load_compressed(run.model_path)
        compile_model(model, recipe, pipeline, jit_compile=False)
        model.optimizer.build(model.trainable_variables)
        if not masked:
            return lambda: model.train_on_batch(*batch)
        masks = Masks(model, Pruning(0.8), 40 * pipeline.steps_per_epoch)
        attached = masks.attached()
        attached.__enter__()

        def step() -> None:
            model.train_on_batch(*batch)
            masks.update(int(model.optimizer.iterations.numpy()))

        return step

    plain, masked = in_turns([stepper(False), stepper(True)], STEPS)
    return masked / plain - 1


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        place = Path(sys.argv[1] if len(sys.argv) > 1 else scratch)
        print(json.dumps(main(place)))
