"""Published weights: the real client of the Hugging Face hub with a local hub, and Keras offline."""

from __future__ import annotations

import hashlib
import re
import time
from pathlib import Path

import numpy as np
import pytest
from hub_session import COMMIT, EXPECTED, FILE, STATE, Hub, Session
from safetensors.numpy import save

from zoo.common.digests import _digest
from zoo.common.errors import DataError
from zoo.weights.hub import fetch


@pytest.fixture(scope="module")
def hub():
    """A hub that serves all tests, each with its own repository."""
    hub = Hub()
    hub.start()
    yield hub
    hub.stop()


@pytest.fixture(scope="module")
def session(hub, python, tmp_path_factory):
    """A process that uses the local hub."""
    session = Session(python, tmp_path_factory.mktemp("session"), HF_ENDPOINT=hub.address)
    session.cache = session.log.parent / "hf" / "hub"
    yield session
    session.close()


def cached(session, repository):
    """The files of a repository in the client's cache, and the links to them."""
    folder = session.cache / f"models--{repository.replace('/', '--')}"
    return list((folder / "blobs").glob("*")), list(folder.glob("snapshots/*/model.safetensors"))


@pytest.fixture
def down(hub):
    """Stop the hub during a test."""
    with hub.down():
        yield hub


def test_download_is_cached(hub, session):
    """A download has the right values, is in the client's cache, and is not repeated, also without the hub."""
    name = hub.publish("timm/resnet_test.cached")
    assert session.get(name)["values"] == EXPECTED
    (blob,), (link,) = cached(session, name)
    assert blob.name == hashlib.sha256(FILE).hexdigest()
    assert blob.read_bytes() == FILE
    assert link.parent.name == COMMIT
    with hub.down():
        again = session.get(name)
    assert again["values"] == EXPECTED
    assert again["seconds"] < 10
    assert session.get(name)["values"] == EXPECTED
    assert hub.requests.count(("GET", f"/store/{name}")) == 1


def test_revision(hub, session):
    """A name with a revision is downloaded from it, and is another file than the one of "main"."""
    name = hub.publish("timm/resnet_test.revised")
    hub.publish(f"{name}@v2", save({**STATE, "logits.bias": np.array([7, 8], "float32")}))
    assert session.get(f"{name}@v2")["values"] == {**EXPECTED, "logits/bias": [7, 8]}
    assert session.get(name)["values"] == EXPECTED
    message = session.refusal(f"{name}@v3")
    assert f"{hub.address}/{name}/resolve/v3/model.safetensors to {session.home / name}@v3.safetensors" in message


def test_digest_is_checked_wherever_a_file_lies(tmp_path, monkeypatch):
    """A published SHA-256 is that of a file downloaded by hand, computed once until the file changes."""
    monkeypatch.setenv("ZOO_HOME", str(tmp_path))
    path = tmp_path / "timm" / "resnet_test.x.safetensors"
    path.parent.mkdir()
    path.write_bytes(FILE)
    expected = hashlib.sha256(FILE).hexdigest()
    before = _digest.cache_info().misses
    for _ in range(2):
        assert fetch("timm/resnet_test.x", expected) == path
    assert _digest.cache_info().misses == before + 1
    path.write_bytes(FILE[:-1] + b"\x00\x00")
    with pytest.raises(DataError, match=rf"must have the SHA-256 {expected}\. Received: .*resnet_test\.x"):
        fetch("timm/resnet_test.x", expected)
    assert fetch("timm/resnet_test.x") == path


def test_imagenet_is_the_first_published(hub, session):
    """The name "imagenet" downloads the first weights of the spec."""
    hub.publish("timm/resnet_test.best")
    assert session.get("imagenet")["values"] == EXPECTED
    assert ("GET", "/store/timm/resnet_test.best") in hub.requests


def test_damaged_cache_is_refused_and_removed(hub, session):
    """A byte changed on disk is detected; the file is deleted, and the next call downloads it again."""
    name = hub.publish("timm/resnet_test.damaged")
    session.get(name)
    (blob,), _ = cached(session, name)
    damaged = bytearray(FILE)
    damaged[-1] ^= 1
    blob.write_bytes(damaged)
    assert "was damaged and is now deleted" in session.refusal(name)
    assert cached(session, name)[0] == []
    assert session.get(name)["values"] == EXPECTED


def test_other_content_is_refused(hub, session):
    """Content with another SHA-256 than the hub's is deleted."""
    name = hub.publish("timm/resnet_test.other")
    hub.sent[name] = FILE[:-1] + b"\x00"
    assert hub.sent[name] != FILE
    assert "was damaged and is now deleted" in session.refusal(name)
    assert cached(session, name)[0] == []
    hub.sent[name] = FILE
    assert session.get(name)["values"] == EXPECTED


def test_broken_download_resumes(hub, session):
    """A download resumes after the connection breaks."""
    name = hub.publish("timm/resnet_test.breaks")
    hub.broken[name] = "breaks off"
    assert session.get(name)["values"] == EXPECTED
    assert hub.requests.count(("GET", f"/store/{name}")) == 2


@pytest.mark.parametrize("how", ["hangs up", "fails", pytest.param("sends nothing", marks=pytest.mark.slow)])
def test_failed_download_is_one_line(how, hub, session):
    """A failing hub gives one line with the address of the file and the path for it."""
    name = hub.publish(f"timm/resnet_test.{how.replace(' ', '_')}")
    hub.broken[name] = how
    message = session.refusal(name)
    assert (
        f"Download {hub.address}/{name}/resolve/main/model.safetensors to {session.home / name}.safetensors" in message
    )
    hub.broken.clear()
    assert session.get(name)["values"] == EXPECTED


def test_unknown_repository_is_one_line(hub, session):
    """A repository that the hub does not have gives one line."""
    assert "Weights cannot be downloaded" in session.refusal("timm/resnet_test.unknown")


@pytest.mark.parametrize("name", ["timm/", "timm/a/b", "timm/../x", "timm/x y", "timm/.."])
def test_name_of_no_repository_is_one_line(name, session):
    """An invalid repository name gives one line."""
    result = session.get(name)
    assert result["error"] in ("BadOption", "DataError")
    assert "\n" not in result["message"]


def test_file_downloaded_by_hand(down, session):
    """Without the hub, one line within seconds has address and path, and a file at this path is used."""
    start = time.monotonic()
    message = session.refusal("timm/resnet_test.by_hand")
    assert time.monotonic() - start < 10
    address, path = re.search(r"Download (\S+) to (\S+)", message).groups()
    assert address == f"{down.address}/timm/resnet_test.by_hand/resolve/main/model.safetensors"
    assert path == f"{session.home}/timm/resnet_test.by_hand.safetensors"
    (session.home / "timm").mkdir(parents=True, exist_ok=True)
    (session.home / "timm" / "resnet_test.by_hand.safetensors").write_bytes(FILE)
    assert session.get("timm/resnet_test.by_hand")["values"] == EXPECTED


def test_file_downloaded_by_hand_has_precedence(hub, session):
    """A file downloaded by hand is used instead of the hub's."""
    name = hub.publish("timm/resnet_test.first", b"not this")
    (session.home / "timm").mkdir(parents=True, exist_ok=True)
    (session.home / f"{name}.safetensors").write_bytes(FILE)
    assert session.get(name)["values"] == EXPECTED
    assert not [path for _, path in hub.requests if name in path]


def test_damaged_file_downloaded_by_hand_is_named(session):
    """The error for an unreadable file downloaded by hand has its path, not only the name of the weights."""
    path = session.home / "timm" / "resnet_test.half.safetensors"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(FILE[: len(FILE) // 2])
    assert str(path) in session.refusal("timm/resnet_test.half", error="BadOption")


def test_weights_of_another_model_are_refused(hub, session):
    """A file from the hub that does not fit is refused like the user's own file."""
    name = hub.publish("timm/resnet_test.misfit", save(STATE | {"conv.weight": np.ones((1, 1, 1, 1), "float32")}))
    assert "1 not expected here: conv.weight" in session.refusal(name, error="BadOption")


@pytest.mark.parametrize("name", ["mlp_tiny", "resnet50_v1"])
def test_hub_is_not_asked_for_what_cannot_fit(name, hub, session):
    """A model without a name mapping of timm is refused before any download."""
    repository = hub.publish(f"timm/{name}.x")
    assert "no such weights" in session.refusal(repository, name, "BadOption")
    assert not [path for _, path in hub.requests if repository in path]


# Nothing listens on the discard port.
NO_NETWORK = dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), "http://127.0.0.1:9")


@pytest.mark.slow
def test_offline_client(python, tmp_path):
    """An offline client gives one line at once."""
    session = Session(python, tmp_path, HF_HUB_OFFLINE="1", **NO_NETWORK)
    try:
        result = session.get("imagenet")
    finally:
        session.close()
    assert (result["error"], "\n" in result["message"]) == ("DataError", False)
    assert f"to {tmp_path}/zoo/timm/resnet_test.best.safetensors" in result["message"]
    assert result["seconds"] < 10


@pytest.mark.slow
@pytest.mark.parametrize("keras_home", [None, "elsewhere"])
def test_weights_of_keras_downloaded_by_hand(keras_home, python, tmp_path):
    """Offline, one line has the path of Keras' file, and a file at this path is used."""
    import keras

    place = {} if keras_home is None else {"KERAS_HOME": str(tmp_path / keras_home)}
    session = Session(python, tmp_path, **place, **NO_NETWORK)
    try:
        address, path = re.search(r"Download (\S+) to (\S+)", session.refusal("keras", "mobilenet_v2")).groups()
        assert address.startswith("https://storage.googleapis.com/tensorflow/keras-applications/mobilenet_v2/")
        assert path == f"{tmp_path}/{keras_home or '.keras'}/models/{address.rpartition('/')[2]}"
        theirs = keras.applications.MobileNetV2(weights=None)
        theirs.save(tmp_path / "theirs.h5")
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "theirs.h5").rename(path)
        values = session.get("keras", "mobilenet_v2")["values"]
    finally:
        session.close()
    assert np.array_equal(np.array(values["logits/kernel"], "float32"), theirs.get_layer("predictions").kernel.numpy())
