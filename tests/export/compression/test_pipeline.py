"""Compression pipelines: parsing, refusal before training, resuming, and guarantees in the artifact."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

import export
from export.compression.guarantees import check_artifact, nonzero_masks
from export.compression.pipeline import parse_pipeline
from export.core.compression import compressions
from export.core.manifest import write_manifest
from export.inspection.stored_weights import stored_weights
from training.runs.run import Run
from zoo.common.errors import BadOption, ParityError, UnknownName, UnsupportedExport

PIPELINE = "prune:0.8,epochs=1"


@pytest.fixture(scope="module")
def run(copied, tmp_path_factory):
    """A copy of the digits' run without artifacts."""
    return copied(tmp_path_factory.mktemp("pipeline") / "digits")


@pytest.fixture(scope="module")
def pruned(run):
    """The run with 80% of its weights zero, by format."""
    return {a.format: a for a in export.convert(run, ["tflite_int8", "onnx"], compress=PIPELINE)}


def test_every_compression_is_found():
    """Every compression is registered, with a summary."""
    names = ["cluster", "distill", "fold", "mixed_precision", "prune", "qat", "structured"]
    assert compressions.names() == names
    assert all(compressions[name].summary.startswith(name) for name in compressions.names())


def test_parsing():
    """Values go to options by name or by type; white space is ignored."""
    pipeline = parse_pipeline(" structured:0.5, by=scale |prune : 2:4 , skip=stem+logits| qat")
    first, second, third = (step.options for step in pipeline.steps)
    assert (first.multiply_adds, first.by) == (0.5, "scale")
    assert (second.pattern, second.skip) == ((2, 4), ("stem", "logits"))
    assert third.epochs == 0
    assert pipeline.text == "structured:0.5,by=scale | prune:2:4,skip=stem+logits | qat"
    assert parse_pipeline("prune:0.8 | qat").slug == "prune-0.8-qat"
    assert parse_pipeline("distill:resnet_tiny").steps[0].options.student == "resnet_tiny"
    assert parse_pipeline("prune:0.5,skip=a+b").slug != parse_pipeline("prune:0.5,skip=a,ramp=0.5").slug


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("prun:0.8", UnknownName, "Did you mean 'prune'"),
        ("prune:0.8 | ", BadOption, "an empty step"),
        ("prune:1.5", BadOption, "sparsity must be at least 0 and below 1"),
        ("prune:0.8,scop=global", BadOption, "Did you mean 'scope'"),
        ("prune:much", BadOption, "does not take this value"),
        ("prune:sparsity=much", BadOption, "prune:sparsity must be"),
        ("prune:0.8,sparsity=0.7", BadOption, "given once"),
        ("cluster:1", BadOption, "at least 2 values"),
        ("structured:0.5,epochs=-1", BadOption, "epochs must be at least 0"),
        ("prune:0.8 | prune:0.9", BadOption, "prune would undo prune"),
        ("prune:0.8 | structured:0.5", BadOption, "structured would undo prune"),
        ("cluster:16 | qat", BadOption, "qat would undo cluster"),
        ("distill", BadOption, "distill needs the name of a model"),
        ("distill:resnet_tin", UnknownName, "resnet_tiny"),
        ("mixed_precision:0.01,fallback=half", BadOption, "fallback one of float, 16x8"),
    ],
)
def test_invalid_text_is_refused(text, error, message):
    """The message names the error."""
    with pytest.raises(error, match=message):
        parse_pipeline(text)


def test_unsupported_formats_are_refused(digits_run):
    """Before a process starts."""
    with pytest.raises(UnsupportedExport, match="mixed_precision supports tflite_int8"):
        export.convert(digits_run, "onnx", compress="mixed_precision:0.01")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("pipeline", "error", "message"),
    [
        ("fold | prune:0.5,block=1x4", BadOption, "block applies to dense kernels only"),
        ("structured:0.9 | prune:2:4", BadOption, "stem/kernel with 1"),
        ("structured:0.0001", BadOption, "can be reduced to"),
        ("distill:vit_micro_tiny,epochs=1 | qat", UnsupportedExport, "layer="),
    ],
)
def test_impossible_steps_are_refused_before_training(run, pipeline, error, message):
    """No step is saved, although the first one is possible."""
    before = set(run.compressed.glob("*/*"))
    with pytest.raises(error, match=message):
        export.convert(run, "tflite", compress=pipeline)
    assert set(run.compressed.glob("*/*")) == before


def test_sparsity_is_in_the_artifacts(run, pruned):
    """Each kernel has exactly the guaranteed zeros in float32, and at least those in int8."""
    for fmt, artifact in pruned.items():
        assert artifact.folder == run.exports / f"{fmt}-{parse_pipeline(PIPELINE).slug}"
        compression = artifact.manifest["compression"]
        guaranteed, found = compression["guarantees"]["zeros"], compression["found"]["zeros"]
        assert guaranteed.keys() == found.keys()
        assert all(found[name] >= count for name, count in guaranteed.items())
        (step,) = compression["steps"]
        assert step["zeros"] == sum(guaranteed.values())
        assert 0 < step["accuracy"] <= 1
        assert compression["before"]["zeros"] == 0
    assert pruned["onnx"].manifest["compression"]["found"]["zeros"] == guaranteed


def test_artifact_matches_the_compressed_model(run, pruned):
    """It is compared with the compressed model, not with the original one."""
    from export.compression.workbench import load_compressed

    artifact = pruned["onnx"]
    model = load_compressed(run.path / artifact.manifest["compression"]["steps"][0]["path"] / "model.keras")
    size = nonzero_masks(model)
    assert sum(int((~mask).sum()) for mask in size.values()) == artifact.manifest["compression"]["steps"][0]["zeros"]
    assert artifact.parity["relative"] < 1e-4
    assert export.verify(artifact.path).parity["passed"]


def test_a_false_guarantee_is_found(run, pruned):
    """The control: one more zero than the artifact has, or a zero at another position."""
    artifact = pruned["onnx"]
    guarantees = artifact.manifest["compression"]["guarantees"]
    from export.compression.workbench import load_compressed

    folder = run.path / artifact.manifest["compression"]["steps"][0]["path"]
    masks = nonzero_masks(load_compressed(folder / "model.keras"))
    assert check_artifact(artifact.path, guarantees, masks)["zeros"] == guarantees["zeros"]
    name = next(iter(guarantees["zeros"]))
    more = {**guarantees, "zeros": {**guarantees["zeros"], name: guarantees["zeros"][name] + 1}}
    with pytest.raises(ParityError, match="is guaranteed to have"):
        check_artifact(artifact.path, more, masks)
    moved = {**masks, name: np.roll(masks[name], 1, axis=-1)}
    with pytest.raises(ParityError, match="at the positions of the compressed model"):
        check_artifact(artifact.path, guarantees, moved)
    with pytest.raises(ParityError, match="at most 2 values"):
        check_artifact(artifact.path, {"distinct": 2}, masks)
    with pytest.raises(ParityError, match="keep 2 of each 4"):
        check_artifact(artifact.path, {"zeros": _multiples(guarantees["zeros"], masks), "pattern": [2, 4]}, masks)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda record: record["guarantees"]["zeros"].update({STEM: record["guarantees"]["zeros"][STEM] + 1}),
            "is guaranteed to have",
        ),
        (lambda record: record["guarantees"].update(distinct=2), "at most 2 values"),
        (
            lambda record: record["guarantees"].update(kernels={STEM: [1, 1, 1, 1]}),
            "stem/kernel is guaranteed to have the shape",
        ),
    ],
)
def test_verify_checks_the_guarantees(pruned, tmp_path, change, message):
    """A false guarantee in the manifest fails, although all digests match."""
    folder = tmp_path / "artifact"
    shutil.copytree(pruned["tflite_int8"].folder, folder)
    assert export.verify(folder).manifest["compression"] == pruned["tflite_int8"].manifest["compression"]
    manifest = json.loads((folder / "manifest.json").read_text())
    change(manifest["compression"])
    (folder / "manifest.json").unlink()
    write_manifest(folder, {k: v for k, v in manifest.items() if k not in ("bytes", "files", "digest")})
    with pytest.raises(ParityError, match=message):
        export.verify(folder)


STEM = "stem/kernel"


def _multiples(zeros, masks):
    """The kernels with a multiple of 4 input channels."""
    return {name: count for name, count in zeros.items() if masks[name].shape[-2] % 4 == 0}


@pytest.mark.slow
def test_a_pipeline_resumes(run, pruned):
    """Saved steps are not run again."""
    record = run.path / pruned["onnx"].manifest["compression"]["steps"][0]["path"] / "step.json"
    before = record.stat().st_mtime_ns
    (artifact,) = export.convert(run, "tflite", compress=PIPELINE)
    assert record.stat().st_mtime_ns == before
    assert artifact.parity["passed"]
    content = json.loads(record.read_text())
    assert content["sha256"] == artifact.manifest["compression"]["steps"][0]["sha256"]


def test_the_report_shows_compressions(run, pruned):
    """The report lists compressed artifacts by the names of their folders, with their steps."""
    content = export.report(run, measure=False).to_json()
    rows = content["artifacts"]
    names = {f"{row['format']}-{row['compression']}" for row in rows if row["compression"]}
    assert {artifact.folder.name for artifact in pruned.values()} <= names
    (compression,) = content["compressions"]
    assert {gain["verdict"] for gain in compression["gains"]} == {"smaller after gzip, not faster"}
    assert [step["step"] for step in compression["steps"]] == ["trained", PIPELINE]
    page = (run.path / "report.html").read_text(encoding="utf-8")
    assert f"<code>{PIPELINE}</code>" in page
    assert "smaller after gzip, not faster" in page


def test_weights_of_an_unknown_kind_of_file(tmp_path):
    """A file without a reader gives None."""
    assert stored_weights(tmp_path / "model.bin") is None


def test_command_lists_them(zoo_command):
    """`zoo compressions` prints every name."""
    code, out, _ = zoo_command("compressions", "--json")
    assert code == 0
    assert [c["name"] for c in json.loads(out)] == compressions.names()


def test_command_refuses(zoo_command, digits_run):
    """An invalid pipeline is one line and code 2."""
    code, _, err = zoo_command("export", digits_run.path, "--format", "onnx", "--compress", "prun:0.8")
    assert code == 2
    assert "Did you mean 'prune'" in err


@pytest.mark.slow
def test_structured_pruned_and_int8(run):
    """Three steps in one pipeline: smaller kernels, exact zeros that QAT preserves, and no float tensor."""
    (artifact,) = export.convert(
        run, "tflite_int8", compress="structured:0.5,epochs=2 | prune:0.8,epochs=4 | qat:epochs=1"
    )
    compression = artifact.manifest["compression"]
    first, second, third = compression["steps"]
    assert first["multiply_adds"] <= 0.5 * compression["before"]["multiply_adds"]
    assert second["zeros"] == third["zeros"] == sum(compression["guarantees"]["zeros"].values())
    assert compression["facts"]["float_tensors"] == 0
    assert compression["facts"]["int8_tensors"] > 20
    assert artifact.parity["accuracy"] > compression["before"]["accuracy"] - 0.1


@pytest.mark.slow
def test_few_values_are_in_the_artifact(run):
    """Clustered kernels have at most the requested number of values, by channel in int8."""
    for artifact in export.convert(run, ["tflite", "onnx", "tflite_int8"], compress="cluster:16,epochs=1"):
        assert max(artifact.manifest["compression"]["found"]["distinct"].values()) <= 16


@pytest.fixture(scope="module")
def hard(run, tmp_path_factory):
    """The run with an equivalent model that int8 fails: some channels of one layer are 400 times larger."""
    found = _hardened(run, tmp_path_factory.mktemp("hard") / "run")
    with pytest.raises(ParityError):
        export.convert(found, "tflite_int8")
    return found


@pytest.mark.slow
def test_mixed_precision_equalizes_the_layer(hard):
    """The layer is equalized, and no layer is excluded."""
    (artifact,) = export.convert(hard, "tflite_int8", compress="mixed_precision:0.005")
    facts = artifact.manifest["compression"]["facts"]
    assert list(facts["equalized"]) == [LAYER]
    assert facts["equalized"][LAYER] > 10
    assert facts["excluded"] == facts["float_operators"] == []
    assert facts["validation_cost"] < 0.006 < facts["int8_validation_cost"]
    assert export.verify(artifact.path).manifest["compression"]["facts"] == facts


@pytest.mark.slow
def test_mixed_precision_excludes_layers(hard):
    """Without equalization the layer and its reader are excluded, because the activation between them is the loss."""
    (artifact,) = export.convert(hard, "tflite_int8", compress="mixed_precision:0.005,equalize=false")
    facts = artifact.manifest["compression"]["facts"]
    assert set(facts["excluded"]) == {LAYER, READER}
    assert len(facts["float_operators"]) == 2
    assert facts["validation_cost"] < 0.006 < facts["int8_validation_cost"]


LAYER, READER, FACTOR = "stage2_block1_conv1", "stage2_block1_conv2", 400.0


def _hardened(run, place):
    """A copy of a run with an equivalent model in which every fourth channel of a layer is far larger."""
    from export.compression.workbench import load_compressed

    shutil.copytree(run.path, place, ignore=shutil.ignore_patterns("exports", "compressed"))
    model = load_compressed(place / "model.keras")
    norm, reader = model.get_layer(f"{LAYER}_norm"), model.get_layer(READER)
    scale = np.where(np.arange(norm.gamma.shape[0]) % 4 == 0, FACTOR, 1.0).astype("float32")
    norm.gamma.assign(np.asarray(norm.gamma) * scale)
    norm.beta.assign(np.asarray(norm.beta) * scale)
    reader.kernel.assign(np.asarray(reader.kernel) / scale[:, None])
    model.save(place / "model.keras", include_optimizer=False)
    found = Run.open(place)
    found.finish({key: value for key, value in found.result().items() if key not in ("version", "files")})
    return found
