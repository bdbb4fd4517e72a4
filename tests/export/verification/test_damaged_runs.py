"""Commands on runs and artifacts with damaged, hostile and special files: one line, at once, and nothing elsewhere."""

from __future__ import annotations

import json
import os
import shutil

import numpy as np
import pytest

import export
import training
from export.core.manifest import MASKS, NAME, SAMPLES, list_files, write_manifest
from export.core.samples import read_samples
from training.runs.run import Run
from zoo.common.errors import ZooError

BROKEN_JSON = {
    "empty": b"",
    "cut": b'{"version": 1, "te',
    "keys": b'{"version": 1}',
    "list": b"[1]",
    "brackets": b"[" * 3000,
    "digits": b'{"version": ' + b"1" * 5000 + b"}",
    "bytes": b'{"version": 1, "x": "\xff"}',
    "nan": b'{"version": NaN}',
    "twice": b'{"version": 1, "version": 1}',
    "bom": b'\xef\xbb\xbf{"version": 1}',
}


@pytest.fixture
def run(copied, tmp_path):
    """A copy of a trained run, without artifacts."""
    return copied(tmp_path / "run")


def refusal(call, *arguments, **options):
    """The message of a refusal in one line; "" if there is none."""
    message = ""
    try:
        call(*arguments, **options)
    except ZooError as error:
        message = str(error)
    assert "\n" not in message
    assert len(message) < 900
    return message


def result(path):
    """What every command on a finished run reads first."""
    Run.open(path).result()


@pytest.mark.parametrize("kind", BROKEN_JSON)
@pytest.mark.parametrize(
    ("name", "read"),
    [
        ("recipe.json", Run.open),
        ("done.json", result),
        ("env.json", lambda path: Run.open(path).environment()),
        ("data.json", lambda path: Run.open(path).statistics()),
        ("files.json", lambda path: Run.open(path).files()),
    ],
)
def test_damaged_json_of_a_run_is_one_line(run, name, read, kind):
    """The line names the file; data.json may have few keys."""
    (run.path / name).write_bytes(BROKEN_JSON[kind])
    message = refusal(read, run.path)
    fits = name == "data.json" and kind == "keys"
    assert fits or name in message or str(run.path) in message


def test_wrong_types_in_the_result_are_one_line(run):
    """The line names the key; a whole result (the control) is returned."""
    whole = json.loads((run.path / "done.json").read_text())
    assert Run.open(run.path).result()["labels"] == whole["labels"]
    changes = {
        "test": [], "labels": "abc", "task": "other", "epochs": "3", "seconds": None, "splits": [1], "parameters": 1.5,
        "best": {"val_accuracy": "x"}, "input_shape": 3,
    }  # fmt: skip
    for key, value in changes.items():
        (run.path / "done.json").write_text(json.dumps(whole | {key: value}))
        assert key in refusal(result, run.path)
        (run.path / "done.json").write_text(json.dumps({name: whole[name] for name in whole if name != key}))
        assert f"{key} is missing" in refusal(result, run.path)


def test_damaged_rows_of_metrics_are_one_line(run):
    """A byte, a key and a type; rows that a killed process cut off are left out."""
    path = run.path / "metrics.jsonl"
    whole = path.read_bytes()
    for bad in (b'{"epoch": "x"}\n', b"{}\n", b"\xff\n", b"[" * 3000 + b"\n", b"[1]\n"):
        path.write_bytes(bad + whole)
        assert "line 1" in refusal(lambda: Run.open(run.path).metrics())
        assert "metrics.jsonl" in refusal(training.diagnose, run.path)
    path.write_bytes(whole + b'{"epoch": 9, "lo')
    assert len(Run.open(run.path).metrics()) == whole.count(b"\n")


@pytest.mark.parametrize("damage", ["empty", "cut", "bit", "folder", "text"])
def test_a_damaged_model_is_one_line(run, damage):
    """In `evaluate`, `export` and `load`; the whole file (the control) is evaluated."""
    path = run.path / "model.keras"
    whole = path.read_bytes()
    path.unlink()
    if damage == "folder":
        path.mkdir()
    else:
        flipped = whole[: len(whole) // 2] + bytes([whole[len(whole) // 2] ^ 1]) + whole[len(whole) // 2 + 1 :]
        path.write_bytes({"empty": b"", "cut": whole[:-9], "bit": flipped, "text": b"model"}[damage])
    assert str(path) in refusal(training.evaluate, run)
    if damage == "bit":
        assert "model.keras" in refusal(export.convert, run, ["onnx"])
        assert not run.exports.exists() or not any(run.exports.iterdir())
        path.write_bytes(whole)
        assert training.evaluate(run).accuracy == Run.open(run.path).result()["test"]["accuracy"]


def test_special_files_and_links_in_a_run_are_refused(run, tmp_path):
    """FIFOs, devices and links that lead out, wherever they are; nothing is written or deleted elsewhere."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "mine.txt").write_text("mine")
    places = ("exports", "checkpoints/last.safetensors", "metrics.jsonl", ".lock", "data.json", "compressed", "new")
    for name in places:
        path, kept = run.path / name, tmp_path / "kept"
        if os.path.lexists(path):
            path.rename(kept)
        for make in (lambda p: p.symlink_to(outside), os.mkfifo, lambda p: p.symlink_to("/dev/zero")):
            make(path)
            for call in (Run.open, training.evaluate, training.resume, lambda p: export.convert(p, ["onnx"])):
                assert name in refusal(call, run.path)
            path.unlink()
        if kept.exists():
            kept.rename(path)
    assert [file.name for file in outside.iterdir()] == ["mine.txt"]
    Run.open(run.path)


def test_a_lock_that_is_a_link_makes_no_file_elsewhere(tmp_path):
    """In the folder of a registry model's artifacts."""
    out = tmp_path / "out"
    out.mkdir()
    (out / ".lock").symlink_to(tmp_path / "made")
    assert "link" in refusal(export.convert, "mlp_tiny", ["onnx"], weights="random", out=out)
    assert not (tmp_path / "made").exists()


@pytest.fixture
def artifact(artifacts, tmp_path):
    """A copy of an artifact in ONNX."""
    shutil.copytree(artifacts["onnx"].folder, tmp_path / "onnx")
    return tmp_path / "onnx"


def test_added_links_and_special_files_make_verification_fail(artifact, tmp_path):
    """A link to a file or a folder, inside or outside, a FIFO and a device; also in place of a file."""
    assert not refusal(export.verify, artifact)
    (tmp_path / "other").mkdir()
    targets = ("/etc/hostname", tmp_path / "other", "model.onnx", "missing", "/dev/zero")
    for make in (*(lambda p, t=t: p.symlink_to(t) for t in targets), os.mkfifo):
        make(artifact / "added")
        for call in (export.verify, export.load):
            assert "added" in refusal(call, artifact)
        (artifact / "added").unlink()
    (artifact / SAMPLES).rename(tmp_path / SAMPLES)
    (artifact / SAMPLES).symlink_to(tmp_path / SAMPLES)
    assert SAMPLES in refusal(export.verify, artifact)


def resigned(folder, **changes):
    """Write the manifest with other values and digests that are right."""
    manifest = json.loads((folder / NAME).read_text()) | changes
    write_manifest(folder, {k: v for k, v in manifest.items() if k not in ("version", "bytes", "files", "digest")})


@pytest.mark.parametrize("values", [("x",), pytest.param((3, [], {"deep": 1}, None), marks=pytest.mark.slow)])
def test_a_signed_manifest_of_other_types_is_one_line(artifact, values):
    """The digests are right: only the types are not."""
    manifest = json.loads((artifact / NAME).read_text())
    for key in ("format", "options", "metadata", "inspection", "parity", "source", "inputs", "samples", "compression"):
        for value in values:
            resigned(artifact, **{key: value})
            for call in (export.verify, export.report, export.load):
                message = refusal(call, artifact if call is not export.report else artifact.parent)
                fits = value is None and key == "compression"
                assert fits or message or isinstance(value, type(manifest[key])), (key, value, call)
            resigned(artifact, **{key: manifest[key]})
    resigned(artifact, parity={key: value for key, value in manifest["parity"].items() if key != "metric"})
    assert "parity.metric is missing" in refusal(export.verify, artifact)
    resigned(artifact, artifact="../../etc/passwd", parity=manifest["parity"])
    assert "in the folder of its manifest" in refusal(export.verify, artifact)


def test_signed_samples_that_do_not_fit_are_one_line(artifact):
    """Damage that the digests do not show: arrays that are missing, or of another shape or dtype, or not finite."""
    samples = dict(np.load(artifact / SAMPLES))
    logits, count = samples["logits"], len(samples["logits"])
    changes = [
        {"inputs": None}, {"logits": None}, {"logits": logits[:, 0]}, {"logits": logits[:-1]},
        {"logits": np.full_like(logits, np.nan)}, {"logits": logits.astype("int64")},
        {"labels": samples["labels"][:-1]}, {"labels": np.zeros((count, 3), "int64")},
        {"labels": np.array(["a"] * count)}, {"inputs": np.zeros(count)}, {"inputs": samples["inputs"][..., :0]},
        {"valid": np.ones((count, 2), bool)}, {"tokens": np.zeros(count, "int32")}, {"other": np.zeros(count)},
        {"inputs": samples["inputs"][:, :1]}, {"inputs": samples["inputs"].astype("U")},
    ]  # fmt: skip
    for change in changes:
        arrays = {name: array for name, array in (samples | change).items() if array is not None}
        np.savez_compressed(artifact / SAMPLES, **arrays)
        resigned(artifact)
        assert refusal(export.verify, artifact), change.keys()
    for content in (b"", b"PK", b"text"):
        (artifact / SAMPLES).write_bytes(content)
        resigned(artifact)
        assert SAMPLES in refusal(export.verify, artifact)
    np.savez_compressed(artifact / SAMPLES, **samples)
    resigned(artifact)
    assert not refusal(export.verify, artifact)
    assert set(read_samples(artifact / SAMPLES)) == set(samples)
    assert MASKS not in list_files(artifact)


def test_the_command_line_prints_one_line_and_exits_with_2(run, artifact, capfd):
    """No traceback, and nothing on standard output."""
    from zoo.__main__ import main

    (run.path / "model.keras").write_bytes(b"PK\x03\x04")
    os.mkfifo(artifact / "added")
    for arguments in (["evaluate", str(run.path)], ["verify", str(artifact)]):
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        out, err = capfd.readouterr()
        assert (ended.value.code, out, err.strip().count("\n")) == (2, "", 0)
