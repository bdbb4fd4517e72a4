"""Shared fixtures: one trained run, made once for all workers of a session."""

from __future__ import annotations

import ctypes
import fcntl
import gc
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# As `import zoo` does; tests may import TensorFlow first.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")

ROOT = Path(__file__).resolve().parent.parent


def _beside(name: str) -> Any:
    """Return a module next to this file; the tests are no package."""
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# A new process that trains or converts starts with TensorFlow imported.
subprocess.Popen = _beside("forking").Popen
# Bytes by which a process of the tests may grow before it looks for models that nothing refers to.
LARGE = 1 << 30
_held = [1 << 30]  # bytes, after it last did
# A model that is accurate enough after seconds of training for differences in accuracy to mean something.
QUICK = {"model.name": "resnet_tiny", "epochs": 6, "schedule.warmup_epochs": 1, "data.augment.rotate": 0}


def pytest_addoption(parser):
    """Add the option of `make check`."""
    parser.addoption("--light", action="store_true", help="Fail if a test imports TensorFlow into this process.")


@pytest.fixture(autouse=True)
def light(request):
    """Fail a test of `make check` that imports TensorFlow, which takes longer than all others together."""
    before = "tensorflow" in sys.modules
    yield
    if request.config.getoption("light") and not before and "tensorflow" in sys.modules:
        pytest.fail("A light test imported TensorFlow. Mark it with pytest.mark.tensorflow, or import less.")


def pytest_collection_finish(session):
    """Exclude imported modules from garbage collection, which took a fifth of the tests' time."""
    if session.config.getoption("light") and "tensorflow" in sys.modules:
        raise pytest.UsageError("A light test module imported TensorFlow. Import it inside the tests.")
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def collected(request):
    """Free large models soon: Python counts objects, not their half a gigabyte each."""
    yield
    if request.node.get_closest_marker("slow") or _resident() > _held[0] + LARGE:
        _free()
        _held[0] = _resident()


def _resident() -> int:
    """Return the bytes of memory that this process holds; 0 where the system does not report it."""
    sizes = Path("/proc/self/statm")
    return int(sizes.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") if sizes.is_file() else 0


def _free() -> None:
    """Free models that nothing refers to, and give their memory back to the system."""
    if keras := sys.modules.get("keras"):
        keras.backend.clear_session()
    gc.collect()
    if sys.platform == "linux":
        ctypes.CDLL(None).malloc_trim(0)


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository."""
    return ROOT


@pytest.fixture(scope="session")
def quick() -> dict:
    """Overrides that make `digits_resnet` train in seconds."""
    return dict(QUICK)


@pytest.fixture(scope="session")
def once(tmp_path_factory):
    """Make a folder once for all workers of a session: `once(name, make)` returns the path that `make()` returned."""
    own = tmp_path_factory.getbasetemp()
    place = own.parent if "PYTEST_XDIST_WORKER" in os.environ else own

    def run(name, make):
        with open(place / f"{name}.txt", "a+") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            file.seek(0)
            if not (path := file.read()):
                path = str(make())
                file.write(path)
        return Path(path)

    return run


@pytest.fixture(scope="session")
def digits_run(once, tmp_path_factory):
    """A finished run of a tiny ResNet on the real digits; no test changes it, because workers share it."""
    import training

    def make():
        return training.train("digits_resnet", QUICK, run=tmp_path_factory.mktemp("runs") / "digits").path

    return training.Run.open(once("digits_run", make))


@pytest.fixture(scope="session")
def write_images():
    """Write a folder of small JPEGs of two classes: `write_images(root, each)` returns it."""

    def write(root: Path, each: int) -> Path:
        import numpy as np
        from PIL import Image

        for number, name in enumerate(("cat", "dog")):
            (root / name).mkdir(parents=True)
            for i in range(each):
                pixels = np.full((12, 16, 3), 100 * number + i % 100, "uint8")
                Image.fromarray(pixels).save(root / name / f"{i:03d}.jpg")
        return root

    return write


@pytest.fixture
def zoo_command(capsys):
    """Run the command in this process; returns (exit code, standard output, standard error)."""
    from zoo.__main__ import main

    def run(*arguments: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as exit_:
            main([str(a) for a in arguments])
        out, err = capsys.readouterr()
        return int(exit_.value.code or 0), out, err

    return run


@pytest.fixture(scope="session")
def hub_server():
    """A hub on the loopback interface, see servers/hub_server.py."""
    from hub_server import HubServer

    server = HubServer()
    server.start()
    yield server
    server.stop()


@pytest.fixture
def local_hub(hub_server, monkeypatch, tmp_path):
    """The hub of this process' client, with empty caches and a valid token, for one test.

    The client reads its settings when it is imported.
    """
    from huggingface_hub import constants

    cache = tmp_path / "hub_cache"
    settings = {"ENDPOINT": hub_server.address, "HF_HUB_CACHE": str(cache), "HF_HUB_DISABLE_XET": True}
    template = hub_server.address + "/{repo_id}/resolve/{revision}/{filename}"
    for name, value in (settings | {"HUGGINGFACE_CO_URL_TEMPLATE": template}).items():
        monkeypatch.setattr(constants, name, value)
    # For child processes.
    for name, value in (("HF_ENDPOINT", hub_server.address), ("HF_HUB_CACHE", str(cache)), ("HF_HUB_DISABLE_XET", "1")):
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("ZOO_HOME", str(tmp_path / "zoo_home"))
    monkeypatch.setenv("HF_TOKEN", "hf_test")
    monkeypatch.delenv("ZOO_ALLOW_NONCOMMERCIAL", raising=False)
    hub_server.requests.clear()
    hub_server.cache = cache
    return hub_server


@pytest.fixture(scope="session")
def python():
    """Start Python in a separate process, in the repository; returns the Popen.

    With `warm=True` it has TensorFlow imported already, see forking.py.
    """

    def start(*arguments: object, **options: object) -> subprocess.Popen:
        options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "cwd": ROOT, **options}
        environment = {**os.environ, "PYTHONPATH": str(ROOT), **options.pop("env", {})}
        return subprocess.Popen([sys.executable, *map(str, arguments)], env=environment, **options)

    return start


@pytest.fixture(scope="session")
def printed(python):
    """Run Python in a separate process, which must succeed; returns the JSON in its last line."""

    def run(*arguments: object, timeout: float = 600, **options: object) -> Any:
        process = python(*arguments, **options)
        try:
            out, err = process.communicate(timeout=timeout)
        finally:
            process.kill()
        assert process.returncode == 0, err
        return json.loads(out.splitlines()[-1])

    return run
