"""Formats of a third party that go wrong, and a run to export."""

from __future__ import annotations

import sys

import pytest

import export
from export.core.format import formats

THEIR_FORMATS = '''
import dataclasses
import os
from export.backends.litert.file import finish
from export.core.format import register
from export.core.options import REMEDY, Options, with_options
from export.core.tolerance import Tolerance
from export.backends.litert.runtime import LiteRtRuntime
from export.formats import tflite


def broken(source, path):
    """A converter that gets one kernel wrong."""
    kernel = next(w for w in source.model.trainable_variables if "kernel" in w.path)
    original = kernel.numpy()
    kernel.assign(-original)
    try:
        tflite.write(source, path)
    finally:
        kernel.assign(original)


def dying(source, path):
    os.abort()


def raising(source, path):
    raise ValueError("no such operator:\\nFancy")


def renamed(source, path):
    source.metadata["labels"] = source.metadata["labels"][::-1]
    try:
        tflite.write(source, path)
    finally:
        source.metadata["labels"] = source.metadata["labels"][::-1]


@dataclasses.dataclass(frozen=True)
class Repair(Options):
    """Options of which the second repairs the file."""

    better: bool = dataclasses.field(default=False, metadata={REMEDY: True})
    whole: bool = dataclasses.field(default=False, metadata={REMEDY: True})


def repairable(source, path, options=Repair()):
    """A quantized format that is broken unless it is repaired."""
    (tflite.write if options.whole else broken)(source, path)
    content = path.read_bytes()
    finish(content, with_options(source.metadata, options), path)


def hopeless(source, path, options=Repair()):
    """A quantized format whose remedies do not help."""
    repairable(source, path, dataclasses.replace(options, whole=False))
    finish(path.read_bytes(), with_options(source.metadata, options), path)


class TheirRuntime(LiteRtRuntime):
    """A runtime without another format."""


for name, write, load in (("repairable", repairable, LiteRtRuntime), ("hopeless", hopeless, TheirRuntime)):
    register(f"their_{name}", file="model.tflite", write=write, load=load, options=Repair,
             tolerance=Tolerance(0.5, 0.97, 0.006, snr=10.0), summary=name)
for name, write in {"broken": broken, "dying": dying, "raising": raising, "renamed": renamed}.items():
    register(f"their_{name}", file="model.tflite", write=write, load=LiteRtRuntime,
             tolerance=Tolerance(1e-4, 1.0, 0.0), summary=name)
'''


@pytest.fixture(scope="module")
def their_formats(tmp_path_factory):
    """Formats of a third party, each with another error; unregistered afterwards."""
    folder = tmp_path_factory.mktemp("their_formats")
    (folder / "their_formats.py").write_text(THEIR_FORMATS)
    sys.path.insert(0, str(folder))
    export.list_formats()
    entries, origins = dict(formats._entries), dict(formats._origins)
    import their_formats

    yield their_formats
    sys.path.remove(str(folder))
    del sys.modules["their_formats"]  # so that the next module registers them again
    formats._entries, formats._origins = entries, origins


@pytest.fixture
def run(copied, tmp_path):
    """A copy of the trained run without artifacts."""
    return copied(tmp_path / "run")


@pytest.fixture(scope="session")
def visible():
    """What an export left in a run: `visible(run)` returns the names in its folder of artifacts."""

    def names(run):
        return sorted(p.name for p in run.exports.iterdir()) if run.exports.exists() else []

    return names
