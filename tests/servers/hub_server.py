"""A small hub on the loopback interface: repositories with commits, large files and tokens, as the client asks for."""

from __future__ import annotations

import base64
import hashlib
import http.server
import json
import re
import urllib.parse

import yaml
from loopback import LoopbackServer, Quiet

LARGE = (".safetensors", ".onnx", ".tflite", ".npz", ".pb", ".bin")
TOKEN = "hf_test"
REPO = r"([^/]+/[^/]+)"
# Method, address and handler; the groups of the address are arguments.
ROUTES = [
    ("POST", r"/api/repos/create", "create"),
    ("POST", r"/api/validate-yaml", "validate"),
    ("POST", rf"/api/models/{REPO}/preupload/([^/]+)", "preupload"),
    ("POST", rf"/api/models/{REPO}/commit/([^/]+)", "commit"),
    ("POST", rf"/api/models/{REPO}/branch/([^/]+)", "branch"),
    ("POST", rf"/{REPO}\.git/info/lfs/objects/batch", "batch"),
    ("PUT", r"/store/(\w+)", "store"),
    ("GET", rf"/api/models/{REPO}(?:/revision/([^/]+))?", "describe"),
    ("GET", rf"/{REPO}/resolve/([^/]+)/(.+)", "resolve"),
    ("HEAD", rf"/{REPO}/resolve/([^/]+)/(.+)", "resolve"),
]


class Refused(Exception):
    """An error response: its status, and the code that the client reads."""


class Handler(Quiet, http.server.BaseHTTPRequestHandler):
    """Handles one request to a `HubServer`."""

    def do_GET(self):
        """Find the handler of a request, and answer with its status, body and headers."""
        address, _, query = self.path.partition("?")
        self.query = urllib.parse.parse_qs(query)
        self.body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.hub.requests.append((self.command, address))
        try:
            status, body, headers = self.handle_address(address)
        except Refused as error:
            status, code = error.args
            status, body, headers = status, {"error": code}, {"X-Error-Code": code, "X-Error-Message": code}
            headers |= getattr(error, "headers", {})
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(content))} | headers).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def handle_address(self, address):
        """Return status, body and headers."""
        for method, pattern, name in ROUTES:
            match = re.fullmatch(pattern, address) if method == self.command else None
            if match:
                groups = [urllib.parse.unquote(g) if g else "main" for g in match.groups()]
                answer = getattr(self, name)(*groups)
                return answer if isinstance(answer, tuple) else (200, answer, {})
        raise Refused(404, "NotFound")

    def signed_in(self):
        return self.headers.get("Authorization") == f"Bearer {TOKEN}"

    def check_write(self, name=None):
        if not self.signed_in():
            raise Refused(401, "Unauthorized")
        if name is not None and name not in self.hub.branches:
            raise Refused(404, "RepoNotFound")

    def check_read(self, name):
        if name not in self.hub.branches or (self.hub.private.get(name) and not self.signed_in()):
            raise Refused(401 if not self.signed_in() else 404, "RepoNotFound")

    def create(self):
        self.check_write()
        asked = json.loads(self.body)
        name = f"{asked['organization']}/{asked['name']}"
        if name in self.hub.branches:
            return 409, {"error": "exists", "url": f"{self.hub.address}/{name}"}, {}
        self.hub.private[name] = asked.get("visibility") == "private" or asked.get("private") is True
        self.hub.publish(name, {".gitattributes": b""})
        return {"url": f"{self.hub.address}/{name}", "name": name}

    def validate(self):
        content = json.loads(self.body)["content"]
        metadata = yaml.safe_load(content.split("---")[1])
        known = "license" not in metadata or re.fullmatch(r"[a-z0-9.-]+", metadata["license"])
        errors = [] if known else [{"message": '"license" must be an identifier'}]
        return 400 if errors else 200, {"warnings": [], "errors": errors}, {}

    def preupload(self, name, revision):
        self.check_write(name)
        files = [f["path"] for f in json.loads(self.body)["files"]]
        modes = [(path, "lfs" if path.endswith(LARGE) else "regular") for path in files]
        return {"files": [{"path": p, "uploadMode": mode, "shouldIgnore": False} for p, mode in modes]}

    def batch(self, name):
        self.check_write(name)
        objects = [{"oid": o["oid"], "size": o["size"]} for o in json.loads(self.body)["objects"]]
        uploads = [{"actions": {"upload": {"href": f"{self.hub.address}/store/{o['oid']}"}}} for o in objects]
        return {"transfer": "basic", "objects": [o | u for o, u in zip(objects, uploads, strict=True)]}

    def store(self, oid):
        if hashlib.sha256(self.body).hexdigest() != oid:
            raise Refused(400, "BadDigest")
        self.hub.large[oid] = self.body
        return b""

    def commit(self, name, revision):
        self.check_write(name)
        lines = [json.loads(line) for line in self.body.splitlines()]
        files = {v["path"]: base64.b64decode(v["content"]) for k, v in map(key_value, lines) if k == "file"}
        files |= {v["path"]: self.hub.large[v["oid"]] for k, v in map(key_value, lines) if k == "lfsFile"}
        asked = "create_pr" in self.query
        branch = "refs/pr/1" if asked else revision
        if not asked and branch not in self.hub.branches[name]:
            raise Refused(404, "RevisionNotFound")
        oid = self.hub.publish(name, files, branch)
        request = {"pullRequestUrl": f"{self.hub.address}/{name}/discussions/1"} if asked else {}
        return {"commitUrl": f"{self.hub.address}/{name}/commit/{oid}", "commitOid": oid, **request}

    def branch(self, name, branch):
        self.check_write(name)
        if branch in self.hub.branches[name]:
            raise Refused(409, "BranchExists")
        self.hub.branches[name][branch] = self.hub.branches[name]["main"]
        return {}

    def describe(self, name, revision):
        self.check_read(name)
        oid, files = self.hub.files(name, revision)
        return {"id": name, "modelId": name, "sha": oid, "siblings": [{"rfilename": path} for path in files]}

    def resolve(self, name, revision, path):
        self.check_read(name)
        oid, files = self.hub.files(name, revision)
        if path not in files:
            error = Refused(404, "EntryNotFound")
            error.headers = {"X-Repo-Commit": oid}
            raise error
        content, commit = files[path], {"X-Repo-Commit": oid}
        if path.endswith(LARGE):
            digest = hashlib.sha256(content).hexdigest()
            # A tampered store sends another content than the one that was committed.
            return 200, self.hub.large.get(f"sent {digest}", content), commit | {"ETag": f'"{digest}"'}
        blob = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
        return 200, content, commit | {"ETag": f'"{blob}"'}


for verb in ("HEAD", "POST", "PUT"):
    setattr(Handler, f"do_{verb}", Handler.do_GET)


class HubServer(LoopbackServer):
    """Repositories in memory, and a server for them."""

    handler = Handler

    def __init__(self):
        super().__init__()
        self.branches, self.commits, self.private, self.large = {}, {}, {}, {}

    def publish(self, name, files, branch="main"):
        """Add a commit with files to a repository, and return its id."""
        branches = self.branches.setdefault(name, {})
        tree = {**self.commits.get(branches.get(branch), {}), **files}
        oid = hashlib.sha1(f"{name}{branch}{len(self.commits)}".encode()).hexdigest()
        self.commits[oid], branches[branch] = tree, oid
        return oid

    def files(self, name, revision="main"):
        """Return the files of a branch or commit."""
        oid = self.branches[name].get(revision, revision)
        if oid not in self.commits:
            raise Refused(404, "RevisionNotFound")
        return oid, self.commits[oid]


def key_value(line):
    """Return key and value of a line of a commit."""
    return line["key"], line["value"]
