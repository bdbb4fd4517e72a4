"""Private artifacts: no example of the data is in them, and they can still be verified, loaded and measured."""

from __future__ import annotations

import shutil

import numpy as np
import pytest

import export
from export.conversion.generated_samples import MEANING
from export.core.manifest import MASKS, SAMPLES, write_manifest
from export.core.samples import read_samples
from training.learning.evaluation import open_data
from training.runs.run import Run
from zoo.common.errors import ParityError

ALL = sorted(export.list_formats())


@pytest.fixture(scope="module")
def run(digits_run, tmp_path_factory):
    """A run without exports."""
    path = tmp_path_factory.mktemp("private") / "run"
    return Run.open(shutil.copytree(digits_run.path, path, ignore=shutil.ignore_patterns("exports")))


def without_data(run, artifact):
    """The samples have no image and no label of the data; the control: those of other artifacts have."""
    samples = read_samples(artifact.folder / SAMPLES)
    assert samples.keys() == {"inputs", "logits"}
    images = {image.tobytes() for split in ("train", "test") for image in open_data(run).raw(split, 2000)[0]}
    assert not [image for image in samples["inputs"] if image.tobytes() in images]
    return images


@pytest.fixture(scope="module")
def private(run):
    """A private artifact; no test changes it."""
    (artifact,) = export.convert(run, "onnx", private=True)
    return artifact


def test_private_artifact_verifies_without_data(run, private, artifacts, zoo_command):
    """It is verified on generated inputs, the command says what that proves, and the accuracy is in the manifest."""
    artifact, public = private, artifacts["onnx"]
    images = without_data(run, artifact)
    assert artifact.manifest["private"]
    assert artifact.parity["accuracy"] > 0.5
    found = export.verify(artifact.path)
    assert (found.parity["accuracy"], found.parity["passed"]) == (None, True)
    code, out, _ = zoo_command("verify", artifact.path)
    assert (code, out.splitlines()[-1]) == (0, MEANING)
    assert not public.manifest["private"]
    assert read_samples(public.folder / SAMPLES)["inputs"][0].tobytes() in images


@pytest.mark.slow
@pytest.mark.parametrize("name", ALL)
def test_every_format_can_be_private(run, name):
    """Also formats of several files, and calibrated ones."""
    (artifact,) = export.convert(run, name, private=True)
    without_data(run, artifact)
    assert export.verify(artifact.path).parity["passed"]


@pytest.mark.slow
@pytest.mark.parametrize("model", ["encoder_tiny", "transformer_tiny"])
def test_other_tasks_can_be_private(model, tmp_path):
    """Ids, and generated sequences."""
    (artifact,) = export.convert(model, "onnx", weights="random", out=tmp_path, private=True)
    assert export.verify(artifact.path).parity["passed"]


def test_another_model_is_still_refused(private, tmp_path):
    """The control: generated inputs tell an artifact whose outputs are not those of the export."""
    artifact, folder = private, tmp_path / "onnx"
    shutil.copytree(artifact.folder, folder)
    samples = read_samples(folder / SAMPLES)
    np.savez_compressed(folder / SAMPLES, inputs=samples["inputs"], logits=samples["logits"] * 1.01)
    files = {"files", "bytes", "digest", "version"}
    write_manifest(folder, {key: value for key, value in artifact.manifest.items() if key not in files})
    assert not (folder / MASKS).exists()
    with pytest.raises(ParityError):
        export.verify(folder)
