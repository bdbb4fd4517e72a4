"""The real all-MiniLM-L6-v2: strings become its own vectors in Keras and in every runtime; downloads the package."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import pytest
from sentences import datasets_described

import export
import zoo

pytestmark = pytest.mark.slow

# The vectors of sentence-transformers; see record_minilm.py. The first twenty texts are ten pairs.
REFERENCES = json.loads(gzip.decompress(Path(__file__).with_name("minilm_references.json.gz").read_bytes()))
TEXTS, VECTORS, PAIRS = REFERENCES["texts"], np.array(REFERENCES["vectors"]), slice(0, 20)
FLOAT = ("keras", "saved_model", "onnx", "tflite")
# The lowest cosine with the float vector: of plain sentences; and also of an empty text, Chinese, emoji and 400 words.
# LiteRT has a range of activations for each text, ONNX Runtime's dynamic format for a batch.
INT8 = {
    "tflite_dynamic": (0.995, 0.985),
    "onnx_int8": (0.995, 0.98),
    "onnx_dynamic": (0.995, 0.98),
    "onnx_dynamic:block=32": (0.999, 0.998),
    "openvino_int8": (0.995, 0.98),
}


@pytest.fixture(scope="module")
def model(minilm):
    """The model in Keras."""
    return zoo.get("minilm_l6", weights=minilm)


@pytest.fixture(scope="module")
def artifacts(minilm, tmp_path_factory):
    """The artifacts by format."""
    place = tmp_path_factory.mktemp("artifacts")
    texts = place / "texts.txt"
    # Unlike the recorded texts.
    texts.write_text("\n".join(datasets_described()), encoding="utf-8")
    made = export.convert("minilm_l6", [*FLOAT, *INT8], weights=minilm, calibration=texts, out=place / "out")
    return dict(zip([*FLOAT, *INT8], (artifact.path for artifact in made), strict=True))


def similarities(vectors):
    """The cosine of each of the ten pairs."""
    units = vectors[PAIRS] / np.linalg.norm(vectors[PAIRS], axis=-1, keepdims=True)
    return (units[0::2] * units[1::2]).sum(-1)


def test_vectors_in_keras(model):
    """They are those of sentence-transformers, for accents, Chinese, emoji, special tokens and truncated texts too."""
    np.testing.assert_allclose(zoo.embed(model, TEXTS), VECTORS, atol=1e-4)


@pytest.mark.parametrize("fmt", FLOAT)
def test_vectors_in_each_runtime(fmt, artifacts, model):
    """Ids, and in the SavedModel strings, become the same vectors."""
    runtime = export.load(artifacts[fmt])
    np.testing.assert_allclose(runtime(zoo.tokenize(model, TEXTS)), VECTORS, atol=1e-4)
    if fmt == "saved_model":
        np.testing.assert_allclose(runtime.classify_strings(TEXTS), VECTORS, atol=1e-4)


@pytest.mark.parametrize("fmt", INT8)
def test_int8_keeps_direction_and_order(fmt, artifacts, model):
    """The cosine with the float vector has a bound, and the pairs keep their order."""
    found = export.load(artifacts[fmt])(zoo.tokenize(model, TEXTS))
    cosines = (found * VECTORS).sum(-1) / np.linalg.norm(found, axis=-1)
    plain, every = INT8[fmt]
    assert cosines[PAIRS].min() >= plain
    assert cosines.min() >= every
    np.testing.assert_array_equal(similarities(found).argsort(), similarities(VECTORS).argsort())


def test_comparison_can_fail(model):
    """Control: one word more gives another vector."""
    assert np.abs(zoo.embed(model, ["Not " + TEXTS[0]]) - VECTORS[:1]).max() > 1e-3
