"""Images/s of ResNet-50, 160 px, batch 16: `python benchmarks/resnet50_training.py ours|keras`.

Ours is `training.train` itself, with its pipeline, checks, metrics and checkpoints, under mixed_bfloat16. Keras' is
keras.applications.ResNet50 with compile and fit as they come. Both see the same random images.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path

STEPS, BATCH, SIZE, CLASSES, EPOCHS = 8, 16, 160, 1000, 5


def images() -> tuple:
    """Return random images (n, 160, 160, 3) as uint8 and labels."""
    import numpy as np

    rng = np.random.default_rng(0)
    count = STEPS * BATCH
    return rng.integers(0, 256, (count, SIZE, SIZE, 3), "uint8"), rng.integers(0, CLASSES, count)


def ours() -> list[float]:
    """Train by recipe; the figures are those of the run's metrics."""
    import tensorflow as tf

    import training

    def noise(_: training.DataConfig) -> training.Dataset:
        x, y = images()
        encoded = tf.data.Dataset.from_tensor_slices((x, y)).map(lambda i, label: (tf.io.encode_png(i), label))
        split = training.Split(encoded, len(x))
        few = training.Split(encoded.take(BATCH), BATCH)
        labels = tuple(str(i) for i in range(CLASSES))
        return training.Dataset("noise", labels, (SIZE, SIZE, 3), {"train": split, "validation": few})

    training.register_dataset("noise")(noise)
    recipe = training.Recipe(
        name="bench",
        model=training.ModelConfig("resnet50"),
        data=training.DataConfig("noise", batch_size=BATCH),
        optimizer=training.OptimizerConfig("sgd", learning_rate=0.01),
        epochs=EPOCHS,
        precision="mixed_bfloat16",
        strategy="one",
        keep="last",
    )
    with tempfile.TemporaryDirectory() as folder:
        run = training.train(recipe, run=Path(folder) / "run")
        return [row["images_per_second"] for row in run.metrics()]


def keras() -> list[float]:
    """Train keras.applications.ResNet50 as its documentation shows; timed from the first to the last step only."""
    import keras

    class Timer(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
            self.start = time.perf_counter()

        def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
            rates.append(len(x) / (time.perf_counter() - self.start))

    rates: list[float] = []
    x, y = images()
    model = keras.applications.ResNet50(weights=None, input_shape=(SIZE, SIZE, 3), classes=CLASSES)
    model.compile(keras.optimizers.SGD(0.01, momentum=0.9), "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.fit(x.astype("float32"), y, batch_size=BATCH, epochs=EPOCHS, verbose=0, callbacks=[Timer()])
    return rates


if __name__ == "__main__":
    # The first epoch traces and compiles.
    print(json.dumps({"images_per_second": {"ours": ours, "keras": keras}[sys.argv[1]]()[1:]}))
