"""Text models: artifacts take ids, or strings if they have the vocabulary."""

from __future__ import annotations

import copy
import dataclasses
import json

import numpy as np
import pytest

import export
import training
from export.core.format import formats
from export.core.manifest import NAME, SAMPLES, write_manifest
from export.core.samples import SECOND_PASS, read_samples
from export.verification.parity import compare
from zoo.common.errors import ParityError, UnsupportedExport

# A model is trained first, and exported as every format.
pytestmark = pytest.mark.slow

EVERY = tuple(formats.names(exclude="their_*"))
FLOATS = ("onnx", "saved_model", "tflite")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of the word-order recipe, trained briefly."""
    overrides = {"epochs": 4, "data.batch_size": 32}
    return training.train("word_order_encoder", overrides, run=tmp_path_factory.mktemp("text") / "run")


@pytest.fixture(scope="module")
def exported(run):
    """The run as every format, by name."""
    return {a.format: a for a in export.convert(run, EVERY)}


@pytest.fixture(scope="module")
def samples(exported):
    """Test sentences as ids, labels, logits of the source, and the first of them as strings."""
    return read_samples(exported["onnx"].folder / SAMPLES)


@pytest.mark.parametrize("name", EVERY)
def test_artifact_equals_the_trained_model(exported, samples, run, name):
    """On a thousand padded sentences `export.load` gives the logits of model.keras within tolerance."""
    from training.learning.evaluation import load_model

    trained = load_model(run).predict(samples["inputs"], verbose=0)
    runtime, tolerance = export.load(exported[name].path), formats[name].tolerance
    logits = runtime(samples["inputs"])
    assert (logits.shape, str(logits.dtype)) == (trained.shape, "float32")
    assert np.abs(logits - trained).max() <= tolerance.relative * np.abs(trained).max()
    assert (logits.argmax(1) == trained.argmax(1)).mean() >= tolerance.agreement
    parity = exported[name].parity
    assert (parity["n"], parity["passed"], parity["sequence_agreement"]) == (1000, True, None)


@pytest.mark.parametrize("name", EVERY)
def test_interface_and_metadata(exported, run, name):
    """Inputs are int32 ids in every precision; artifact and manifest have the text config."""
    runtime, manifest = export.load(exported[name].path), exported[name].manifest
    batch = 1 if name.startswith("tflite") else None
    (given,), (out,) = runtime.inputs, runtime.outputs
    assert (given.name, given.shape, given.dtype) == ("ids", (batch, 24), "int32")
    assert (out.name, out.shape) == ("logits", (batch, 8))
    assert runtime.metadata == manifest["metadata"]
    assert runtime.metadata["text"] == run.text().to_json()
    assert len(runtime.metadata["text"]["vocabulary"]) > 20
    assert runtime.metadata["preprocessing"] is None
    assert (runtime.metadata["input"], runtime.metadata["dtype"], runtime.metadata["shape"]) == ("ids", "int32", [24])
    assert runtime.metadata["labels"] == run.result()["labels"]


@pytest.mark.parametrize("name", FLOATS)
def test_padding_changes_nothing(exported, samples, name):
    """A sentence has the same logits in a batch of longer ones and alone; padding has no effect."""
    runtime = export.load(exported[name].path)
    short = samples["inputs"][np.argmin((samples["inputs"] > 0).sum(1))][None]
    assert (short == 0).any()
    together = runtime(np.concatenate([samples["inputs"][:5], short]))[-1:]
    np.testing.assert_allclose(together, runtime(short), rtol=1e-4, atol=1e-4)
    seen = np.where(short == 0, 5, short).astype("int32")
    assert np.abs(runtime(seen) - runtime(short)).max() > 1e-2


def test_saved_model_takes_strings_without_python(exported, samples, served):
    """The signature takes strings and returns logits, scores and labels, in a process without the zoo."""
    out = served(exported["saved_model"].path, "serve_text", samples["texts"].tolist())
    assert set(out) == {"logits", "scores", "labels"}
    assert len(samples["texts"]) == SECOND_PASS
    np.testing.assert_allclose(out["logits"], samples["logits"][:SECOND_PASS], rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(np.sum(out["scores"], axis=1), 1.0, rtol=1e-5)
    labels = exported["saved_model"].manifest["metadata"]["labels"]
    assert out["labels"] == [labels[i] for i in samples["logits"][:SECOND_PASS].argmax(1)]


def test_strings_are_read_as_in_training(exported, run):
    """Case and punctuation are removed, unknown words share one id, and long texts are truncated."""
    from training.data.tokenization import tokenizer

    runtime = export.load(exported["saved_model"].path)
    texts = ["THE FOX!! chased, the dog?", "the fox chased the zyzzyva", "the fox " * 40, ""]
    ids = tokenizer(run.text(), 24)(texts).numpy()
    np.testing.assert_allclose(runtime.classify_strings(texts), runtime(ids), rtol=1e-4, atol=1e-4)
    plain = ["the fox chased the dog", "the fox chased the quagga", ("the fox " * 40)[:100], " "]
    np.testing.assert_array_equal(ids, tokenizer(run.text(), 24)(plain).numpy())
    assert export.load(exported["onnx"].path).classify_strings(texts) is None


def test_images_have_no_strings(artifacts):
    """An image model has no signature for strings."""
    with pytest.raises(UnsupportedExport, match="serve_text"):
        export.load(artifacts["saved_model"].path).classify_strings(["a dog"])


def test_int8_has_no_float(exported):
    """Ids are looked up as int8 vectors, and masks are int8 too."""
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    def dtypes(name):
        made = Interpreter(
            str(exported[name].path),
            experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
        )
        return {np.dtype(t["dtype"]).name for t in made.get_tensor_details()}

    assert dtypes("tflite_int8") <= {"int8", "int32", "int64", "bool"}
    assert "float32" in dtypes("tflite")


def test_sizes_shrink_as_promised(exported):
    """Sizes shrink, embeddings included."""
    size = {name: artifact.manifest["bytes"] for name, artifact in exported.items()}
    assert max(size["tflite_dynamic"], size["tflite_int8"]) < 0.45 * size["tflite"]
    assert max(size["onnx_dynamic"], size["onnx_int8"]) < 0.6 * size["onnx"]
    assert size["tflite_fp16"] < 0.75 * size["tflite"]


@pytest.fixture
def source(run, tmp_path):
    """The run as formats see it."""
    from export.source.run_source import open_run_source

    return open_run_source(run, tmp_path)[0]


def test_another_vocabulary_is_refused(source, samples, tmp_path):
    """Two exchanged words are found in the metadata, and in the outputs for strings if the metadata is the same."""
    expected = copy.deepcopy(source.metadata)
    words = list(source.text.vocabulary)
    (i, a), (j, b) = [(i, w) for i, w in enumerate(words) if w in source.labels][:2]
    words[i], words[j] = b, a
    source.text = dataclasses.replace(source.text, vocabulary=tuple(words))
    fmt = formats["saved_model"]
    fmt.write(source, tmp_path / "1")
    assert not compare(fmt.load(tmp_path / "1"), samples, fmt.tolerance, expected).passed
    source.metadata["text"] = source.text.to_json()
    fmt.write(source, tmp_path / "2")
    with pytest.raises(ParityError, match="metadata"):
        compare(fmt.load(tmp_path / "2"), samples, fmt.tolerance, expected)


def test_right_vocabulary_passes(source, samples, tmp_path):
    """The control of the test above."""
    fmt = formats["saved_model"]
    fmt.write(source, tmp_path / "1")
    assert compare(fmt.load(tmp_path / "1"), samples, fmt.tolerance, source.metadata).passed


def resigned(folder):
    """Sign the manifest of a changed artifact anew."""
    manifest = json.loads((folder / NAME).read_text())
    write_manifest(folder, {k: v for k, v in manifest.items() if k not in ("version", "files", "digest", "bytes")})


def test_wrong_vectors_under_right_digests_are_found(exported, tmp_path):
    """Exchanged embeddings of two words are found."""
    import shutil

    import onnx

    shutil.copytree(exported["onnx"].folder, tmp_path / "onnx")
    path = tmp_path / "onnx" / "model.onnx"
    model, words = onnx.load(path), exported["onnx"].manifest["metadata"]["text"]["vocabulary"]
    table = next(t for t in model.graph.initializer if list(t.dims) == [len(words), 64])
    vectors = onnx.numpy_helper.to_array(table).copy()
    vectors[[words.index("the"), words.index("by")]] = vectors[[words.index("by"), words.index("the")]]
    table.CopyFrom(onnx.numpy_helper.from_array(vectors, table.name))
    onnx.save(model, path)
    resigned(tmp_path / "onnx")
    with pytest.raises(ParityError, match="failed verification"):
        export.verify(tmp_path / "onnx")


def test_report_of_a_text_run(exported, run, zoo_command):
    """The report names tokens instead of images."""
    code, _, err = zoo_command("report", run.path, "--no-latency")
    assert code == 0, err
    content, page = json.loads((run.path / "report.json").read_text()), (run.path / "report.html").read_text()
    assert content["summary"]["vocabulary"] == len(run.text().vocabulary)
    assert {row["format"] for row in content["artifacts"]} == set(EVERY)
    assert "tokens in the vocabulary" in page
    assert "images" not in page


@pytest.mark.slow
def test_tags_are_exported_as_every_format(tmp_path, served):
    """Each word has logits; padding is not compared, and has no tag."""
    run = training.train("word_roles_tagger", {"epochs": 4}, run=tmp_path / "run")
    found = {a.format: a for a in export.convert(run, EVERY)}
    assert set(found) == set(EVERY)
    assert min(a.parity["accuracy"] for a in found.values()) > 0.9
    samples = read_samples(found["onnx"].folder / SAMPLES)
    assert samples["logits"].shape == (*samples["labels"].shape, len(run.result()["labels"]))
    out = served(found["saved_model"].path, "serve_text", samples["texts"].tolist())
    labels = np.array(run.result()["labels"])[samples["logits"][:SECOND_PASS].argmax(-1)]
    wanted = np.where(samples["labels"][:SECOND_PASS] < 0, "", labels)
    np.testing.assert_array_equal(np.array(out["labels"]), wanted)
