"""What makes networks smaller, measured on digits_resnet: `compression.py [FOLDER]`, which keeps the runs if given.

Trains three seeds, takes each through every chain, and prints accuracy, size, zeros, multiply-adds and latency as a
JSON object, and what masks cost a step of training. Runs, steps and artifacts that FOLDER holds are not made again.
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
from export.reporting.content import gzipped
from training.runs.run import Run

SEEDS = (1, 2, 3)
FORMATS = ("tflite", "tflite_int8", "onnx")
CHAINS = ("prune:0.8", "prune:2:4,skip=stem", "cluster:32", "structured:0.5", "prune:0.8 | qat")
TIMED = ("prune:0.8", "structured:0.5")
CALLS, STEPS = 1500, 300


def main(folder: Path) -> dict[str, Any]:
    """Return every figure, by chain and seed."""
    rows: dict[str, dict[str, Any]] = {chain: {} for chain in CHAINS}
    for seed in SEEDS:
        run = trained(folder / f"digits_resnet-{seed}", seed)
        dense = made(run, "")
        for chain in CHAINS:
            say(f"seed {seed}: {chain}")
            rows[chain][str(seed)] = figures(dense, made(run, chain))
            if chain in TIMED:
                rows[chain][str(seed)]["latency"] = latencies(dense, made(run, chain))
    return {"chains": rows, "masks": mask_overhead(run)}


def say(text: str) -> None:
    """Tell how far it is, beside the result."""
    print(text, file=sys.stderr, flush=True)


def trained(path: Path, seed: int) -> Run:
    """Return a run, trained unless it is there."""
    return Run.open(path) if path.is_dir() else training.train("digits_resnet", {"seed": seed}, run=path)


def made(run: Run, chain: str) -> dict[str, export.Artifact]:
    """Return the artifacts of a chain by format, made unless they are there."""
    slug = f"-{parse_pipeline(chain).slug}" if chain else ""
    missing = [name for name in FORMATS if not (run.exports / f"{name}{slug}").is_dir()]
    if missing:
        export.convert(run, missing, compress=chain)
    return {name: export.verify(run.exports / f"{name}{slug}") for name in FORMATS}


def figures(dense: dict[str, export.Artifact], small: dict[str, export.Artifact]) -> dict[str, Any]:
    """Return what a chain cost and gained; sizes and multiply-adds as shares of those before."""
    made_of = small["tflite"].manifest["compression"]
    before, after = made_of["before"], made_of["steps"][-1]
    # A step that folds counts other parameters; what it is claimed to keep, it has kept.
    zeros = {name: found_zeros(artifact) for name, artifact in small.items()}
    return {
        "before": before["accuracy"],
        "after": after["accuracy"],
        "by_format": {name: artifact.parity["accuracy"] for name, artifact in small.items()},
        "gzip": {name: gzipped(artifact) / gzipped(dense[name]) for name, artifact in small.items()},
        "claimed_zeros": sum(made_of["guarantees"].get("zeros", {}).values()),
        "zeros": zeros,
        "distinct": {name: most_values(artifact) for name, artifact in small.items()},
        "multiply_adds": after["multiply_adds"] / before["multiply_adds"],
    }


def found_zeros(artifact: export.Artifact) -> int:
    """Return how many zeros the kernels that are claimed to have some have in the artifact."""
    return sum(artifact.manifest["compression"]["found"].get("zeros", {}).values())


def most_values(artifact: export.Artifact) -> int:
    """Return how many different values the richest kernel has; 0 where nothing is claimed of that."""
    return max(artifact.manifest["compression"]["found"].get("distinct", {}).values(), default=0)


def latencies(dense: dict[str, export.Artifact], small: dict[str, export.Artifact]) -> dict[str, float]:
    """Return the latency of artifacts as a share of the dense ones', by format and threads, measured in turns."""
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
    """Return the median seconds of calls that take turns."""
    times: list[list[float]] = [[] for _ in calls]
    for _ in range(count // 10 + count):
        for call, known in zip(calls, times, strict=True):
            start = time.perf_counter()
            call()
            known.append(time.perf_counter() - start)
    return [statistics.median(known[count // 10 :]) for known in times]


def mask_overhead(run: Run) -> float:
    """Return how much longer a step of training takes with masks, as a share, measured in turns."""
    from export.compression.masks import Masks
    from export.compression.pruning import Pruning
    from export.compression.workbench import load_compressed
    from training.finetune import shorten
    from training.learning.build import compile_model
    from training.learning.evaluation import open_data

    pipeline, recipe = open_data(run), shorten(run.recipe, 40, 0.5)
    batch = next(iter(pipeline.train(0)))

    def stepper(masked: bool) -> Callable[[], Any]:
        network = load_compressed(run.model_path)
        compile_model(network, recipe, pipeline, jit_compile=False)
        network.optimizer.build(network.trainable_variables)
        if not masked:
            return lambda: network.train_on_batch(*batch)
        masks = Masks(network, Pruning(0.8), 40 * pipeline.steps_per_epoch)
        attached = masks.attached()
        attached.__enter__()

        def step() -> None:
            network.train_on_batch(*batch)
            masks.update(int(network.optimizer.iterations.numpy()))

        return step

    plain, masked = in_turns([stepper(False), stepper(True)], STEPS)
    return masked / plain - 1


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        place = Path(sys.argv[1] if len(sys.argv) > 1 else scratch)
        print(json.dumps(main(place)))
