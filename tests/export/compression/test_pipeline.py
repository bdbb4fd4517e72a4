"""A chain of compressions reads as it runs, is refused before it trains, resumes, and is inspected in the artifact."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

import export
from export.compression.guarantees import inspect, masks_of
from export.compression.pipeline import parse_pipeline
from export.core.compression import compressions
from export.core.manifest import write_manifest
from export.inspection.stored_weights import stored_weights
from training.runs.run import Run
from zoo.common.errors import BadOption, ParityError, UnknownName, UnsupportedExport

CHAIN = "prune:0.8,epochs=1"


@pytest.fixture(scope="module")
def run(digits_run, tmp_path_factory):
    """A copy of the digits' run without artifacts."""
    place = tmp_path_factory.mktemp("chain") / "digits"
    shutil.copytree(digits_run.path, place, ignore=shutil.ignore_patterns("exports", "compressed"))
    return Run.open(place)


@pytest.fixture(scope="module")
def pruned(run):
    """The run with 80% of its weights zero, by format."""
    return {a.format: a for a in export.export_all(run, ["tflite_int8", "onnx"], CHAIN)}


def test_every_way_is_found():
    """The compressions of the issue are there, each with a line for people."""
    assert compressions.names() == ["cluster", "distil", "fold", "prune", "qat", "rescue", "structured"]
    assert all(compressions[name].summary.startswith(name) for name in compressions.names())


def test_parsing():
    """Values find their options, by name or by type; white space means nothing."""
    chain = parse_pipeline(" structured:0.5, by=scale |prune : 2:4 , skip=stem+logits| qat")
    first, second, third = (step.options for step in chain.steps)
    assert (first.multiply_adds, first.by) == (0.5, "scale")
    assert (second.keep, second.skip) == ((2, 4), ("stem", "logits"))
    assert third.epochs == 0
    assert chain.text == "structured:0.5,by=scale | prune:2:4,skip=stem+logits | qat"
    assert parse_pipeline("prune:0.8 | qat").slug == "prune-0.8-qat"
    assert parse_pipeline("distil:resnet_tiny").steps[0].options.student == "resnet_tiny"
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
        ("distil", BadOption, "distil needs the name of a model"),
        ("distil:resnet_tin", UnknownName, "resnet_tiny"),
        ("rescue:0.01,keep=half", BadOption, "keep one of float, 16x8"),
    ],
)
def test_what_cannot_be_read_is_refused(text, error, message):
    """The message names what was wrong."""
    with pytest.raises(error, match=message):
        parse_pipeline(text)


def test_formats_without_meaning_are_refused(digits_run):
    """Before anything is started."""
    with pytest.raises(UnsupportedExport, match="rescue is for tflite_int8"):
        export.export(digits_run, "onnx", "rescue:0.01")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("chain", "error", "message"),
    [
        ("fold | prune:0.5,block=1x4", BadOption, "Blocks can be pruned in dense kernels only"),
        ("structured:0.9 | prune:2:4", BadOption, "stem/kernel with 1"),
        ("structured:0.0001", BadOption, "can go down to"),
        ("distil:vit_micro_tiny,epochs=1 | qat", UnsupportedExport, "layer="),
    ],
)
def test_what_cannot_be_had_is_refused_before_training(run, chain, error, message):
    """No step has left anything, though the first could have been done."""
    before = set(run.compressed.glob("*/*"))
    with pytest.raises(error, match=message):
        export.export(run, "tflite", chain)
    assert set(run.compressed.glob("*/*")) == before


def test_sparsity_is_in_the_artifacts(run, pruned):
    """Each kernel has exactly the zeros that are claimed in float32, and at least those in int8."""
    for fmt, artifact in pruned.items():
        assert artifact.folder == run.exports / f"{fmt}-{parse_pipeline(CHAIN).slug}"
        compression = artifact.manifest["compression"]
        claimed, found = compression["claims"]["zeros"], compression["found"]["zeros"]
        assert claimed.keys() == found.keys()
        assert all(found[name] >= count for name, count in claimed.items())
        (step,) = compression["steps"]
        assert step["zeros"] == sum(claimed.values())
        assert 0 < step["accuracy"] <= 1
        assert compression["before"]["zeros"] == 0
    assert pruned["onnx"].manifest["compression"]["found"]["zeros"] == claimed


def test_artifact_equals_the_compressed_network(run, pruned):
    """It is not compared with the network that was trained, from which it is far."""
    from export.compression.workbench import load_compressed

    artifact = pruned["onnx"]
    network = load_compressed(run.path / artifact.manifest["compression"]["steps"][0]["path"] / "model.keras")
    size = masks_of(network)
    assert sum(int((~mask).sum()) for mask in size.values()) == artifact.manifest["compression"]["steps"][0]["zeros"]
    assert artifact.parity["relative"] < 1e-4
    assert export.verify(artifact.path).parity["passed"]


def test_a_false_claim_is_found(run, pruned):
    """The control: one zero more than there is, or a weight that is not zero where it should be."""
    artifact = pruned["onnx"]
    guarantees = artifact.manifest["compression"]["claims"]
    from export.compression.workbench import load_compressed

    folder = run.path / artifact.manifest["compression"]["steps"][0]["path"]
    masks = masks_of(load_compressed(folder / "model.keras"))
    assert inspect(artifact.path, guarantees, masks)["zeros"] == guarantees["zeros"]
    name = next(iter(guarantees["zeros"]))
    more = {**guarantees, "zeros": {**guarantees["zeros"], name: guarantees["zeros"][name] + 1}}
    with pytest.raises(ParityError, match="is claimed to have"):
        inspect(artifact.path, more, masks)
    moved = {**masks, name: np.roll(masks[name], 1, axis=-1)}
    with pytest.raises(ParityError, match="at the places of the compressed network"):
        inspect(artifact.path, guarantees, moved)
    with pytest.raises(ParityError, match="at most 2 values"):
        inspect(artifact.path, {"distinct": 2}, masks)
    with pytest.raises(ParityError, match="keep 2 of each 4"):
        inspect(artifact.path, {"zeros": _multiples(guarantees["zeros"], masks), "pattern": [2, 4]}, masks)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda made: made["claims"]["zeros"].update({STEM: made["claims"]["zeros"][STEM] + 1}), "is claimed to have"),
        (lambda made: made["claims"].update(distinct=2), "at most 2 values"),
        (lambda made: made["claims"].update(kernels={STEM: [1, 1, 1, 1]}), "The shape of stem/kernel is claimed"),
    ],
)
def test_verifying_repeats_the_claims(pruned, tmp_path, change, message):
    """A claim in the manifest that the artifact does not keep fails, though all digests fit."""
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
    """The kernels whose input channels are a multiple of 4."""
    return {name: count for name, count in zeros.items() if masks[name].shape[-2] % 4 == 0}


@pytest.mark.slow
def test_a_chain_resumes(run, pruned):
    """Steps that are done are not done again; one whose network was changed is."""
    record = run.path / pruned["onnx"].manifest["compression"]["steps"][0]["path"] / "step.json"
    before = record.stat().st_mtime_ns
    artifact = export.export(run, "tflite", CHAIN)
    assert record.stat().st_mtime_ns == before
    assert artifact.parity["passed"]
    content = json.loads(record.read_text())
    assert content["sha256"] == artifact.manifest["compression"]["steps"][0]["sha256"]


def test_the_report_tells_them_apart(run, pruned):
    """Compressed artifacts stand in the report under the names of their folders, with their steps."""
    content = export.report(run, measure=False)
    rows = content["artifacts"]
    names = {f"{row['format']}-{row['compression']}" for row in rows if row["compression"]}
    assert {artifact.folder.name for artifact in pruned.values()} <= names
    (compression,) = content["compressions"]
    assert {gain["verdict"] for gain in compression["gains"]} == {"smaller compressed, not faster"}
    assert [step["step"] for step in compression["steps"]] == ["as trained", CHAIN]
    page = (run.path / "report.html").read_text(encoding="utf-8")
    assert f"<code>{CHAIN}</code>" in page
    assert "smaller compressed, not faster" in page


def test_weights_of_an_unknown_kind_of_file(tmp_path):
    """A file without a reader gives None."""
    assert stored_weights(tmp_path / "model.bin") is None


def test_command_lists_them(zoo_command):
    """`zoo compressions` answers, and a wrong chain is one line and code 2."""
    code, out, _ = zoo_command("compressions", "--json")
    assert code == 0
    assert [c["name"] for c in json.loads(out)] == compressions.names()


def test_command_refuses(zoo_command, digits_run):
    """A wrong chain is one line and code 2."""
    code, _, err = zoo_command("export", digits_run.path, "--format", "onnx", "--compress", "prun:0.8")
    assert code == 2
    assert "Did you mean 'prune'" in err


@pytest.mark.slow
def test_structured_pruned_and_int8(run):
    """Three steps in one chain: smaller kernels, exact zeros that training in int8 keeps, and no float tensor left."""
    artifact = export.export(run, "tflite_int8", "structured:0.5,epochs=2 | prune:0.8,epochs=4 | qat:epochs=1")
    compression = artifact.manifest["compression"]
    first, second, third = compression["steps"]
    assert first["multiply_adds"] <= 0.5 * compression["before"]["multiply_adds"]
    assert second["zeros"] == third["zeros"] == sum(compression["claims"]["zeros"].values())
    assert compression["facts"]["float_tensors"] == 0
    assert compression["facts"]["int8_tensors"] > 20
    assert artifact.parity["accuracy"] > compression["before"]["accuracy"] - 0.1


@pytest.mark.slow
def test_few_values_are_in_the_artifact(run):
    """Clustered kernels have no more values than asked for, by channel in int8."""
    for artifact in export.export_all(run, ["tflite", "onnx", "tflite_int8"], "cluster:16,epochs=1"):
        assert max(artifact.manifest["compression"]["found"]["distinct"].values()) <= 16


@pytest.fixture(scope="module")
def hard(run, tmp_path_factory):
    """The run, its network the same function with some channels of one layer 100 times larger, which int8 fails."""
    found = _hardened(run, tmp_path_factory.mktemp("hard") / "run")
    with pytest.raises(ParityError):
        export.export(found, "tflite_int8")
    return found


@pytest.mark.slow
def test_rescue_finds_the_layer(hard):
    """The layer is found and nothing is left in floating point: what it gives and what is read are made alike."""
    artifact = export.export(hard, "tflite_int8", "rescue:0.005")
    facts = artifact.manifest["compression"]["facts"]
    assert list(facts["equalized"]) == [LAYER]
    assert facts["equalized"][LAYER] > 10
    assert facts["rescued"] == facts["float_operators"] == []
    assert facts["validation_cost"] < 0.006 < facts["validation_cost_unaided"]
    assert export.verify(artifact.path).manifest["compression"]["facts"] == facts


@pytest.mark.slow
def test_rescue_in_floating_point(hard):
    """Without that the layer stays in floating point, and what reads it too, for int8 between them is the loss."""
    artifact = export.export(hard, "tflite_int8", "rescue:0.005,equalize=false")
    facts = artifact.manifest["compression"]["facts"]
    assert set(facts["rescued"]) == {LAYER, READER}
    assert len(facts["float_operators"]) == 2
    assert facts["validation_cost"] < 0.006 < facts["validation_cost_unaided"]


LAYER, READER, FACTOR = "stage2_block1_conv1", "stage2_block1_conv2", 100.0


def _hardened(run, place):
    """A copy of a run whose network is the same function, with every fourth channel of a layer far larger."""
    from export.compression.workbench import load_compressed

    shutil.copytree(run.path, place, ignore=shutil.ignore_patterns("exports", "compressed"))
    network = load_compressed(place / "model.keras")
    norm, reader = network.get_layer(f"{LAYER}_norm"), network.get_layer(READER)
    scale = np.where(np.arange(norm.gamma.shape[0]) % 4 == 0, FACTOR, 1.0).astype("float32")
    norm.gamma.assign(np.asarray(norm.gamma) * scale)
    norm.beta.assign(np.asarray(norm.beta) * scale)
    reader.kernel.assign(np.asarray(reader.kernel) / scale[:, None])
    network.save(place / "model.keras", include_optimizer=False)
    return Run.open(place)
