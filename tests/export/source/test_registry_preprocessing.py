"""Exports of registry models contain the preprocessing, the labels and the license of their weights."""

from __future__ import annotations

import keras
import numpy as np
import pytest

import export
import zoo
from zoo.common.errors import BadOption
from zoo.specs.preprocessing import PRESETS, PreprocessingConfig

OWN = PreprocessingConfig(mean=(60.0, 70.0, 80.0), std=(90.0, 80.0, 70.0), crop=0.875)
LABELS = tuple(f"label {i}" for i in range(10))


@pytest.fixture(scope="module")
def model():
    """A model with weights for a preprocessing that is not the spec's."""
    return zoo.get("cnn_tiny", input_shape=(16, 16, 3), preprocessing=OWN)


def convert(weights, tmp_path, **options):
    """The ONNX artifact of the weights."""
    options = {"input_shape": (16, 16, 3), **options}
    (artifact,) = export.convert("cnn_tiny", "onnx", weights=weights, out=tmp_path / "out", options=options)
    return artifact


def test_preprocessing_of_the_file_is_inside(model, tmp_path):
    """Raw pixels in the artifact give what normalized pixels give in the model; the manifest states the weights."""
    zoo.save_weights(model, tmp_path / "w.safetensors")
    artifact = convert(tmp_path / "w.safetensors", tmp_path)
    assert artifact.manifest["metadata"]["preprocessing"] == {**OWN.to_json(), "inside": True}
    pixels = np.random.default_rng(0).integers(0, 256, (4, 16, 16, 3)).astype("float32")
    expected = np.asarray(model((pixels - np.array(OWN.mean, "float32")) / np.array(OWN.std, "float32")))
    found = np.asarray(export.load(artifact.path)(pixels))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())
    wrong = np.asarray(model((pixels - 127.5) / 127.5))
    assert np.abs(wrong - expected).max() > 1e-2 * np.abs(expected).max()
    assert {"weights_origin", "weights_license", "weights_sha256"} <= set(artifact.manifest["source"])


def test_weights_that_state_nothing_are_refused(model, tmp_path, zoo_command):
    """They need --preprocessing, on the command line and in Python; a preset's name is enough."""
    plain = keras.Model(model.input, model.output, name="cnn_tiny")
    plain.save(tmp_path / "plain.keras")
    with pytest.raises(BadOption, match=r"must state the preprocessing .* Pass preprocessing \(--preprocessing\)"):
        convert(tmp_path / "plain.keras", tmp_path)
    assert not (tmp_path / "out").exists()
    artifact = convert(tmp_path / "plain.keras", tmp_path, preprocessing="tf")
    assert artifact.manifest["metadata"]["preprocessing"]["mean"] == list(PRESETS["tf"].mean)
    code, _, err = zoo_command("export", "cnn_tiny", "--format", "onnx", "--weights", "random", "--preprocessing", "x")
    assert (code, err.count("\n")) == (2, 1)
    assert "Received" in err


def test_random_head_is_refused(tmp_path):
    """Another number of classes than that of the weights would leave the last layer random."""
    theirs = keras.applications.MobileNetV2(weights=None, input_shape=(32, 32, 3), classes=7)
    theirs.save(tmp_path / "theirs.keras")
    with pytest.raises(BadOption, match=r"have 7 classes; .* starts at random\. An export needs trained weights"):
        export.convert(
            "mobilenet_v2",
            "onnx",
            weights=tmp_path / "theirs.keras",
            out=tmp_path / "out",
            options={"classes": 5},
        )
