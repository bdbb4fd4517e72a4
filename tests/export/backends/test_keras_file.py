"""The .keras file: opens without this package if it can, reports what it needs otherwise, and runs no code."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile

import numpy as np
import pytest

import export
import zoo
from export.backends.keras.file import KerasRuntime, read_metadata, required_modules, write_file
from export.core.manifest import SAMPLES
from export.core.samples import read_samples
from zoo.common.errors import RunError

# A process that knows Keras and not this package.
ALONE = """
import sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("zoo", "training", "export"):
            raise ImportError(f"{name} is not here")
sys.meta_path.insert(0, Blocked())
import keras, numpy
path, given, out = sys.argv[1:]
model = keras.saving.load_model(path, compile=False)
numpy.save(out, model.predict(numpy.load(given)["inputs"].astype("float32"), verbose=0))
"""


def alone(path, given, out):
    """Open a file in such a process; returns its standard error, "" if all went well."""
    command = [sys.executable, "-c", ALONE, str(path), str(given), str(out)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=out.parent)
    return done.stderr if done.returncode else ""


def test_opens_without_this_package(artifacts, tmp_path):
    """All test images, preprocessing inside, in a process that cannot import ours."""
    artifact = artifacts["keras"]
    samples = artifact.folder / SAMPLES
    assert alone(artifact.path, samples, tmp_path / "logits.npy") == ""
    logits, found = read_samples(samples)["logits"], np.load(tmp_path / "logits.npy")
    np.testing.assert_allclose(found, logits, rtol=1e-4, atol=1e-4 * np.abs(logits).max())
    assert artifact.manifest["required_modules"] == []


def test_layers_of_ours_are_named(tmp_path):
    """AlexNet's local response normalization is no layer of Keras; the process above does not open it, we do."""
    model = zoo.get("alexnet_tiny")
    path, images = tmp_path / "model.keras", np.zeros((2, 32, 32, 3), "float32")
    write_file(model, path, {"output": "logits"})
    np.savez(tmp_path / "samples.npz", inputs=images)
    assert required_modules(path) == ("zoo",)
    assert "LocalResponseNormalization" in alone(path, tmp_path / "samples.npz", tmp_path / "logits.npy")
    runtime = KerasRuntime(path)
    assert runtime.required_modules == ("zoo",)
    np.testing.assert_allclose(runtime(images), model.predict(images, verbose=0), rtol=1e-4, atol=1e-5)


def test_facts_are_in_the_file(artifacts):
    """The metadata is stored in addition to Keras' own version."""
    artifact = artifacts["keras"]
    assert read_metadata(artifact.path) == artifact.manifest["metadata"] == export.load(artifact.path).metadata
    with zipfile.ZipFile(artifact.path) as file:
        assert json.loads(file.read("metadata.json"))["keras_version"]


def test_code_in_a_file_does_not_run(tmp_path):
    """A layer with serialized Python code is refused in one line."""
    from zoo.common.lazy import keras

    inputs = keras.Input((4,))
    keras.Model(inputs, keras.layers.Lambda(lambda x: x + 1)(inputs)).save(tmp_path / "model.keras")
    with pytest.raises(RunError, match="safe mode") as refused:
        KerasRuntime(tmp_path / "model.keras")
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("content", [None, b"no archive", b""])
def test_damaged_files_are_one_line(artifacts, tmp_path, content):
    """A truncated file, a file of another kind, and an empty file are refused."""
    path = tmp_path / "model.keras"
    whole = artifacts["keras"].path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2] if content is None else content)
    with pytest.raises(RunError, match=r"Expected a \.keras file") as refused:
        KerasRuntime(path)
    assert "\n" not in str(refused.value)
