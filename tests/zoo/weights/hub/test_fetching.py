"""`zoo fetch`: names, wildcards and repositories into the caches, with a hub on the loopback interface."""

from __future__ import annotations

import hashlib
import json

import pytest

import zoo
from zoo.specs.published import NameMapping, PublishedWeights
from zoo.specs.registry import models
from zoo.weights.fetching import fetch_weights

CONTENT = {
    name: name.encode() * 9 for name in ("timm/fetchnet_a.x_in1k", "timm/fetchnet_a.nc_in1k", "timm/fetchnet_b.x")
}


@pytest.fixture(autouse=True)
def fetchnets():
    """Two models with published weights; nothing here builds one."""
    like = zoo.ModelSpec((8, 8, 3), 3, 8)
    entries = {
        "fetchnet_a": [
            PublishedWeights("timm/fetchnet_a.x_in1k", 50.0, license="mit"),
            PublishedWeights("timm/fetchnet_a.nc_in1k", 60.0, license="cc-by-nc-4.0"),
        ],
        "fetchnet_b": [
            PublishedWeights("timm/fetchnet_b.x", 50.0, sha256="0" * 64),
            PublishedWeights(
                "keras/FetchNet", 1.0, md5=hashlib.md5(b"theirs").hexdigest(), url="http://127.0.0.1:9/f.h5"
            ),
            PublishedWeights("torchvision/FetchNet.V1", 1.0),
        ],
    }
    for name, weights in entries.items():
        mappings = {"timm": NameMapping(((r"(.*)", "{0}"),))}
        zoo.register_model(name, like, params=1000, weights=weights, name_mappings=mappings)(lambda x, head: head(x))
    yield
    for name in entries:
        models._entries.pop(name, None)
        models._origins.pop(name, None)


@pytest.fixture
def hub(local_hub):
    """The hub with the files; one of them has another SHA-256 than its entry says."""
    for name, content in CONTENT.items():
        local_hub.publish(name, {"model.safetensors": content})
    return local_hub


def test_several_names_as_json(hub, zoo_command):
    """Each file is in the cache, with size, license, commit and digest; a second call asks the hub for nothing."""
    config = {"architecture": "fetchnet_a", "num_classes": 3}
    card = b"---\nlicense: bsd-3-clause\n---\n"
    files = {"model.safetensors": b"own", "config.json": json.dumps(config).encode(), "README.md": card}
    commit = hub.publish("me/fetchnet", files)
    names = ["fetchnet_a", "fetchnet_a.x_in1k", "hf://me/fetchnet"]
    code, out, err = zoo_command("fetch", *names, "--json")
    assert (code, err) == (0, "")
    first, second = json.loads(out)
    assert (first["model"], first["weights"], first["license"]) == ("fetchnet_a", "timm/fetchnet_a.x_in1k", "mit")
    assert first["bytes"] == len(CONTENT["timm/fetchnet_a.x_in1k"])
    assert first["path"].startswith(str(hub.cache))
    assert (second["license"], second["revision"], second["bytes"]) == ("bsd-3-clause", commit, 3)
    assert second["sha256"] == hashlib.sha256(b"own").hexdigest()
    hub.requests.clear()
    assert zoo_command("fetch", *names, "--json")[1] == out
    assert hub.requests == []


def test_wildcards_and_one_that_fails(hub, zoo_command):
    """Wildcards choose models or tags; a wrong digest is one line and exit code 2, and the others are printed."""
    code, out, err = zoo_command("fetch", "fetchnet_*")
    assert (code, err.count("\n")) == (2, 1)
    assert f"must have the SHA-256 {'0' * 64}" in err
    head, row = out.splitlines()
    assert head.split() == ["model", "weights", "MB", "license", "path"]
    assert row.split()[:4] == ["fetchnet_a", "timm/fetchnet_a.x_in1k", "0.0", "mit"]
    code, out, _ = zoo_command("fetch", "fetchnet_a.x*", "--json")
    assert (code, [each["weights"] for each in json.loads(out)]) == (0, ["timm/fetchnet_a.x_in1k"])


def test_noncommercial_weights(hub, zoo_command):
    """They are refused before a download, and accepted by an option for this command alone."""
    code, out, err = zoo_command("fetch", "fetchnet_a.nc_in1k")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "license cc-by-nc-4.0. Pass --allow-noncommercial" in err
    assert hub.requests == []
    code, out, _ = zoo_command("fetch", "fetchnet_a.nc_in1k", "--allow-noncommercial", "--json")
    assert (code, json.loads(out)[0]["license"]) == (0, "cc-by-nc-4.0")
    assert zoo_command("fetch", "fetchnet_a.nc_in1k")[0] == 2


def test_cache_dir(hub, zoo_command, tmp_path):
    """The file is in the given folder."""
    _, out, _ = zoo_command("fetch", "fetchnet_a", "--cache-dir", tmp_path / "mine", "--json")
    assert json.loads(out)[0]["path"].startswith(str(tmp_path / "mine"))
    assert not hub.cache.exists()


def test_file_of_keras(hub, monkeypatch, tmp_path):
    """A file in the cache of Keras is used if it has the MD5 of its entry, and refused if not."""
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    file = tmp_path / "models" / "f.h5"
    file.parent.mkdir()
    file.write_bytes(b"theirs")
    found = fetch_weights("fetchnet_b", "keras")
    assert (found.path, found.bytes, found.revision) == (file, 6, None)
    file.write_bytes(b"others")
    with pytest.raises(zoo.DataError, match=rf"must have the md5 .*{file}.*Delete it"):
        fetch_weights("fetchnet_b", "keras")


@pytest.mark.tensorflow
def test_cache_dir_of_keras(monkeypatch, tmp_path):
    """A file below cache_dir is the one that is opened; one that is missing there is asked for by its path."""
    import keras
    import numpy as np

    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "unused"))
    with pytest.raises(zoo.DataError, match=rf"Download http://127\.0\.0\.1:9/f\.h5 to {tmp_path}/own/models/f\.h5"):
        fetch_weights("fetchnet_b", "keras", str(tmp_path / "own"))
    theirs = keras.applications.MobileNetV2(weights=None)
    (published,) = (w for w in zoo.spec("mobilenet_v2").weights if w.source.startswith("keras/"))
    theirs.save(tmp_path / "own" / "models" / published.url.rpartition("/")[2])
    model = zoo.get("mobilenet_v2", weights="keras", cache_dir=tmp_path / "own")
    kernels = (x.get_layer(name).kernel for x, name in ((model, "logits"), (theirs, "predictions")))
    np.testing.assert_array_equal(*kernels)
    assert not (tmp_path / "unused").exists()


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (["fetchnet"], "Did you mean 'fetchnet_"),
        (["nothing*"], "Expected models with published weights"),
        (["fetchnet_b", "--weights", "torchvision/FetchNet.V1"], "a pickle"),
        (["mlp"], "mlp has no such weights"),
        (["hf://nobody/nothing"], "Weights cannot be downloaded"),
        (["hf://x"], "hf://user/repository"),
    ],
)
def test_wrong_names_are_one_line(arguments, hint, hub, zoo_command):
    """Each is one line and exit code 2."""
    code, out, err = zoo_command("fetch", *arguments)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert hint in err
