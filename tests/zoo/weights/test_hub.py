"""Published weights: the real client of the Hugging Face hub against a hub of our own, and Keras without a network."""

from __future__ import annotations

import hashlib
import http.server
import json
import re
import subprocess
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save

COMMIT = "c0ffee" * 6 + "0000"
STATE = {
    "stem.weight": np.arange(4 * 3 * 3 * 3, dtype="float32").reshape(4, 3, 3, 3),
    "logits.weight": np.arange(8, dtype="float32").reshape(2, 4),
    "logits.bias": np.array([5, 6], "float32"),
}
FILE = save(STATE)
# What the state is in a network of Keras, by layer and variable.
EXPECTED = {
    "stem/kernel": STATE["stem.weight"].transpose(2, 3, 1, 0).tolist(),
    "logits/kernel": STATE["logits.weight"].T.tolist(),
    "logits/bias": STATE["logits.bias"].tolist(),
}


class Hub:
    """A hub of one file in each of its repositories, at an address that stays the same when it is down.

    As on the real one, the address of a file redirects to a store, and says which SHA-256 the content has.
    """

    def __init__(self):
        self.files, self.sent, self.asked, self.broken = {}, {}, [], {}
        self.port, self._server = 0, None

    @property
    def address(self):
        return f"http://127.0.0.1:{self.port}"

    def publish(self, repository, content=FILE):
        """Add a repository and return its name; `sent` is what goes over the wire for it."""
        self.files[repository] = self.sent[repository] = content
        return repository

    def start(self):
        handler = type("Handler", (Answer,), {"hub": self})
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", self.port), handler)
        self.port = self._server.server_port
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def stop(self):
        if self._server:
            self._server.shutdown()
            self._server.server_close()
        self._server = None


class Answer(http.server.BaseHTTPRequestHandler):
    """Answers one request to a `Hub`."""

    hub: Hub

    def do_HEAD(self):
        repository = self.path.strip("/").removesuffix("/resolve/main/model.safetensors")
        self.hub.asked.append((self.command, self.path))
        if self.hub.broken.get(repository) == "hangs up":
            return
        if repository not in self.hub.files:
            self.answer(404, {"X-Error-Code": "RepoNotFound", "X-Error-Message": "Repository not found"})
            return
        content = self.hub.files[repository]
        self.answer(
            302,
            {
                # The client follows redirects to the same host before it looks at the headers.
                "Location": f"http://localhost:{self.hub.port}/store/{repository}",
                "X-Repo-Commit": COMMIT,
                "X-Linked-Etag": f'"{hashlib.sha256(content).hexdigest()}"',
                "X-Linked-Size": str(len(content)),
            },
        )

    def do_GET(self):
        if not self.path.startswith("/store/"):
            self.do_HEAD()
            return
        self.hub.asked.append((self.command, self.path))
        repository = self.path.removeprefix("/store/")
        how = self.hub.broken.get(repository)
        if how == "fails":
            self.answer(500, {})
            return
        first = int((re.findall(r"bytes=(\d+)-", self.headers.get("Range", "")) or [0])[0])
        content = self.hub.sent[repository][first:]
        self.answer(206 if first else 200, {"Content-Length": str(len(content))})
        if how == "breaks off":
            self.hub.broken.pop(repository)
            content = content[: len(content) // 2]
        self.wfile.write(content if how != "sends nothing" else b"")

    def answer(self, status, headers):
        self.send_response(status)
        for name, value in ({"Content-Length": "0"} | headers).items():
            self.send_header(name, value)
        self.end_headers()

    def log_message(self, *arguments):
        """Keep quiet."""


# Builds what it is told to, line by line; a process of its own, since the client reads its settings when imported.
SESSION = """
import json, sys, time
import zoo
from zoo.layers.blocks import conv
from zoo.specs.published import NameMapping, PublishedWeights

known = {
    "name_mappings": {"timm": NameMapping(((r"(.*)", "{0}"),))},
    "weights": (PublishedWeights("timm/resnet_test.best", 50.0),),
}

@zoo.register("resnet_test", zoo.ModelSpec((8, 8, 3), 2, 8), params=118, **known)
def resnet_test(x, head):
    return head(conv(x, 4, 3, name="stem"))

zoo.get("resnet_test")
print("ready", flush=True)
for line in sys.stdin:
    name, weights = json.loads(line)
    start = time.monotonic()
    try:
        network = zoo.get(name, weights=weights)
        answer = {"values": {f"{n.name}/{v.name}": v.numpy().tolist() for n in network.layers for v in n.weights}}
    except zoo.ZooError as error:
        answer = {"error": type(error).__name__, "message": str(error), "code": error.code}
    except Exception as error:
        answer = {"error": f"not ours: {type(error).__name__}", "message": str(error), "code": 1}
    print(json.dumps(answer | {"seconds": time.monotonic() - start}), flush=True)
"""


class Session:
    """A process that builds networks with weights by name."""

    def __init__(self, python, folder, **environment):
        folder.mkdir(parents=True, exist_ok=True)
        self.home = folder / "zoo"
        environment = {"ZOO_HOME": str(self.home), "HF_HOME": str(folder / "hf"), "HOME": str(folder)} | environment
        self.log = folder / "stderr.txt"
        with self.log.open("w") as log:
            self.process = python("-c", SESSION, env=environment, stdin=subprocess.PIPE, stderr=log)
        assert self.process.stdout.readline() == "ready\n", self.log.read_text()

    def get(self, weights, name="resnet_test"):
        """Build a network and return what came of it."""
        self.process.stdin.write(json.dumps([name, weights]) + "\n")
        self.process.stdin.flush()
        # Keras prints what it downloads.
        answer = next((line for line in self.process.stdout if line.startswith("{")), None)
        assert answer, self.log.read_text()[-2000:]
        return json.loads(answer)

    def refusal(self, weights, name="resnet_test", error="DataError"):
        """The message of the error, which is one line about the weights asked for."""
        answer = self.get(weights, name)
        assert (answer.get("error"), answer.get("code")) == (error, 2), answer.get("message")
        assert "\n" not in answer["message"]
        assert repr(weights) in answer["message"]
        return answer["message"]

    def close(self):
        self.process.stdin.close()
        self.process.stdout.close()
        self.process.wait(timeout=30)


@pytest.fixture(scope="module")
def hub():
    """A hub that serves all tests; each has a repository of its own."""
    hub = Hub()
    hub.start()
    yield hub
    hub.stop()


@pytest.fixture(scope="module")
def session(hub, python, tmp_path_factory):
    """A process whose hub is ours."""
    session = Session(python, tmp_path_factory.mktemp("session"), HF_ENDPOINT=hub.address)
    session.cache = session.log.parent / "hf" / "hub"
    yield session
    session.close()


def cached(session, repository):
    """The content of a repository in the client's cache, and the link to it."""
    folder = session.cache / f"models--{repository.replace('/', '--')}"
    return list((folder / "blobs").glob("*")), list(folder.glob("snapshots/*/model.safetensors"))


@pytest.fixture
def down(hub):
    """Nobody answers at the hub's address."""
    hub.stop()
    yield hub
    hub.start()


def test_download_is_kept(hub, session):
    """What is downloaded has the right numbers, lies in the client's cache, and needs no hub from then on."""
    name = hub.publish("timm/resnet_test.kept")
    assert session.get(name)["values"] == EXPECTED
    (blob,), (link,) = cached(session, name)
    assert blob.name == hashlib.sha256(FILE).hexdigest()
    assert blob.read_bytes() == FILE
    assert link.parent.name == COMMIT
    hub.stop()
    try:
        again = session.get(name)
    finally:
        hub.start()
    assert again["values"] == EXPECTED
    assert again["seconds"] < 10
    assert session.get(name)["values"] == EXPECTED
    assert hub.asked.count(("GET", f"/store/{name}")) == 1


def test_imagenet_is_the_first_of_the_published(hub, session):
    """The name "imagenet" downloads what the model states first."""
    hub.publish("timm/resnet_test.best")
    assert session.get("imagenet")["values"] == EXPECTED
    assert ("GET", "/store/timm/resnet_test.best") in hub.asked


def test_damaged_cache_is_refused_and_removed(hub, session):
    """A byte that changed on the disk is seen; the file is gone, and the next time it is downloaded anew."""
    name = hub.publish("timm/resnet_test.damaged")
    session.get(name)
    (blob,), _ = cached(session, name)
    damaged = bytearray(FILE)
    damaged[-1] ^= 1
    blob.write_bytes(damaged)
    assert "damaged and has been removed" in session.refusal(name)
    assert cached(session, name)[0] == []
    assert session.get(name)["values"] == EXPECTED


def test_other_content_is_refused(hub, session):
    """Content that is not what the hub says it is does not stay."""
    name = hub.publish("timm/resnet_test.other")
    hub.sent[name] = FILE[:-1] + b"\x00"
    assert hub.sent[name] != FILE
    assert "damaged and has been removed" in session.refusal(name)
    assert cached(session, name)[0] == []
    hub.sent[name] = FILE
    assert session.get(name)["values"] == EXPECTED


def test_broken_download_goes_on(hub, session):
    """A connection that breaks off is taken up where it broke."""
    name = hub.publish("timm/resnet_test.breaks")
    hub.broken[name] = "breaks off"
    assert session.get(name)["values"] == EXPECTED
    assert hub.asked.count(("GET", f"/store/{name}")) == 2


@pytest.mark.parametrize("how", ["hangs up", "fails", "sends nothing"])
def test_failed_download_is_one_line(how, hub, session):
    """A hub that is out of order is one line that says which file to put where."""
    name = hub.publish(f"timm/resnet_test.{how.replace(' ', '_')}")
    hub.broken[name] = how
    message = session.refusal(name)
    assert f"Put {hub.address}/{name}/resolve/main/model.safetensors to {session.home / name}.safetensors" in message
    hub.broken.clear()
    assert session.get(name)["values"] == EXPECTED


def test_unknown_repository_is_one_line(hub, session):
    """A name that the hub does not have."""
    assert "could not be downloaded" in session.refusal("timm/resnet_test.unknown")


@pytest.mark.parametrize("name", ["timm/", "timm/a/b", "timm/../x", "timm/x y", "timm/.."])
def test_name_of_no_repository_is_one_line(name, session):
    """A name that no repository can have."""
    answer = session.get(name)
    assert answer["error"] in ("BadOption", "DataError")
    assert "\n" not in answer["message"]


def test_file_put_by_hand(down, session):
    """Without the hub one line says within seconds which file to put where, and the file put there is used."""
    start = time.monotonic()
    message = session.refusal("timm/resnet_test.by_hand")
    assert time.monotonic() - start < 10
    address, path = re.search(r"Put (\S+) to (\S+)", message).groups()
    assert address == f"{down.address}/timm/resnet_test.by_hand/resolve/main/model.safetensors"
    assert path == f"{session.home}/timm/resnet_test.by_hand.safetensors"
    (session.home / "timm").mkdir(parents=True, exist_ok=True)
    (session.home / "timm" / "resnet_test.by_hand.safetensors").write_bytes(FILE)
    assert session.get("timm/resnet_test.by_hand")["values"] == EXPECTED


def test_file_put_by_hand_comes_first(hub, session):
    """What a user put there is used, whatever the hub has."""
    name = hub.publish("timm/resnet_test.first", b"not this")
    (session.home / "timm").mkdir(parents=True, exist_ok=True)
    (session.home / f"{name}.safetensors").write_bytes(FILE)
    assert session.get(name)["values"] == EXPECTED
    assert not [path for _, path in hub.asked if name in path]


def test_half_a_file_put_by_hand_is_named(session):
    """A file that was put there but cannot be read is refused by its path, not by the name asked for alone."""
    path = session.home / "timm" / "resnet_test.half.safetensors"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(FILE[: len(FILE) // 2])
    assert str(path) in session.refusal("timm/resnet_test.half", error="BadOption")


def test_weights_of_another_network_are_refused(hub, session):
    """A file from the hub that does not fit is refused as one of the user's own is."""
    name = hub.publish("timm/resnet_test.misfit", save(STATE | {"conv.weight": np.ones((1, 1, 1, 1), "float32")}))
    assert "1 not expected here: conv.weight" in session.refusal(name, error="BadOption")


@pytest.mark.parametrize("name", ["mlp_tiny", "resnet50_v1"])
def test_hub_is_not_asked_for_what_cannot_fit(name, hub, session):
    """A model that has no layout of timm's is told so before anything is downloaded."""
    repository = hub.publish(f"timm/{name}.x")
    assert "no such weights" in session.refusal(repository, name, "BadOption")
    assert not [path for _, path in hub.asked if repository in path]


# Nothing listens at the discard port.
NO_NETWORK = dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), "http://127.0.0.1:9")


def test_offline_client(python, tmp_path):
    """A client that was told to stay offline is one line at once."""
    session = Session(python, tmp_path, HF_HUB_OFFLINE="1", **NO_NETWORK)
    try:
        answer = session.get("imagenet")
    finally:
        session.close()
    assert (answer["error"], "\n" in answer["message"]) == ("DataError", False)
    assert f"to {tmp_path}/zoo/timm/resnet_test.best.safetensors" in answer["message"]
    assert answer["seconds"] < 10


@pytest.mark.slow
@pytest.mark.parametrize("keras_home", [None, "elsewhere"])
def test_weights_of_keras_put_by_hand(keras_home, python, tmp_path):
    """Without a network one line says where Keras looks for its file, and the file put there is used."""
    import keras

    place = {} if keras_home is None else {"KERAS_HOME": str(tmp_path / keras_home)}
    session = Session(python, tmp_path, **place, **NO_NETWORK)
    try:
        address, path = re.search(r"Put (\S+) to (\S+)", session.refusal("keras", "mobilenet_v2")).groups()
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
