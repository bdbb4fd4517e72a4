"""Compare input pipelines, from JPEG files to batches at 224 pixels with augmentation: `python benchmarks/data.py`.

Ours is the pipeline of a recipe with flip and crop_scale. Keras' is `image_dataset_from_directory` with layers mapped
over its batches, as its documentation shows: RandomFlip and Normalization after RandomZoom, the nearest that Keras has
to a crop of random size, or after RandomCrop, which is cheaper and has a fixed size. All read the same generated
photographs of 400x500 pixels, in turns, one epoch each. With --waiting, it also measures the fraction of time that a
model for digits waits for data.
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

FILES, CLASSES, SIZE, BATCH, TURNS = 512, 8, 224, 64, 5


def photograph(number: int, height: int = 400, width: int = 500) -> Any:
    """Return a PIL image of gradients, detail and noise; its JPEG has the size of a photograph, 85 kB."""
    import numpy as np
    from PIL import Image

    random = np.random.default_rng(number)

    def smooth(*cells: int) -> Any:
        small = Image.fromarray(random.integers(0, 256, (*cells, 3)).astype("uint8"))
        return np.asarray(small.resize((width, height), Image.Resampling.BICUBIC), "float32")

    pixels = 0.7 * smooth(8, 10) + 0.3 * smooth(height // 8, width // 8) + random.normal(0, 8, (height, width, 1))
    return Image.fromarray(np.clip(pixels, 0, 255).astype("uint8"))


def generate(folder: Path, files: int = FILES) -> None:
    """Write photographs as JPEGs, one sub-folder for each class."""
    for i in range(files):
        place = folder / f"class{i % CLASSES}"
        place.mkdir(parents=True, exist_ok=True)
        photograph(i).save(place / f"{i:04d}.jpg", quality=90)


def ours(folder: Path) -> Callable[[int], Any]:
    """Return a function from an epoch to batches, by recipe."""
    import zoo
    from training import AugmentConfig, DataConfig, ModelConfig, Recipe
    from training.data.pipeline.opening import open_pipeline

    augment = AugmentConfig(flip=True, crop_scale=(0.08, 1.0))
    # Nearly all images train, so that an epoch is as long as Keras'.
    data = DataConfig("folder", str(folder), BATCH, (SIZE, SIZE), augment=augment, split_fractions=(0.9, 0.1, 0.0))
    pipeline = open_pipeline(Recipe("bench", model=ModelConfig("resnet50"), data=data), zoo.spec("resnet50"))
    return pipeline.train


def keras(folder: Path, crop: bool) -> Callable[[int], Any]:
    """Return a function from an epoch to batches, by Keras."""
    import keras
    import tensorflow as tf

    size = 256 if crop else SIZE
    files = keras.utils.image_dataset_from_directory(
        folder, image_size=(size, size), batch_size=BATCH, shuffle=True, seed=1, verbose=False
    )
    first = keras.layers.RandomCrop(SIZE, SIZE) if crop else keras.layers.RandomZoom((-0.6, 0.0))
    normal = keras.layers.Normalization(mean=(123.7, 116.3, 103.5), variance=(58.4**2, 57.1**2, 57.4**2))
    layers = keras.Sequential([first, keras.layers.RandomFlip("horizontal"), normal])
    ready = files.map(lambda x, y: (layers(x, training=True), y), tf.data.AUTOTUNE).prefetch(tf.data.AUTOTUNE)
    return lambda _: ready


def epoch(batches: Any) -> tuple[float, float]:
    """Return (images/s, images per second of processor time) of one pass over batches."""
    images, start, used = 0, time.perf_counter(), processor()
    for x, _ in batches:
        images += len(x)
    return images / (time.perf_counter() - start), images / (processor() - used)


def processor() -> float:
    """Return the processor seconds of this process, which other programs do not change."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def pipelines() -> dict[str, Any]:
    """Return medians of images/s and of images per second of processor time, by pipeline."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        generate(folder)
        makers = {"ours": ours(folder), "keras zoom": keras(folder, crop=False), "keras crop": keras(folder, crop=True)}
        found: dict[str, list[tuple[float, float]]] = {who: [] for who in makers}
        for turn in range(TURNS + 1):
            for who, batches in makers.items():
                found[who].append(epoch(batches(turn)))
    # The first turn traces, and reads the files into the cache.
    medians = {who: [statistics.median(c) for c in zip(*rows[1:], strict=True)] for who, rows in found.items()}
    return {who: {"images_per_second": wall, "per_processor_second": cpu} for who, (wall, cpu) in medians.items()}


def waiting() -> float:
    """Return the median fraction of an epoch that a small model waits for data."""
    import training

    with tempfile.TemporaryDirectory() as folder:
        run = training.train("digits_resnet", {"epochs": 6}, run=Path(folder) / "run")
        # The first epoch compiles the step.
        return statistics.median(row["data_wait"] for row in run.metrics()[1:])


if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    print(json.dumps({"pipelines": pipelines(), "waiting": waiting() if "--waiting" in sys.argv else None}))
