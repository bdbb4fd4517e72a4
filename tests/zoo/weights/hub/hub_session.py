"""A hub with one file in each repository, and a process that builds models with weights from it."""

from __future__ import annotations

import hashlib
import http.server
import json
import re
import subprocess

import numpy as np
from loopback import LoopbackServer, Quiet
from safetensors.numpy import save

COMMIT = "c0ffee" * 6 + "0000"
STATE = {
    "stem.weight": np.arange(4 * 3 * 3 * 3, dtype="float32").reshape(4, 3, 3, 3),
    "logits.weight": np.arange(8, dtype="float32").reshape(2, 4),
    "logits.bias": np.array([5, 6], "float32"),
}
FILE = save(STATE)
# The state in a keras.Model, by layer and variable.
EXPECTED = {
    "stem/kernel": STATE["stem.weight"].transpose(2, 3, 1, 0).tolist(),
    "logits/kernel": STATE["logits.weight"].T.tolist(),
    "logits/bias": STATE["logits.bias"].tolist(),
}


class Handler(Quiet, http.server.BaseHTTPRequestHandler):
    """Handles one request to a `Hub`."""

    def do_HEAD(self):
        repository, revision = re.fullmatch(r"/(.*?)(?:/resolve/([^/]+)/model.safetensors)?", self.path).groups()
        repository += "" if revision in (None, "main") else f"@{revision}"
        self.hub.requests.append((self.command, self.path))
        if self.hub.broken.get(repository) == "hangs up":
            return
        if repository not in self.hub.files:
            self.respond(404, {"X-Error-Code": "RepoNotFound", "X-Error-Message": "Repository not found"})
            return
        content = self.hub.files[repository]
        self.respond(
            302,
            {
                # The client follows redirects to the same host before it looks at the headers.
                "Location": f"http://localhost:{self.hub.port}/store/{repository}",
                "X-Repo-Commit": COMMIT[::-1] if "@" in repository else COMMIT,
                "X-Linked-Etag": f'"{hashlib.sha256(content).hexdigest()}"',
                "X-Linked-Size": str(len(content)),
            },
        )

    def do_GET(self):
        if not self.path.startswith("/store/"):
            self.do_HEAD()
            return
        self.hub.requests.append((self.command, self.path))
        repository = self.path.removeprefix("/store/")
        how = self.hub.broken.get(repository)
        if how == "fails":
            self.respond(500, {})
            return
        first = int((re.findall(r"bytes=(\d+)-", self.headers.get("Range", "")) or [0])[0])
        content = self.hub.sent[repository][first:]
        self.respond(206 if first else 200, {"Content-Length": str(len(content))})
        if how == "breaks off":
            self.hub.broken.pop(repository)
            content = content[: len(content) // 2]
        self.wfile.write(content if how != "sends nothing" else b"")

    def respond(self, status, headers):
        self.send_response(status)
        for name, value in ({"Content-Length": "0"} | headers).items():
            self.send_header(name, value)
        self.end_headers()


class Hub(LoopbackServer):
    """A hub with one file in each repository.

    As on the real hub, the address of a file redirects to a store, and a header has the SHA-256 of the content.
    """

    handler = Handler

    def __init__(self):
        super().__init__()
        self.files, self.sent, self.broken = {}, {}, {}

    def publish(self, repository, content=FILE):
        """Add a repository and return its name; `sent` has the content that the hub sends."""
        self.files[repository] = self.sent[repository] = content
        return repository


# Builds models by name, one for each line of its input; the hub's client reads its settings when imported, so each
# setting needs its own process.
SESSION = """
import json, sys, time
import zoo
from zoo.layers.blocks import conv
from zoo.specs.published import NameMapping, PublishedWeights

known = {
    "name_mappings": {"timm": NameMapping(((r"(.*)", "{0}"),))},
    "weights": (PublishedWeights("timm/resnet_test.best", 50.0),),
}

@zoo.register_model("resnet_test", zoo.ModelSpec((8, 8, 3), 2, 8), params=118, **known)
def resnet_test(x, head):
    return head(conv(x, 4, 3, name="stem"))

zoo.get("resnet_test")
print("ready", flush=True)
for line in sys.stdin:
    name, weights = json.loads(line)
    start = time.monotonic()
    try:
        model = zoo.get(name, weights=weights)
        result = {"values": {f"{n.name}/{v.name}": v.numpy().tolist() for n in model.layers for v in n.weights}}
    except zoo.ZooError as error:
        result = {"error": type(error).__name__, "message": str(error), "code": error.code}
    except Exception as error:
        result = {"error": f"unexpected: {type(error).__name__}", "message": str(error), "code": 1}
    print(json.dumps(result | {"seconds": time.monotonic() - start}), flush=True)
"""


class Session:
    """A process that builds models with weights by name."""

    def __init__(self, python, folder, **environment):
        folder.mkdir(parents=True, exist_ok=True)
        self.home = folder / "zoo"
        environment = {"ZOO_HOME": str(self.home), "HF_HOME": str(folder / "hf"), "HOME": str(folder)} | environment
        self.log = folder / "stderr.txt"
        with self.log.open("w") as log:
            self.process = python("-c", SESSION, env=environment, stdin=subprocess.PIPE, stderr=log)
        assert self.process.stdout.readline() == "ready\n", self.log.read_text()

    def get(self, weights, name="resnet_test"):
        """Build a model and return its values or its error."""
        self.process.stdin.write(json.dumps([name, weights]) + "\n")
        self.process.stdin.flush()
        # Keras prints its downloads.
        result = next((line for line in self.process.stdout if line.startswith("{")), None)
        assert result, self.log.read_text()[-2000:]
        return json.loads(result)

    def refusal(self, weights, name="resnet_test", error="DataError"):
        """The message of the error: one line with the weights."""
        result = self.get(weights, name)
        assert (result.get("error"), result.get("code")) == (error, 2), result.get("message")
        assert "\n" not in result["message"]
        assert repr(weights) in result["message"]
        return result["message"]

    def close(self):
        self.process.stdin.close()
        self.process.stdout.close()
        self.process.wait(timeout=30)
