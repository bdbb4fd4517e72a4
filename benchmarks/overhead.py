"""Measure the training loop against a plain `fit`: `python benchmarks/overhead.py time|ours|keras MODEL SIZE BATCH`.

Time: one process has two models, compiled alike, on the same batches. One is trained by the training loop with logging
and diagnostics at their defaults, the other by `fit` without callbacks, epoch by epoch in turns. A checkpoint is timed
separately, because it is scheduled every ten minutes and not every few steps. Processor time is printed next to wall
time: other programs disturb it less. Ours and keras: the same training in a separate process, for its peak memory.
"""

from __future__ import annotations

import json
import os
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

# Each epoch has one measurement of gradients, updates and units; the default is one in 50 steps.
STEPS, TURNS, CLASSES = 50, 3, 1000
MEMORY_STEPS = 6
CHECKPOINT_SECONDS = 600


def noisy(model: str, size: int, batch: int, steps: int, epochs: int) -> Any:
    """Return a recipe on random images."""
    import numpy as np
    import tensorflow as tf

    import training
    from training.data.dataset import datasets

    def noise(_: training.DataConfig) -> training.Dataset:
        rng = np.random.default_rng(0)
        x, y = rng.integers(0, 256, (steps * batch, size, size, 3), "uint8"), rng.integers(0, CLASSES, steps * batch)
        encoded = tf.data.Dataset.from_tensor_slices((x, y)).map(lambda i, label: (tf.io.encode_png(i), label))
        few = training.Split(encoded.take(batch), batch)
        splits = {"train": training.Split(encoded, len(x)), "validation": few}
        return training.Dataset("noise", tuple(map(str, range(CLASSES))), (size, size, 3), splits)

    if "noise" not in datasets:
        training.register_dataset("noise")(noise)
    return training.Recipe(
        name="overhead",
        model=training.ModelConfig(model),
        data=training.DataConfig("noise", batch_size=batch),
        optimizer=training.OptimizerConfig("sgd", learning_rate=1e-4),
        epochs=epochs,
        precision="mixed_bfloat16",
        strategy="one",
        save="last",
    )


def plain_epoch(pipeline: Any, model: Any, epoch: int) -> None:
    """Train one epoch and validate, with Keras alone."""
    model.fit(pipeline.train(epoch), shuffle=False, verbose=0)
    model.evaluate(pipeline.evaluate("validation"), verbose=0)


def seconds(work: Callable[[], Any]) -> tuple[float, float]:
    """Return the wall time and the processor time of some work."""
    wall, before = time.perf_counter(), os.times()
    work()
    after = os.times()
    return time.perf_counter() - wall, after.user + after.system - before.user - before.system


def measure_time(model: str, size: int, batch: int) -> dict[str, Any]:
    """Return images/s, ours and Keras', the relative cost of ours, and the cost of a checkpoint."""
    from training.fit.prepare import prepare
    from training.fit.session import Session
    from training.monitor.progress import ProgressDisplay
    from training.runs.run import Run

    recipe = noisy(model, size, batch, STEPS, TURNS + 1)
    ours, (_, pipeline, plain, _) = prepare(recipe), prepare(recipe)
    with tempfile.TemporaryDirectory() as folder:
        session = Session(Run.create(recipe, Path(folder) / "run"), *ours)
        display = ProgressDisplay("overhead", TURNS + 1, STEPS, batch, False)
        taken: dict[str, list[tuple[float, float]]] = {"ours": [], "keras": [], "checkpoint": []}
        for epoch in range(TURNS + 1):
            rows: list[dict[str, Any]] = []
            taken["keras"].append(seconds(lambda e=epoch: plain_epoch(pipeline, plain, e)))
            taken["ours"].append(seconds(lambda e=epoch, r=rows: r.append(session._epoch(e, display))))
            taken["checkpoint"].append(seconds(lambda r=rows: session._end_epoch(r[0], display, None)))
            print(epoch, {name: times[-1] for name, times in taken.items()}, file=sys.stderr, flush=True)
        session.board.close()
    # The first epoch traces and compiles.
    median = {name: [statistics.median(t[i] for t in times[1:]) for i in (0, 1)] for name, times in taken.items()}
    return {
        "images_per_second": {name: STEPS * batch / median[name][0] for name in ("ours", "keras")},
        "logging_and_diagnostics": {
            kind: median["ours"][i] / median["keras"][i] - 1 for i, kind in enumerate(("wall", "processor"))
        },
        "checkpoint_seconds": median["checkpoint"][0],
        "checkpoint": median["checkpoint"][0] / CHECKPOINT_SECONDS,
    }


def measure_memory(who: str, model: str, size: int, batch: int) -> dict[str, Any]:
    """Return the peak memory of this process in MiB, after two short epochs and after saving the model."""
    from training.fit.prepare import prepare
    from training.fit.session import Session
    from training.monitor.progress import ProgressDisplay
    from training.runs.run import Run

    recipe = noisy(model, size, batch, MEMORY_STEPS, 2)
    prepared = prepare(recipe)
    _, pipeline, keras_model, _ = prepared
    with tempfile.TemporaryDirectory() as folder:
        if who == "ours":
            session = Session(Run.create(recipe, Path(folder) / "run"), *prepared)
            session.train(ProgressDisplay("overhead", 2, MEMORY_STEPS, batch, False), None)
            fit = peak()
            session.finish()
        else:
            for epoch in range(2):
                validation = pipeline.evaluate("validation")
                keras_model.fit(pipeline.train(epoch), validation_data=validation, shuffle=False, verbose=0)
            fit = peak()
            keras_model.save(Path(folder) / "model.keras", include_optimizer=False)
    return {"fit": fit, "saved": peak()}


def peak() -> float:
    """Return the peak memory of this process so far, MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    what, name, *numbers = sys.argv[1:]
    found = measure_time(name, *map(int, numbers)) if what == "time" else measure_memory(what, name, *map(int, numbers))
    print(json.dumps(found))
