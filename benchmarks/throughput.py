"""Measure training images/s of one model: `python benchmarks/throughput.py ours|keras|torch MODEL SIZE BATCH`.

Ours is `training.train`, with its pipeline, checks, metrics and checkpoints, under mixed_bfloat16. Keras' is the model
of keras.applications with plain compile and fit. PyTorch's is torchvision's, or timm's for vision transformers, eager,
channels_last, under bfloat16 autocast; it needs `pip install torch torchvision timm`. All train on the same random
images with SGD with momentum, or AdamW for transformers. Images per second of processor time are printed too: other
programs disturb them less.
"""

from __future__ import annotations

import itertools
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

STEPS, CLASSES, EPOCHS = 8, 1000, 5
KERAS = {"resnet50": "ResNet50"}
TRANSFORMERS = ("vit_", "deit_")
# Processor time at the end of each epoch.
MARKS: list[float] = []
RATE = {"sgd": 1e-4, "adamw": 1e-5}


def images(size: int, batch: int) -> tuple:
    """Return random images (n, size, size, 3) as uint8 and labels."""
    import numpy as np

    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (STEPS * batch, size, size, 3), "uint8"), rng.integers(0, CLASSES, STEPS * batch)


def optimizer_of(model: str) -> str:
    """Return the name of the optimizer of a model."""
    return "adamw" if model.startswith(TRANSFORMERS) else "sgd"


def ours(model: str, size: int, batch: int) -> list[float]:
    """Train by recipe; return the images/s of the run's metrics."""
    import tensorflow as tf

    import training

    def noise(_: training.DataConfig) -> training.Dataset:
        x, y = images(size, batch)
        encoded = tf.data.Dataset.from_tensor_slices((x, y)).map(lambda i, label: (tf.io.encode_png(i), label))
        split = training.Split(encoded, len(x))
        few = training.Split(encoded.take(batch), batch)
        labels = tuple(str(i) for i in range(CLASSES))
        return training.Dataset("noise", labels, (size, size, 3), {"train": split, "validation": few})

    training.register_dataset("noise")(noise)
    recipe = training.Recipe(
        name="bench",
        model=training.ModelConfig(model),
        data=training.DataConfig("noise", batch_size=batch),
        optimizer=training.OptimizerConfig(optimizer_of(model), learning_rate=RATE[optimizer_of(model)]),
        epochs=EPOCHS,
        precision="mixed_bfloat16",
        strategy="one",
        save="last",
    )
    with tempfile.TemporaryDirectory() as folder:
        # A mark for each epoch, which includes validation and checkpoint; the peers have neither.
        run = training.train(recipe, run=Path(folder) / "run", observe=lambda _: MARKS.append(time.process_time()))
        return [row["images_per_second"] for row in run.metrics()]


def keras(model: str, size: int, batch: int) -> list[float]:
    """Train the model of keras.applications as its documentation shows; time the steps only."""
    import keras

    class Timer(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
            self.start = time.perf_counter()

        def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
            rates.append(len(x) / (time.perf_counter() - self.start))
            MARKS.append(time.process_time())

    rates: list[float] = []
    x, y = images(size, batch)
    build = getattr(keras.applications, KERAS[model])
    keras_model = build(weights=None, input_shape=(size, size, 3), classes=CLASSES)
    keras_model.compile(
        keras.optimizers.SGD(0.01, momentum=0.9), "sparse_categorical_crossentropy", metrics=["accuracy"]
    )
    keras_model.fit(x.astype("float32"), y, batch_size=batch, epochs=EPOCHS, verbose=0, callbacks=[Timer()])
    return rates


def peer(model: str) -> Any:
    """Return the PyTorch model."""
    if model.startswith(TRANSFORMERS):
        import timm

        return timm.create_model(model, pretrained=False)
    import torchvision

    # Inception is compared without its auxiliary classifier, as ours is.
    return getattr(torchvision.models, model)(**{"aux_logits": False} if model == "inception_v3" else {})


def torch(model: str, size: int, batch: int) -> list[float]:
    """Train torchvision's or timm's model eagerly, without compilation."""
    import torch

    module = peer(model).train().to(memory_format=torch.channels_last)
    if optimizer_of(model) == "adamw":
        optimizer = torch.optim.AdamW(module.parameters(), RATE["adamw"], fused=True)
    else:
        optimizer = torch.optim.SGD(module.parameters(), RATE["sgd"], momentum=0.9, nesterov=True)
    pixels, labels = images(size, batch)
    x = torch.from_numpy(pixels).permute(0, 3, 1, 2).float().div(127.5).sub(1)
    x, y = x.contiguous(memory_format=torch.channels_last), torch.from_numpy(labels)

    def step(i: int) -> None:
        part = slice(i * batch, (i + 1) * batch)
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast("cpu", torch.bfloat16):
            loss = torch.nn.functional.cross_entropy(module(x[part]), y[part])
        loss.backward()
        optimizer.step()

    rates = []
    for _ in range(EPOCHS):
        start = time.perf_counter()
        for i in range(STEPS):
            step(i)
        rates.append(len(x) / (time.perf_counter() - start))
        MARKS.append(time.process_time())
    return rates


if __name__ == "__main__":
    who, name, *numbers = sys.argv[1:]
    found = {"ours": ours, "keras": keras, "torch": torch}[who](name, *map(int, numbers))
    # The first epoch traces and compiles.
    worked = [STEPS * int(numbers[1]) / (after - before) for before, after in itertools.pairwise(MARKS)]
    print(json.dumps({"images_per_second": found[1:], "images_per_processor_second": worked}))
