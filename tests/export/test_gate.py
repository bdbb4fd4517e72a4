"""Verification and manifest: a wrong, incomplete or changed artifact is refused and removed."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import export
import training
from export.core.format import formats
from export.core.manifest import NAME, SAMPLES, VERSION, write_manifest
from export.core.runtime import Runtime, Tensor
from export.core.tolerance import Tolerance
from export.verification.encoded import encode_png, with_frame
from export.verification.parity import compare, require
from training.common.preprocess import decode
from training.runs.run import Run
from zoo.common.errors import ExportError, ParityError, RunError, UnsupportedExport
from zoo.common.files import write_json
from zoo.reading.json_files import read_json
from zoo.specs.preprocessing import PreprocessingConfig

THEIR_FORMATS = '''
import dataclasses
import os
from export.backends.litert.file import finish
from export.core.format import register
from export.core.options import REMEDY, Options, with_options
from export.core.tolerance import Tolerance
from export.backends.litert.runtime import LiteRtRuntime
from export.formats import tflite


def broken(source, path):
    """A converter that gets one kernel wrong."""
    kernel = next(w for w in source.model.trainable_variables if "kernel" in w.path)
    original = kernel.numpy()
    kernel.assign(-original)
    try:
        tflite.write(source, path)
    finally:
        kernel.assign(original)


def dying(source, path):
    os.abort()


def raising(source, path):
    raise ValueError("no such operator:\\nFancy")


def renamed(source, path):
    source.metadata["labels"] = source.metadata["labels"][::-1]
    try:
        tflite.write(source, path)
    finally:
        source.metadata["labels"] = source.metadata["labels"][::-1]


@dataclasses.dataclass(frozen=True)
class Repair(Options):
    """Options of which the second repairs the file."""

    better: bool = dataclasses.field(default=False, metadata={REMEDY: True})
    whole: bool = dataclasses.field(default=False, metadata={REMEDY: True})


def repairable(source, path, options=Repair()):
    """A quantized format that is broken unless it is repaired."""
    (tflite.write if options.whole else broken)(source, path)
    content = path.read_bytes()
    finish(content, with_options(source.metadata, options), path)


register("their_repairable", file="model.tflite", write=repairable, load=LiteRtRuntime, options=Repair,
         tolerance=Tolerance(0.5, 0.97, 0.006, snr=10.0), summary="repairable")
for name, write in {"broken": broken, "dying": dying, "raising": raising, "renamed": renamed}.items():
    register(f"their_{name}", file="model.tflite", write=write, load=LiteRtRuntime,
             tolerance=Tolerance(1e-4, 1.0, 0.0), summary=name)
'''


@pytest.fixture(scope="module")
def their_formats(tmp_path_factory):
    """Formats of a third party, each with another error; unregistered afterwards."""
    folder = tmp_path_factory.mktemp("their_formats")
    (folder / "their_formats.py").write_text(THEIR_FORMATS)
    sys.path.insert(0, str(folder))
    export.list_formats()
    entries, origins = dict(formats._entries), dict(formats._origins)
    import their_formats

    yield their_formats
    sys.path.remove(str(folder))
    formats._entries, formats._origins = entries, origins


@pytest.fixture
def run(copied, tmp_path):
    """A copy of the trained run without artifacts."""
    return copied(tmp_path / "run")


@pytest.fixture
def artifact(artifacts, tmp_path):
    """Copy an artifact that a test may change."""

    def copy(name):
        shutil.copytree(artifacts[name].path.parent, tmp_path / name)
        return tmp_path / name

    return copy


def visible(run):
    """Return what an export left in the run."""
    return sorted(p.name for p in run.exports.iterdir()) if run.exports.exists() else []


def test_wrong_artifacts_are_refused_and_leave_nothing(run, their_formats, zoo_command):
    """One line and exit code 2 for all of them; the other format is exported all the same.

    One kernel is negated, the labels have another order (wrong predictions with correct metrics), a converter raises.
    """
    wrong = ("their_broken", "their_renamed", "their_raising")
    code, out, err = zoo_command("export", run.path, "--format", *wrong, "onnx")
    assert (code, out, err.count("\n")) == (2, "", 1)
    message = (
        r"their_broken of .* failed verification on 360 examples: max error \S+ \(tolerance 0\.0001\), "
        r"top-1 agreement \S+ % \(minimum 100 %\), accuracy \S+ % \(source \S+ %, largest drop 0 points\)"
    )
    assert re.search(message, err)
    assert "The metadata in the artifact must equal its source's" in err
    assert "their_raising could not be converted: ValueError: no such operator: Fancy" in err
    assert visible(run) == ["onnx"]


@pytest.mark.slow
def test_remedies_are_tried_in_order(run, their_formats, zoo_command):
    """One line for each attempt; the manifest has the refused ones, and without --auto the first error ends it."""
    command = ("export", run.path, "--format", "their_repairable")
    code, _, err = zoo_command(*command)
    assert code == 2
    assert 'Try, in this order: --format "their_repairable:better=true"; --format "their_repairable:better=true,' in err
    assert visible(run) == []
    code, _, err = zoo_command(*command, "--auto")
    lines = [line for line in err.splitlines() if " is refused: accuracy lower by " in line]
    assert code == 0
    assert [line.split(" is refused")[0] for line in lines] == [
        "zoo: their_repairable", 'zoo: --format "their_repairable:better=true"',
    ]  # fmt: skip
    assert visible(run) == ["their_repairable+better=true+whole=true"]
    manifest = read_json(run.exports / visible(run)[0] / NAME)
    assert [attempt["tried"] for attempt in manifest["attempts"]] == [line.split(" is")[0][5:] for line in lines]
    assert all("accuracy" in attempt["failed"] for attempt in manifest["attempts"])
    export.verify(run.exports / visible(run)[0])


@pytest.mark.slow
def test_all_remedies_fail(run, their_formats):
    """The first error, with what was tried; a float format has nothing to try."""
    lines = []
    with pytest.raises(ParityError, match="failed verification"):
        export.convert(run, "their_broken", auto=lines.append)
    assert lines == []
    assert visible(run) == []


@pytest.mark.slow
@pytest.mark.parametrize(("name", "error", "message"), [
    ("their_broken", ParityError, "failed verification"),
    ("their_renamed", ParityError, "metadata"),
    ("their_raising", ExportError, "no such operator: Fancy"),
])  # fmt: skip
def test_a_wrong_artifact_is_refused(run, their_formats, name, error, message):
    """Each alone has its own error."""
    with pytest.raises(error, match=message):
        export.convert(run, name)
    assert visible(run) == []


def test_unsupported_format_is_refused_before_anything_runs(run, monkeypatch):
    """A spec that rules a format out gives its reason."""
    import dataclasses

    from zoo.specs.registry import models

    model = models["resnet_tiny"]
    spec = dataclasses.replace(model.spec, unsupported=(("tflite", "it has a layer that phones lack"),))
    monkeypatch.setitem(models._entries, "resnet_tiny", dataclasses.replace(model, spec=spec))
    with pytest.raises(UnsupportedExport, match="a layer that phones lack"):
        export.convert(run, "tflite")


@pytest.mark.slow
def test_rebuild_that_is_another_function_is_refused(run):
    """If the recipe builds another model than model.keras, nothing is exported."""
    changed = read_json(run.path / "recipe.json")
    changed["recipe"]["model"]["name"] = "resnet20"
    write_json(run.path / "recipe.json", changed)
    with pytest.raises(RunError, match=r"Expected a readable model\. Received: .*model\.keras"):
        export.convert(run.path, "onnx")
    assert visible(run) == []


def writers(folder):
    """The processes that have a file below a folder open."""
    found = set()
    for handle in Path("/proc").glob("[0-9]*/fd/*"):
        with contextlib.suppress(OSError):
            if str(handle.readlink()).startswith(f"{folder}/"):
                found.add(int(handle.parts[2]))
    return found


def converting(run, python):
    """A command that exports, in the middle of a conversion: its process."""
    process = python("-m", "zoo", "export", run.path, "--format", "onnx", "tflite", warm=True)
    deadline = time.monotonic() + 120
    while not list(run.exports.glob(".writing-*/*/*")) and time.monotonic() < deadline:
        time.sleep(0.05)
    # The converter writes its messages into a file there.
    assert len(writers(run.exports)) == 2
    return process


def gone(folder, seconds=10):
    """Whether no process has files in a folder open, at once or soon."""
    deadline = time.monotonic() + seconds
    while (left := writers(folder)) and time.monotonic() < deadline:
        time.sleep(0.05)
    return not left


@pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGHUP, marks=pytest.mark.slow)])
def test_export_that_is_stopped_cleans_up(run, python, number):
    """One line, the exit code of the signal, no process and no file left."""
    process = converting(run, python)
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (128 + number, f"zoo: Stopped by {number.name}\n")
    assert [name for name in visible(run) if not (run.exports / name / NAME).is_file()] == []
    assert gone(run.exports)


def test_export_killed_leaves_nothing_visible(run, python, their_formats):
    """kill -9 while the child converts: only a hidden folder, which the next export removes.

    A converter that takes its process down is named with the signal, and leaves nothing either.
    """
    process = converting(run, python)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert gone(run.exports), "the converter of a killed command goes on"
    assert all(name.startswith(".") or (run.exports / name / NAME).is_file() for name in visible(run))
    with pytest.raises(ExportError, match=r"killed by signal 6"):
        export.convert(run, ["onnx", "their_dying"])
    assert visible(run) == ["onnx"]


@pytest.mark.slow
def test_a_run_that_is_deleted_does_not_come_back(run, python, tmp_path):
    """The export ends in one line, and no folder is there afterwards."""
    copy = shutil.copytree(run.path, tmp_path / "copy", ignore=shutil.ignore_patterns("exports"))
    process = converting(Run.open(copy), python)
    shutil.rmtree(copy)
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err.count("\n")) == (2, 1)
    assert "a folder that was removed meanwhile" in err
    assert not copy.exists()


@pytest.mark.slow
def test_second_export_replaces_the_first(run):
    """The same format again: still one whole artifact."""
    export.convert(run, "onnx")
    export.convert(run, "onnx")
    assert visible(run) == ["onnx"]
    export.verify(run.exports / "onnx")


def test_a_run_in_training_is_not_exported(run):
    """A run in use is not exported."""
    with run.lock():
        command = [sys.executable, "-m", "zoo", "export", run.path, "--format", "onnx"]
        done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2
    assert "which is locked" in done.stderr


@pytest.mark.parametrize("name", ["onnx", "tflite_int8", pytest.param("saved_model", marks=pytest.mark.slow)])
def test_one_changed_byte_is_found(artifact, name):
    """In any file, at the beginning, in the middle or at the end: verify and load refuse."""
    folder = artifact(name)
    export.verify(folder)
    for file in sorted(p for p in folder.rglob("*") if p.is_file()):
        content = file.read_bytes()
        for place in {0, len(content) // 2, len(content) - 1} if content else ():
            file.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
            with pytest.raises((ParityError, RunError)):
                export.verify(folder)
            with pytest.raises((ParityError, RunError)):
                export.load(folder)
        file.write_bytes(content)
    export.verify(folder)


def test_files_missing_added_or_cut_off_are_found(artifact):
    """The manifest names every file, and there are no others."""
    folder = artifact("onnx")
    (folder / "more.txt").write_text("")
    with pytest.raises(ParityError, match=r"more\.txt was added"):
        export.verify(folder)
    (folder / "more.txt").unlink()
    content = (folder / "model.onnx").read_bytes()
    (folder / "model.onnx").write_bytes(content[: len(content) // 2])
    with pytest.raises(ParityError, match=r"model\.onnx was changed"):
        export.verify(folder / "model.onnx")
    (folder / "model.onnx").unlink()
    with pytest.raises(ParityError, match=r"model\.onnx is missing"):
        export.verify(folder)


def test_wrong_weight_under_right_digests_is_found(artifact):
    """A changed weight with a new manifest is found by the comparison."""
    import onnx

    folder = artifact("onnx")
    model = onnx.load(folder / "model.onnx")
    tensor = max(model.graph.initializer, key=lambda t: len(t.raw_data))
    weights = onnx.numpy_helper.to_array(tensor).copy()
    weights.flat[0] += 10.0
    tensor.CopyFrom(onnx.numpy_helper.from_array(weights, tensor.name))
    onnx.save(model, folder / "model.onnx")
    manifest = json.loads((folder / NAME).read_text())
    write_manifest(folder, {k: v for k, v in manifest.items() if k not in ("version", "files", "digest", "bytes")})
    export.load(folder)
    with pytest.raises(ParityError, match="failed verification"):
        export.verify(folder)


def test_manifest_of_another_version_is_refused(artifact, zoo_command):
    """One line names both versions."""
    folder = artifact("onnx")
    write_json(folder / NAME, {**read_json(folder / NAME), "version": 99})
    code, out, err = zoo_command("verify", folder)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert f"version {VERSION}" in err
    assert "version 99" in err


def test_verify_and_load_need_no_run(artifacts, tmp_path):
    """A copied folder is enough to verify and load an artifact."""
    shutil.copytree(artifacts["tflite"].path.parent, tmp_path / "copy")
    assert export.verify(tmp_path / "copy" / "model.tflite").parity["passed"]


@pytest.mark.parametrize("arguments", [
    ("export", "{run}", "--format", "tflite_int9"),
    ("export", "{run}"),
    ("export", "{run}/nowhere", "--format", "onnx"),
    ("verify", "{run}"),
    ("verify", "{run}/nowhere"),
    ("report", "{run}/nowhere"),
])  # fmt: skip
def test_bad_input_is_one_line(zoo_command, run, arguments):
    """Exit code 2, one line on standard error, nothing on standard output, nothing left."""
    code, out, err = zoo_command(*(a.format(run=run.path) for a in arguments))
    assert (code, out, err.count("\n")) == (2, "", 1), err
    assert visible(run) == []


def test_unfinished_run_is_refused(tmp_path):
    """A run without done.json has no model yet."""
    run = Run.create(training.get_recipe("digits_mlp"), tmp_path / "run")
    with pytest.raises(RunError, match="--resume"):
        export.convert(run, "onnx")


class Fake(Runtime):
    """A runtime with given logits; only the comparison is under test here."""

    def __init__(self, logits, name="image", batch=None):
        self.logits, self.batch, self.metadata = logits, batch, EXPECTED
        self.inputs = (Tensor(name, (batch, 2), "float32"),)
        self.outputs = (Tensor("logits", (batch, 3), "float32"),)

    def __call__(self, images):
        return self.logits[images[:, 0].astype(int)]


EXPECTED = {"input": "image", "output": "logits"}
LOGITS = np.array([[3.0, 0, 0], [0, 3, 0], [0, 0, 3], [3, 0, 0]], "float32")
SAMPLE = {"inputs": np.stack([np.arange(4.0), np.zeros(4)], 1), "labels": np.array([0, 1, 2, 0]), "logits": LOGITS}


@pytest.mark.parametrize(("logits", "passes"), [
    (LOGITS, True),
    (LOGITS + 1e-5, True),
    (LOGITS + 1e-2, False),
    (LOGITS[:, ::-1], False),
    (np.full_like(LOGITS, np.nan), False),
    (np.where(LOGITS == 3, np.inf, LOGITS), False),
])  # fmt: skip
def test_comparison(logits, passes):
    """Small differences pass; large ones, other predictions, NaN and infinity fail."""
    parity = compare(Fake(np.ascontiguousarray(logits)), SAMPLE, Tolerance(1e-4, 1.0, 0.0), EXPECTED)
    assert parity.passed is passes
    if not passes:
        with pytest.raises(ParityError, match="fake failed verification on 4 examples"):
            require(parity, "fake")


def test_comparison_sees_accuracy_and_agreement():
    """A wide tolerance on logits does not hide a wrong prediction."""
    wrong = LOGITS.copy()
    wrong[3] = [0, 1, 0]
    parity = compare(Fake(wrong), SAMPLE, Tolerance(10.0, 0.5, 0.1), EXPECTED)
    assert (parity.accuracy, parity.agreement, parity.passed) == (0.75, 0.75, False)
    assert compare(Fake(wrong), SAMPLE, Tolerance(10.0, 0.5, 0.25), EXPECTED).passed
    assert not compare(Fake(wrong), SAMPLE, Tolerance(10.0, 0.8, 1.0), EXPECTED).passed


@pytest.mark.parametrize("change", [
    lambda r: setattr(r, "inputs", (Tensor("x", (None, 2), "float32"),)),
    lambda r: setattr(r, "outputs", (Tensor("logits", (None, 4), "float32"),)),
    lambda r: setattr(r, "metadata", None),
    lambda r: setattr(r, "logits", r.logits[:, :2]),
])  # fmt: skip
def test_comparison_sees_names_shapes_and_metadata(change):
    """Another name, another size or missing metadata fails verification."""
    runtime = Fake(LOGITS)
    change(runtime)
    with pytest.raises(ParityError):
        compare(runtime, SAMPLE, Tolerance(1e-4, 1.0, 0.0), EXPECTED)


def test_samples_are_the_whole_test_split(artifacts):
    """The samples are all 360 images, as in the dataset."""
    from training.datasets.digits import TEST, load_pixels

    with np.load(artifacts["onnx"].path.parent / SAMPLES) as file:
        images, labels = load_pixels()
        np.testing.assert_array_equal(file["inputs"], images[TEST.start :])
        np.testing.assert_array_equal(file["labels"], labels[TEST.start :])


@pytest.mark.parametrize(("size", "crop"), [(224, 0.875), (299, 0.875), (240, 0.95), (380, 0.922), (16, 1.0)])
def test_a_frame_is_cut_off_again(size, crop):
    """With the frame, encoded bytes decode to the same pixels; without it, to their center."""
    image = np.random.default_rng(0).integers(0, 256, (size, size, 3)).astype("float32")
    preprocessing = PreprocessingConfig((0.0,), (1.0,), interpolation="bicubic", crop=crop)
    np.testing.assert_array_equal(decode(encode_png(with_frame(image, crop)), image.shape, preprocessing), image)
    bare = decode(encode_png(image), image.shape, preprocessing)
    assert np.array_equal(bare, image) == (crop == 1.0)


def test_an_artifact_left_renamed_is_restored(artifact, tmp_path):
    """After a kill between two renames, readers restore the old artifact."""
    from export.reporting.artifact_sets import open_artifact_sets

    for read in (export.verify, export.load, lambda folder: open_artifact_sets([folder.parent])):
        folder = artifact("onnx")
        folder.rename(folder.with_name(f".replaced-{folder.name}"))
        read(folder)
        assert (folder / NAME).is_file()
        shutil.rmtree(folder)
