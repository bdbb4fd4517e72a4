"""`zoo push` and back, with the hub's own client and a hub on the loopback interface."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import yaml

import export
import zoo
from export.publishing.bundle import checked_license
from export.publishing.pull import local_artifact
from training.learning.evaluation import load_model
from zoo.common.errors import BadOption, DataError, ParityError, RunError

pytestmark = pytest.mark.tensorflow


@pytest.fixture(scope="module")
def run(copied, artifacts, tmp_path_factory):
    """A run of the digits with two artifacts."""
    found = copied(tmp_path_factory.mktemp("pushed") / "run")
    for name in ("tflite", "onnx"):
        shutil.copytree(artifacts[name].folder, found.exports / name)
    return found


@pytest.fixture
def digits():
    """Raw pixels of the digits' size."""
    return np.random.default_rng(0).integers(0, 17, (3, 8, 8, 1)).astype("float32")


def front_matter(hub, name):
    """The metadata of a repository's card, and its text."""
    _, head, text = hub.files(name)[1]["README.md"].decode().split("---\n", 2)
    return yaml.safe_load(head), text


def test_run_there_and_back(run, digits, local_hub, zoo_command):
    """Weights, options, preprocessing, labels and artifacts come back: equal logits to the bit, verified artifacts."""
    code, out, err = zoo_command("push", run.path, "hf://me/digits", "--private", "--license", "mit", "--json")
    assert code == 0, err
    pushed = json.loads(out)
    assert local_hub.private["me/digits"] is True
    assert {"README.md", "config.json", "model.safetensors", "exports/onnx/manifest.json"} <= set(pushed["files"])
    trained, again = load_model(run), zoo.get("hf://me/digits")
    same = zoo.get("resnet_tiny", weights=run.model_path, classes=10, input_shape=(8, 8, 1))
    info = zoo.info(again)
    scaled = (digits - np.array(info.preprocessing.mean)) / np.array(info.preprocessing.std)
    assert np.array_equal(again.predict(scaled, verbose=0), same.predict(scaled, verbose=0))
    assert all(map(np.array_equal, again.get_weights(), trained.get_weights()))
    assert (info.labels, info.license) == (tuple(run.result()["labels"]), "mit")
    assert (info.origin, f"hf://me/digits@{info.revision}") == ("hf://me/digits", pushed["address"])
    assert info.options == zoo.info(trained).options
    for name in ("onnx", "tflite"):
        expected = export.load(run.exports / name)(digits)
        assert np.array_equal(export.load(f"{pushed['address']}/{name}")(digits), expected)
    assert export.verify("hf://me/digits/onnx").parity["passed"]
    with local_hub.down():
        assert np.array_equal(export.load("hf://me/digits/tflite")(digits), expected)
    with pytest.raises(BadOption, match=r"of one artifact.*onnx, tflite.*hf://me/digits/onnx"):
        export.load("hf://me/digits")
    with pytest.raises(RunError, match="Did you mean 'onnx'"):
        export.load("hf://me/digits/onnxx")


def test_card(run, local_hub):
    """The card has what the hub reads, and for users: results, preprocessing, artifacts and how to load them."""
    export.push(run, "hf://me/card", license_name="apache-2.0")
    head, text = front_matter(local_hub, "me/card")
    assert (head["license"], head["library_name"], head["datasets"]) == ("apache-2.0", "keras-zoo", ["digits"])
    assert head["pipeline_tag"] == "image-classification"
    assert {"keras", "resnet_tiny", "onnx", "tflite"} <= set(head["tags"])
    (result,) = head["model-index"][0]["results"]
    accuracy = next(m["value"] for m in result["metrics"] if m["type"] == "accuracy")
    assert accuracy == run.result()["test"]["accuracy"]
    assert 'zoo.get("hf://me/card")' in text
    assert 'export.load("hf://me/card/onnx")' in text
    assert f"| accuracy | {accuracy:.4f} |" in text
    assert "| `tflite` | tflite |" in text
    assert "| mean |" in text
    assert str(run.path) not in text


def test_artifact_alone(run, digits, local_hub):
    """An artifact alone is loaded by the repository's name; there are no weights for zoo.get."""
    pushed = export.push(run.exports / "onnx", "hf://me/onnx", revision="v1")
    assert local_hub.branches["me/onnx"]["v1"] == pushed.address.rpartition("@")[2]
    assert "license" not in local_hub.files("me/onnx", "v1")[1]["README.md"].decode().split("---")[1]
    found = export.load("hf://me/onnx@v1")(digits)
    assert np.array_equal(found, export.load(run.exports / "onnx")(digits))
    with pytest.raises(RunError, match="has none"):
        export.load("hf://me/onnx")
    with pytest.raises(DataError, match=r"repository with config\.json"):
        zoo.get("hf://me/onnx@v1")


def test_pull_request(run, local_hub):
    """A pull request leaves the branch as it is, and its files load by its revision."""
    local_hub.publish("me/pr", {"a.txt": b""})
    pushed = export.push(run.exports / "onnx", "hf://me/pr", create_pr=True)
    assert pushed.url.endswith("/discussions/1")
    assert set(local_hub.files("me/pr")[1]) == {"a.txt"}
    assert local_artifact("hf://me/pr@refs/pr/1").name == "onnx"


def test_tampered_artifact_is_refused(run, local_hub):
    """Another byte than the manifest's is refused, whether the hub sends it or it was changed on disk."""
    export.push(run.exports / "tflite", "hf://me/tampered")
    files = local_hub.files("me/tampered")[1]
    name = next(path for path in files if path.endswith(".tflite"))
    local_hub.publish("me/tampered", {name: files[name][:-1] + b"\x01"})
    with pytest.raises(ParityError, match="was changed"):
        export.load("hf://me/tampered")
    manifest = json.loads(files["exports/tflite/manifest.json"])
    manifest["files"]["../outside"] = {"bytes": 0, "sha256": ""}
    local_hub.publish("me/outside", {"exports/tflite/manifest.json": json.dumps(manifest).encode()})
    with pytest.raises(DataError, match="must be in its folder"):
        export.load("hf://me/outside")


def test_changed_source_is_not_pushed(run, local_hub, tmp_path):
    """An artifact that was changed after its export is refused, and nothing is created on the hub."""
    copy = tmp_path / "onnx"
    shutil.copytree(run.exports / "onnx", copy)
    (copy / "model.onnx").write_bytes(b"x")
    with pytest.raises(ParityError):
        export.push(copy, "hf://me/changed")
    assert local_hub.requests == []


@pytest.mark.parametrize("token", [None, "hf_wrong"])
def test_token_is_needed(token, run, local_hub, monkeypatch, zoo_command, tmp_path):
    """Without a valid token one line says what to do; nothing is created."""
    monkeypatch.delenv("HF_TOKEN")
    if token:
        monkeypatch.setenv("HF_TOKEN", token)
    code, out, err = zoo_command("push", run.exports / "onnx", "hf://me/none")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "HF_TOKEN" in err
    assert "me/none" not in local_hub.branches


def test_hub_that_is_down(run, local_hub, zoo_command):
    """One line, and the exit code of an error."""
    with local_hub.down():
        code, out, err = zoo_command("push", run.exports / "onnx", "hf://me/down")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "must accept the upload" in err


@pytest.mark.parametrize(
    ("source", "to", "kind"),
    [
        ("nothing", "hf://me/x", RunError),
        ("exports/onnx", "me/x", BadOption),
        ("exports/onnx", "hf://me/x/onnx", BadOption),
        ("exports/onnx", "hf://x", BadOption),
    ],
)
def test_wrong_arguments(source, to, kind, run, local_hub):
    """Each is refused before anything is sent."""
    with pytest.raises(kind):
        export.push(run.path / source, to)
    assert local_hub.requests == []


def test_license_of_the_weights_is_kept(monkeypatch):
    """A license that forbids commercial use needs an acceptance, and no other takes its place."""
    assert checked_license("", "apache-2.0") == "apache-2.0"
    assert checked_license("mit", None) == "mit"
    with pytest.raises(BadOption, match="--allow-noncommercial"):
        checked_license("", "cc-by-nc-4.0")
    monkeypatch.setenv("ZOO_ALLOW_NONCOMMERCIAL", "1")
    assert checked_license("", "cc-by-nc-4.0") == "cc-by-nc-4.0"
    with pytest.raises(BadOption, match="must keep that of the weights"):
        checked_license("mit", "cc-by-nc-4.0")
