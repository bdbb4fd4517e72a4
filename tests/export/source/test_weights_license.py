"""The license of weights in exports: refused or accepted, in the manifest, in the report, and of a repository."""

from __future__ import annotations

import dataclasses
import json

import pytest

import export
import zoo
from zoo.common.digests import digest
from zoo.layers.saving import with_info
from zoo.weights.configs import StoredModel, own_config

pytestmark = pytest.mark.tensorflow


@pytest.fixture
def folder(tmp_path):
    """A folder of weights that are not for commercial use, as a repository has them."""
    model = zoo.get("cnn_tiny", input_shape=(16, 16, 3), classes=3, preprocessing="tf")
    info = dataclasses.replace(zoo.info(model), license="cc-by-nc-4.0", labels=("cat", "dog", "cow"))
    place = tmp_path / "repository"
    place.mkdir()
    zoo.save_weights(with_info(model, info), place / "model.safetensors")
    config = own_config(StoredModel(info, 3, (16, 16, 3), digest(place / "model.safetensors")))
    (place / "config.json").write_text(json.dumps(config))
    return place


def test_noncommercial_weights_in_an_export(folder, local_hub, zoo_command, tmp_path):
    """They are refused in one line; an acceptance for the command is in the manifest and in the report."""
    local_hub.publish("me/nc", {path.name: path.read_bytes() for path in folder.iterdir()})
    out = tmp_path / "out"
    command = ["export", "hf://me/nc", "--format", "onnx", "--out", out]
    code, printed, err = zoo_command(*command)
    assert (code, printed, err.count("\n")) == (2, "", 1)
    assert "license cc-by-nc-4.0. Pass --allow-noncommercial" in err
    assert not out.exists()
    code, printed, err = zoo_command(*command, "--allow-noncommercial", "--json")
    assert code == 0, err
    (artifact,) = json.loads(printed)
    source, labels = artifact["source"], artifact["metadata"]["labels"]
    assert (source["model"], source["weights"], source["weights_origin"]) == ("cnn_tiny", "hf://me/nc", "hf://me/nc")
    assert (source["weights_license"], source["noncommercial_accepted"]) == ("cc-by-nc-4.0", True)
    assert len(source["weights_revision"]) == 40
    assert labels == ["cat", "dog", "cow"]
    report = export.report(out, measure=False)
    assert report.artifacts[0]["weights"] == {"origin": "hf://me/nc", "license": "cc-by-nc-4.0", "accepted": True}
    assert "hf://me/nc, license cc-by-nc-4.0, not for commercial use, accepted" in report.html.read_text()


def test_free_weights_need_no_acceptance(tmp_path):
    """The control: neither the manifest nor the report speaks of an acceptance."""
    model = zoo.get("cnn_tiny", input_shape=(16, 16, 3), preprocessing="tf")
    free = with_info(model, dataclasses.replace(zoo.info(model), license="mit"))
    zoo.save_weights(free, tmp_path / "free.safetensors")
    options = {"input_shape": (16, 16, 3)}
    weights, out = tmp_path / "free.safetensors", tmp_path / "out"
    (artifact,) = export.convert("cnn_tiny", "onnx", weights=weights, out=out, options=options)
    assert artifact.manifest["source"]["weights_license"] == "mit"
    assert "noncommercial_accepted" not in artifact.manifest["source"]
    assert "a file, license mit." in export.report(out, measure=False).html.read_text()
