"""Fixtures of the export tests: one trained run, its artifacts, the digits, a short training, served models."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import types

import pytest

# Exported in the same process as all formats, since starting one takes longer than converting a model this small.
VARIANTS = (
    "onnx:axis=images,opset=18", "onnx:batch=4", "onnx:external=true,opset=21", "onnx_int8:opset=21",
    "openvino:batch=4", "saved_model:input=uint8", "tflite:batch=7,input=uint8",
    "tflite_int8:batch=7,input=uint8,output=uint8", "tflite_int8:input=float32,output=float32",
    "tflite_int16x8:input=int16,output=int16",
)  # fmt: skip
# Runs in a process with TensorFlow alone.
SERVE = """
import json, sys
import tensorflow as tf
path, name, texts = json.loads(sys.argv[1])
out = tf.saved_model.load(path).signatures[name](text=tf.constant(texts))
rooms = sorted({m.partition(".")[0] for m in sys.modules} & {"zoo", "training", "export"})
print(json.dumps([{k: v.numpy().tolist() for k, v in out.items()}, rooms], default=bytes.decode))
"""


@pytest.fixture(scope="session")
def copied(digits_run):
    """Copy the trained run without its artifacts: `copied(place)` returns the copy."""
    from training.runs.run import Run

    def copy(place):
        shutil.copytree(digits_run.path, place, ignore=shutil.ignore_patterns("exports", "compressed", "tensorboard"))
        return Run.open(place)

    return copy


@pytest.fixture(scope="session")
def digits_artifacts(once, copied, tmp_path_factory):
    """Artifacts of the run in every format and with options, by the requested text; no test changes them."""
    import export
    from export.core.format import parse_format
    from export.core.manifest import read_manifest
    from export.verification.artifact import Artifact

    wanted = (*export.list_formats(exclude="their_*"), *VARIANTS)

    def make():
        run = copied(tmp_path_factory.mktemp("exported") / "run")
        export.convert(run, wanted)
        return run.exports

    def opened(exports, request):
        folder = exports / request.slug
        return Artifact(folder / request.format.backend("classify").file, read_manifest(folder))

    exports = once("exported", make)
    return {text: opened(exports, parse_format(text)) for text in wanted}


@pytest.fixture(scope="session")
def artifacts(digits_artifacts):
    """The artifacts without options, by format."""
    return {text: artifact for text, artifact in digits_artifacts.items() if text not in VARIANTS}


@pytest.fixture(scope="session")
def variants(digits_artifacts):
    """The artifacts with options, by the requested text."""
    return {text: digits_artifacts[text] for text in VARIANTS}


@pytest.fixture(scope="session")
def digits():
    """The digits' splits, normalized: x and y to train on, test_x and test_y to evaluate on."""
    import numpy as np

    from training.datasets.digits import TEST, TRAIN, VALIDATION, load_pixels

    pixels, labels = load_pixels()
    values = ((pixels - np.float32(78.0)) / np.float32(95.7)).astype("float32")
    fit = slice(TRAIN.start, VALIDATION.stop)
    test = slice(TEST.start, TEST.stop)
    return types.SimpleNamespace(x=values[fit], y=labels[fit], test_x=values[test], test_y=labels[test])


@pytest.fixture(scope="session")
def trained(digits):
    """Train a model on the digits: `trained(model, epochs, callbacks)`, the signature that compressions use."""
    from training.optim.sgd import fused_sgd
    from zoo.common.lazy import keras

    def train(model, epochs, callbacks=(), rate=0.05, **options):
        steps = -(-len(digits.x) // 64) * epochs
        schedule = keras.optimizers.schedules.CosineDecay(rate, steps)
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        optimizer = fused_sgd()(schedule, momentum=0.9, nesterov=True, **options)
        model.compile(optimizer, loss, metrics=["accuracy"], jit_compile=False)
        model.fit(digits.x, digits.y, batch_size=64, epochs=epochs, callbacks=list(callbacks), verbose=0)
        return model

    return train


@pytest.fixture(scope="session")
def accuracy(digits):
    """The accuracy of a model on the test digits."""

    def evaluate(model):
        return float((model.predict(digits.test_x, verbose=0).argmax(-1) == digits.test_y).mean())

    return evaluate


@pytest.fixture(scope="session")
def served():
    """The outputs of a SavedModel's signature in a process with TensorFlow alone: `served(path, name, texts)`."""

    def run(path, name, texts):
        given = json.dumps([str(path), name, texts])
        command = [sys.executable, "-c", SERVE, given]
        done = subprocess.run(command, capture_output=True, text=True, cwd=path, check=True)
        found, rooms = json.loads(done.stdout.splitlines()[-1])
        assert rooms == []
        return found

    return run
