"""Sequence-to-sequence models: two parts and a cache in every runtime, equal token by token."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

import export
import training
import zoo
from export.backends.litert.runtime import LiteRtGenerator
from export.backends.onnx.runtime import OnnxGenerator
from export.backends.tensorflow.runtime import SavedModelGenerator
from export.core.format import formats
from export.core.generate import INTERFACE, Generator
from export.core.manifest import NAME, SAMPLES, write_manifest
from export.core.samples import SECOND_PASS, read_samples, take_examples
from export.core.tolerance import Tolerance
from export.verification.parity import compare
from zoo.common.errors import ParityError, UnsupportedExport

# A model is trained first, and exported as every format.
pytestmark = pytest.mark.slow

FLOATS = ("onnx", "saved_model", "tflite")
# Formats of the briefly trained model; int8 is tested with the whole recipe and in the families.
QUICK = (*FLOATS, "tflite_fp16")
INT8 = ("onnx_dynamic", "onnx_int8", "tflite_dynamic", "tflite_int8")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run with a model that reverses most words."""
    return training.train("reverse_transformer", {"epochs": 3}, run=tmp_path_factory.mktemp("reverse") / "run")


@pytest.fixture(scope="module")
def exported(run):
    """The run as the formats of `QUICK`, by name."""
    return {a.format: a for a in export.convert(run, QUICK)}


@pytest.fixture(scope="module")
def samples(exported):
    """Test words, their labels, and the outputs of the source."""
    return read_samples(exported["onnx"].folder / SAMPLES)


@pytest.fixture(scope="module")
def model(run):
    """The trained model as it was saved."""
    from training.learning.evaluation import load_model

    return load_model(run)


def test_source_can_generate(samples):
    """The control of all comparisons: most words are right, and no two are alike."""
    right = np.maximum(samples["labels"], 0)
    assert (samples["tokens"] == right).all(1).mean() > 0.5
    assert len({tuple(row) for row in samples["tokens"]}) > 100


@pytest.mark.parametrize("name", FLOATS)
def test_sequences_are_equal_token_by_token(exported, samples, model, name):
    """Every runtime generates the tokens of Keras for every sample, by `export.load`."""
    runtime = export.load(exported[name].path)
    source = samples["inputs"]["source"]
    tokens = runtime.generate(source)
    assert (tokens.shape, str(tokens.dtype)) == (samples["tokens"].shape, "int32")
    np.testing.assert_array_equal(tokens, zoo.generate(model, source))
    np.testing.assert_array_equal(runtime.generate(source[:1]), tokens[:1])
    assert exported[name].parity["sequence_agreement"] == 1.0


@pytest.mark.parametrize("name", QUICK)
def test_logits_of_the_real_step_are_the_trained_models(exported, samples, model, name):
    """Logits of the right tokens one by one, through the cache, equal those of the whole model at once."""
    runtime, tolerance = export.load(exported[name].path), formats[name].backend("generate").tolerance
    few, real = take_examples(samples["inputs"], 24), samples["labels"][:24] >= 0
    trained, logits = model.predict(few, verbose=0), runtime(few)
    assert logits.shape == trained.shape
    assert np.abs(logits - trained)[real].max() <= tolerance.relative * np.abs(trained[real]).max()
    assert (logits.argmax(-1) == trained.argmax(-1))[real].mean() >= tolerance.agreement


@pytest.mark.parametrize("name", QUICK)
def test_interface_and_files(exported, run, name):
    """The manifest describes both parts by name; the artifact has the text config."""
    artifact, runtime = exported[name], export.load(exported[name].folder)
    files = {p.name for p in artifact.folder.iterdir()} - {NAME, SAMPLES}
    wanted = {"onnx": {"encoder.onnx", "decoder.onnx"}, "tflite": {"model.tflite"}, "saved_model": {"1"}}
    assert files == wanted[name.partition("_")[0] if name != "saved_model" else name]
    batch = 1 if name.startswith("tflite") else None
    for part, (given, out) in INTERFACE.items():
        described = artifact.manifest["parts"][part]
        assert {t["name"] for t in described["inputs"]} == {*given}
        assert {t["name"] for t in described["outputs"]} == {*out}
        assert {t["shape"][0] for t in (*described["inputs"], *described["outputs"])} == {batch}
    assert {t.dtype for t in runtime.parts["decode"][0] if t.name in ("token", "position", "source")} == {"int32"}
    assert runtime.metadata == artifact.manifest["metadata"]
    assert runtime.metadata["text"] == run.text().to_json()
    assert (runtime.metadata["task"], runtime.metadata["input"], runtime.metadata["shape"]) == (
        "generate",
        "source",
        [12, 13],
    )


def test_saved_model_generates_strings_without_python(exported, samples, served):
    """The signature takes and returns strings, in a process with TensorFlow alone."""
    out = served(exported["saved_model"].path, "generate_text", samples["texts"].tolist())
    np.testing.assert_array_equal(out["tokens"], samples["tokens"][:SECOND_PASS])
    assert out["text"] == samples["generated"].tolist()
    right = [text[::-1] for text in samples["texts"].tolist()]
    assert np.mean([a == b for a, b in zip(out["text"], right, strict=True)]) > 0.5


def copied(exported, name, tmp_path):
    """A copy of an artifact that a test may change."""
    return shutil.copytree(exported[name].folder, tmp_path / name)


@pytest.mark.parametrize("name", ["onnx", "saved_model", "tflite_fp16"])
def test_verify_needs_no_run(exported, name, tmp_path):
    """A copied folder verifies; a changed byte in any part is found."""
    folder = copied(exported, name, tmp_path)
    assert export.verify(folder).parity["passed"]
    for file in [p for p in folder.rglob("*") if p.suffix in (".onnx", ".tflite", ".pb")]:
        content = bytearray(file.read_bytes())
        content[len(content) // 2] ^= 1
        file.write_bytes(content)
        with pytest.raises(ParityError, match="was changed"):
            export.verify(folder)
        content[len(content) // 2] ^= 1
        file.write_bytes(content)


def test_wrong_weight_under_right_digests_is_found(exported, tmp_path):
    """A change in the decoder alone is found."""
    import onnx

    folder = copied(exported, "onnx", tmp_path)
    model = onnx.load(folder / "decoder.onnx")
    tensor = max(model.graph.initializer, key=lambda t: len(t.raw_data))
    tensor.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(tensor)[::-1].copy(), tensor.name))
    onnx.save(model, folder / "decoder.onnx")
    manifest = json.loads((folder / NAME).read_text())
    write_manifest(folder, {k: v for k, v in manifest.items() if k not in ("version", "files", "digest", "bytes")})
    with pytest.raises(ParityError, match="failed verification"):
        export.verify(folder)


def shifted(kind):
    """A runtime that gives the decoder the position before the right one."""

    class Shifted(kind):
        def run(self, part, values):
            if part == "decode":
                values = {**values, "position": np.maximum(values["position"] - 1, 0)}
            return super().run(part, values)

    return Shifted


def forgetful(kind):
    """A runtime that gives the decoder an empty cache at each step."""

    class Forgetful(kind):
        def run(self, part, values):
            if part == "decode":
                values = {**values, "cache": np.zeros_like(values["cache"])}
            return super().run(part, values)

    return Forgetful


@pytest.mark.parametrize("change", [shifted, forgetful])
@pytest.mark.parametrize(("name", "kind"), [("onnx", OnnxGenerator), ("tflite", LiteRtGenerator)])
def test_wrong_steps_are_seen(exported, samples, name, kind, change):
    """A wrong position or a lost cache fails at the tolerance of float and of int8."""
    few = {k: take_examples(v, 16) for k, v in samples.items() if k not in ("texts", "generated")}
    artifact = exported[name]
    right = compare(kind(artifact.path), few, Tolerance(1e-4, 1.0, 0.0), artifact.manifest["metadata"])
    wrong = compare(change(kind)(artifact.path), few, Tolerance(1.0, 0.97, 0.006), artifact.manifest["metadata"])
    assert (right.passed, wrong.passed) == (True, False)


def test_one_wrong_token_is_seen(exported, samples):
    """Logits agree and the loop does not: float artifacts must generate every token of every sequence."""

    class Stutter(SavedModelGenerator):
        def generate(self, source):
            tokens = super().generate(source)
            tokens[0, 0] += 1
            return tokens

    runtime, expected = Stutter(exported["saved_model"].path), exported["saved_model"].manifest["metadata"]
    parity = compare(runtime, samples, Tolerance(1e-4, 1.0, 1.0), expected)
    assert (parity.agreement, parity.sequence_agreement, parity.passed) == (1.0, 1 - 1 / 200, False)


def test_wrong_strings_are_seen(exported, samples):
    """Strings generated for texts are compared as text."""
    changed = {**samples, "generated": samples["generated"][::-1]}
    runtime = export.load(exported["saved_model"].path)
    assert not compare(runtime, changed, Tolerance(1e-4, 1.0, 0.0), runtime.metadata).passed


@pytest.mark.parametrize("part", list(INTERFACE))
def test_parts_of_another_shape_are_refused(exported, samples, part):
    """Names and sizes of both parts are checked before anything runs."""
    runtime = export.load(exported["onnx"].path)
    runtime.parts = {**runtime.parts, part: runtime.parts[part][::-1]}
    with pytest.raises(ParityError, match=part):
        compare(runtime, samples, Tolerance(1.0, 0.0, 1.0), runtime.metadata)


def test_a_format_for_logits_alone_is_refused(run, monkeypatch):
    """The error comes before conversion."""
    entry = formats["onnx"]
    monkeypatch.setitem(formats._entries, "onnx", type(entry)(**{**vars(entry), "generate": None}))
    with pytest.raises(UnsupportedExport, match="does not support sequence-to-sequence models"):
        export.convert(run, "onnx")


def test_report_of_generated_sequences(exported, run, zoo_command):
    """Each artifact has a row with the time of a whole sequence; the page mentions no confusion matrix."""
    code, _, err = zoo_command("report", run.path)
    assert code == 0, err
    content = json.loads((run.path / "report.json").read_text(), parse_constant=pytest.fail)
    rows = {row["format"]: row for row in content["artifacts"]}
    assert set(rows) == set(QUICK)
    assert all(row["latency_ms"] > 0 and 0 < row["gzip_bytes"] <= row["bytes"] for row in rows.values())
    assert content["confusion"] is None
    page = (run.path / "report.html").read_text()
    assert "a whole sequence" in page
    assert "No confusion matrix yet" not in page


def test_runtimes_are_generators(exported):
    """All runtimes have one interface."""
    assert all(isinstance(export.load(artifact.path), Generator) for artifact in exported.values())


@pytest.mark.slow
def test_whole_recipe_is_exported_as_every_format(tmp_path):
    """int8 generates the tokens of float except for one word in a hundred, within its tolerance."""
    run = training.train("reverse_transformer", run=tmp_path / "run")
    found = {a.format: a for a in export.convert(run, (*QUICK, *INT8))}
    assert found["onnx"].parity["source_accuracy"] >= 0.99
    for name in INT8:
        parity = found[name].parity
        assert (parity["n"], parity["passed"]) == (200, True)
        assert parity["sequence_agreement"] >= 0.99
        export.verify(found[name].path)
    size = {name: artifact.manifest["bytes"] for name, artifact in found.items()}
    assert max(size["tflite_dynamic"], size["tflite_int8"]) < 0.5 * size["tflite"]
    assert max(size["onnx_dynamic"], size["onnx_int8"]) < 0.6 * size["onnx"]
