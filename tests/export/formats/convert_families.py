"""Convert models of the registry without a run: `python convert_families.py FOLDER NAME=FORMAT,FORMAT...`.

Converters leak and stay loaded, so that tests start this as a process of its own. For each name the folder NAME then
has samples.npz (raw values or ids, labels that are -1 for padding, and the outputs of Keras), the artifacts by
format or FORMAT.txt with the error, and seconds.json (processor time of each).
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

import zoo
from export.core.format import formats
from export.core.samples import take_examples, write_samples
from export.source.source import SourceModel
from zoo.common.errors import ZooError
from zoo.common.lazy import keras
from zoo.specs.text import START

PIXELS = zoo.PreprocessingConfig((127.5,), (60.0,))


def model_of(name: str, draw: np.random.Generator) -> Any:
    """Return the model with random weights, statistics and offsets that are not trivial."""
    keras.utils.set_random_seed(0)
    model = zoo.get(name)
    for variable in model.weights:
        if variable.name in ("moving_mean", "beta", "bias"):
            variable.assign(draw.uniform(-0.1, 0.1, variable.shape))
        elif variable.name in ("moving_variance", "gamma"):
            variable.assign(draw.uniform(0.8, 1.2, variable.shape))
        elif variable.name == "token":
            # As large as the patches next to it, as after training; int8 has no step for a fiftieth of them.
            variable.assign(draw.uniform(-1.0, 1.0, variable.shape))
    return model


def ids(draw: np.random.Generator, vocabulary: int, length: int, count: int = 32) -> np.ndarray:
    """Return token ids (count, length): the first without padding, the others with some, the second with most."""
    drawn = draw.integers(START + 2, vocabulary, (count, length)).astype("int32")
    for row, end in zip(drawn[1:], [2, *draw.integers(1, length + 1, count)], strict=False):
        row[end:] = 0
    return drawn


def inputs_of(model: Any, name: str, draw: np.random.Generator) -> tuple[Any, np.ndarray]:
    """Return 32 inputs as an artifact takes them, and labels, which are -1 for padding."""
    spec, shapes = zoo.spec(name), [tuple(tensor.shape[1:]) for tensor in model.inputs]
    if not spec.vocabulary:
        return draw.integers(0, 256, (32, *shapes[0])).astype("float32"), np.zeros(32, "int64")
    drawn = [ids(draw, spec.vocabulary, *shape) for shape in shapes]
    if spec.task in ("classify", "embed"):
        return drawn[0], np.zeros(32, "int64")
    labels = np.where(drawn[-1] > 0, 0, -1)
    if spec.task == "tag":
        return drawn[0], labels
    drawn[1][:, 0] = START
    return dict(zip(spec.inputs, drawn, strict=True)), labels


def convert(name: str, wanted: list[str], folder: Path) -> None:
    """Write the model of a name in each format."""
    draw = np.random.default_rng(0)
    model = model_of(name, draw)
    inputs, labels = inputs_of(model, name, draw)
    classes = [str(i) for i in range(model.output_shape[-1])]
    task = zoo.spec(name).task
    classes = [] if task == "embed" else classes
    (folder / "shared").mkdir()
    source = SourceModel(
        model,
        PIXELS,
        classes,
        lambda count: take_examples(inputs, count),
        folder / "shared",
        metadata={"task": task},
    )
    samples = {"inputs": inputs, "labels": labels, "logits": source.model.predict(inputs, verbose=0)}
    if source.task == "generate":
        samples["tokens"] = zoo.generate(model, inputs["source"])
    write_samples(samples, folder / "samples.npz")
    seconds = {}
    for fmt in wanted:
        start = time.process_time()
        (folder / fmt).mkdir()
        try:
            backend = formats[fmt].backend(source.task)
            backend.write(source, folder / fmt / backend.file)
        except ZooError as error:
            (folder / f"{fmt}.txt").write_text(str(error), encoding="utf-8")
        seconds[fmt] = time.process_time() - start
    (folder / "seconds.json").write_text(json.dumps(seconds))


if __name__ == "__main__":
    place, *pairs = sys.argv[1:]
    for one, chosen in (pair.split("=") for pair in pairs):
        (Path(place) / one).mkdir(parents=True)
        convert(one, chosen.split(","), Path(place) / one)
        keras.backend.clear_session()
