"""An artifact that is changed, incomplete or of another version is refused; a copied or restored one is read."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

import export
from export.core.manifest import NAME, SAMPLES, VERSION, write_manifest
from zoo.common.errors import ParityError, RunError
from zoo.common.files import write_json
from zoo.reading.json_files import read_json


@pytest.fixture
def artifact(artifacts, tmp_path):
    """Copy an artifact that a test may change."""

    def copy(name):
        shutil.copytree(artifacts[name].path.parent, tmp_path / name)
        return tmp_path / name

    return copy


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


def test_samples_are_the_whole_test_split(artifacts):
    """The samples are all 360 images, as in the dataset."""
    from training.datasets.digits import TEST, load_pixels

    with np.load(artifacts["onnx"].path.parent / SAMPLES) as file:
        images, labels = load_pixels()
        np.testing.assert_array_equal(file["inputs"], images[TEST.start :])
        np.testing.assert_array_equal(file["labels"], labels[TEST.start :])


def test_an_artifact_left_renamed_is_restored(artifact, tmp_path):
    """After a kill between two renames, readers restore the old artifact."""
    from export.reporting.artifact_sets import open_artifact_sets

    for read in (export.verify, export.load, lambda folder: open_artifact_sets([folder.parent])):
        folder = artifact("onnx")
        folder.rename(folder.with_name(f".replaced-{folder.name}"))
        read(folder)
        assert (folder / NAME).is_file()
        shutil.rmtree(folder)
