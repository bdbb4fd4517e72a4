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
theirs, given, out, ours = sys.argv[1:]
model = keras.saving.load_model(theirs, compile=False)
numpy.save(out, model.predict(numpy.load(given)["inputs"].astype("float32"), verbose=0))
try:
    keras.saving.load_model(ours, compile=False)
except Exception as error:
    print(error)
"""


@pytest.fixture(scope="module")
def model():
    """AlexNet: its local response normalization is no layer of Keras."""
    return zoo.get("alexnet_tiny")


@pytest.fixture(scope="module")
def ours(model, tmp_path_factory):
    """A file with a layer of ours."""
    path = tmp_path_factory.mktemp("ours") / "model.keras"
    write_file(model, path, {"output": "logits"})
    return path


@pytest.fixture(scope="module")
def alone(artifacts, ours):
    """Open the artifact and the file with a layer of ours in such a process; returns logits and the second's error."""
    artifact, out = artifacts["keras"], ours.with_name("logits.npy")
    command = [sys.executable, "-c", ALONE, *map(str, (artifact.path, artifact.folder / SAMPLES, out, ours))]
    done = subprocess.run(command, capture_output=True, text=True, cwd=out.parent)
    assert done.returncode == 0, done.stderr
    return np.load(out), done.stdout


@pytest.mark.slow
def test_opens_without_this_package(artifacts, alone):
    """All test images, preprocessing inside, in a process that cannot import ours; the other file is the control."""
    logits, (found, error) = read_samples(artifacts["keras"].folder / SAMPLES)["logits"], alone
    np.testing.assert_allclose(found, logits, rtol=1e-4, atol=1e-4 * np.abs(logits).max())
    assert "LocalResponseNormalization" in error


def test_layers_of_ours_are_named(artifacts, model, ours):
    """The modules that a file needs are listed, and we open it."""
    assert artifacts["keras"].manifest["required_modules"] == []
    assert required_modules(ours) == ("zoo",)
    runtime, images = KerasRuntime(ours), np.zeros((2, 32, 32, 3), "float32")
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
