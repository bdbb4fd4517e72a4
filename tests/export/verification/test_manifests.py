"""Manifests that are signed and wrong, and artifacts that no runtime reads."""

from __future__ import annotations

import json
import shutil

import pytest

import export
from export.core.manifest import NAME, write_manifest
from zoo.common.errors import ParityError, ZooError


def test_a_wrong_inspection_in_the_manifest_is_an_error(artifacts, tmp_path):
    """A manifest with a valid digest and a wrong value fails verification."""
    folder = tmp_path / "artifact"
    shutil.copytree(artifacts["onnx_int8"].folder, folder)
    manifest = json.loads((folder / NAME).read_text())
    manifest["inspection"]["total_sparsity"] = 0.8
    write_manifest(folder, {k: v for k, v in manifest.items() if k not in ("version", "files", "digest", "bytes")})
    with pytest.raises(ParityError, match=r"total_sparsity.*0\.8"):
        export.verify(folder)


@pytest.mark.parametrize("change", [
    {"artifact": "../../etc/passwd"},
    {"inspection": None},
    {"format": ["onnx"]},
    {"metadata": "none"},
])  # fmt: skip
def test_incomplete_manifests_are_one_line(change, artifacts, tmp_path, zoo_command):
    """A manifest with a valid digest and a missing or wrong field is refused by the field's name."""
    folder = tmp_path / "artifact"
    shutil.copytree(artifacts["onnx"].folder, folder)
    manifest = json.loads((folder / NAME).read_text()) | change
    write_manifest(folder, {k: v for k, v in manifest.items() if k not in ("version", "files", "digest", "bytes")})
    code, out, err = zoo_command("verify", folder)
    assert (code, out, err.count("\n")) == (2, "", 1), err
    assert next(iter(change)) in err


def test_unreadable_artifacts_are_one_line(artifacts, tmp_path):
    """A truncated file with a valid manifest: load and verify report that the runtime cannot load it."""
    for name in ("tflite", "onnx"):
        folder = tmp_path / name
        shutil.copytree(artifacts[name].folder, folder)
        file = folder / artifacts[name].path.name
        file.write_bytes(file.read_bytes()[:500])
        manifest = json.loads((folder / NAME).read_text())
        write_manifest(folder, {k: v for k, v in manifest.items() if k not in ("version", "files", "digest", "bytes")})
        for call in (export.load, export.verify):
            with pytest.raises(ZooError) as raised:
                call(folder)
            assert "\n" not in str(raised.value)
